//! The control plane itself, before any gate.

use super::{
    Cluster,
    apiserver::{failed, succeeded},
};

#[test]
fn pods_with_image_volumes_are_stored_and_the_broken_ones_refused() {
    let cluster = Cluster::get();
    let namespace = cluster.namespace("plain");
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: web, namespace: {namespace}}}, spec: {{\
         containers: [{{name: web, image: 'registry.example.com/acme/web:1'}}], \
         volumes: [{{name: data, image: {{reference: 'registry.example.com/acme/data:1'}}}}]}}}}"
    ));
    let stored = "jsonpath={.spec.containers[*].image} {.spec.volumes[*].image.reference}";
    let images = cluster.kubectl(["-n", &namespace, "get", "pod", "web", "-o", stored]);
    assert_eq!(images, "registry.example.com/acme/web:1 registry.example.com/acme/data:1");
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: none}, spec: {containers: []}}";
    let refused = failed(&cluster.try_kubectl_with(["-n", &namespace, "apply", "-f", "-"], pod));
    assert!(refused.contains("spec.containers: Required value"), "{refused}");
}

/// kubectl refuses to work with a server whose version it can't read, so the programs have to be built with one.
#[test]
fn the_programs_know_their_version() {
    let version = succeeded(Cluster::get().try_kubectl(["version"]));
    assert!(version.contains("Server Version: v1."), "{version}");
}
