//! The shipped manifests, as a real API server takes them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

use serde_json::Value;

use super::{
    Cluster,
    apiserver::{failed, succeeded},
};
use crate::support::{Scratch, run};

pub(super) fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests").join(path)
}

/// Everything that a kustomization makes.
fn objects(cluster: &Cluster, kustomization: &Path) -> Vec<Value> {
    let yaml = cluster.kubectl(["kustomize".as_ref(), kustomization.as_os_str()]);
    serde_saphyr::from_multiple(&yaml).expect("kustomize makes YAML")
}

fn find<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("there is no {kind}"))
}

/// The namespace has to be there before anything in it can be tried.
pub(super) fn make_namespace(cluster: &Cluster) {
    // Once: two that find it missing would both create it.
    static MADE: Once = Once::new();
    MADE.call_once(|| {
        cluster.kubectl(["apply".as_ref(), "-f".as_ref(), shipped("base/namespace.yaml").as_os_str()]);
    });
}

#[test]
fn the_api_server_takes_the_base_without_a_warning() {
    let cluster = Cluster::get();
    make_namespace(cluster);
    let base = shipped("base");
    let output = cluster.try_kubectl(["apply".as_ref(), "--dry-run=server".as_ref(), "-k".as_ref(), base.as_os_str()]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "warnings are about pod security, or fields nobody knows");
    let printed = succeeded(output);
    for kind in [
        "serviceaccount/sealgate",
        "configmap/sealgate-configuration-",
        "configmap/sealgate-policies ",
        "service/sealgate-webhook",
        "deployment.apps/sealgate",
        "poddisruptionbudget.policy/sealgate",
        "networkpolicy.networking.k8s.io/sealgate",
        "mutatingwebhookconfiguration.admissionregistration.k8s.io/sealgate",
        "validatingwebhookconfiguration.admissionregistration.k8s.io/sealgate",
    ] {
        assert!(printed.contains(kind), "{kind} is missing in:\n{printed}");
    }
}

#[test]
fn the_api_server_takes_the_store_s_roles_without_a_warning() {
    let cluster = Cluster::get();
    make_namespace(cluster);
    let store = shipped("store");
    let output = cluster.try_kubectl(["apply".as_ref(), "--dry-run=server".as_ref(), "-k".as_ref(), store.as_os_str()]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "warnings are about fields nobody knows");
    let printed = succeeded(output);
    for name in [
        "serviceaccount/sealgate-store",
        "clusterrole.rbac.authorization.k8s.io/system:image-signer",
        "clusterrole.rbac.authorization.k8s.io/image-auditor",
        "clusterrole.rbac.authorization.k8s.io/sealgate-store-admin",
        "clusterrolebinding.rbac.authorization.k8s.io/sealgate-store-auth-delegator",
    ] {
        assert!(printed.contains(name), "{name} is missing in:\n{printed}");
    }
}

/// A Deployment is stored whatever its pods look like; only a pod shows whether the namespace's own rules let it in.
#[test]
fn the_gates_own_pod_may_run_in_its_namespace_and_a_privileged_one_may_not() {
    let cluster = Cluster::get();
    make_namespace(cluster);
    let deployment = find(&objects(cluster, &shipped("base")), "Deployment").clone();
    let mut pod = deployment["spec"]["template"].clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = "gate".into();
    let create = ["-n", "sealgate", "create", "--dry-run=server", "-f", "-"];
    succeeded(cluster.try_kubectl_with(create, &pod.to_string()));
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = true.into();
    let refused = failed(&cluster.try_kubectl_with(create, &pod.to_string()));
    assert!(refused.contains("violates PodSecurity \"restricted"), "{refused}");
}

/// The labels that select the gate's pods stand in five files.
#[test]
fn service_budget_and_network_policy_select_the_gates_pods() {
    let cluster = Cluster::get();
    let objects = objects(cluster, &shipped("base"));
    let deployment = find(&objects, "Deployment");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&find(&objects, "Service")["spec"]["selector"], labels);
    assert_eq!(&find(&objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&find(&objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"], labels);
    let ports = &deployment["spec"]["template"]["spec"]["containers"][0]["ports"];
    for port in find(&objects, "Service")["spec"]["ports"].as_array().unwrap() {
        assert!(ports.as_array().unwrap().iter().any(|named| named["name"] == port["targetPort"]), "{port}");
    }
    let webhooks = &find(&objects, "ValidatingWebhookConfiguration")["webhooks"];
    for webhook in webhooks.as_array().unwrap() {
        assert_eq!(webhook["clientConfig"]["service"]["name"], find(&objects, "Service")["metadata"]["name"]);
        assert_eq!(webhook["clientConfig"]["service"]["namespace"], deployment["metadata"]["namespace"]);
    }
}

#[test]
fn cert_manager_is_asked_for_the_name_that_the_api_server_calls_and_told_where_its_ca_belongs() {
    let objects = objects(Cluster::get(), &shipped("overlays/cert-manager"));
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let annotations = &find(&objects, kind)["metadata"]["annotations"];
        assert_eq!(annotations["cert-manager.io/inject-ca-from"], "sealgate/sealgate-webhook");
    }
    let certificate = objects
        .iter()
        .find(|object| object["kind"] == "Certificate" && object["metadata"]["name"] == "sealgate-webhook")
        .expect("it is the one that is injected");
    let mounted = find(&objects, "Deployment")["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    assert!(mounted.iter().any(|volume| volume["secret"]["secretName"] == certificate["spec"]["secretName"]));
    assert_eq!(certificate["spec"]["dnsNames"], serde_json::json!(sealgate::tls::WEBHOOK_NAMES));
}

#[test]
fn the_openssl_overlay_has_a_certificate_that_its_webhook_configurations_trust() {
    let cluster = Cluster::get();
    make_namespace(cluster);
    let copy = Scratch::new();
    run("cp", ["-r".as_ref(), shipped("").as_os_str(), copy.path().join("manifests").as_os_str()]);
    let overlay = copy.path().join("manifests/overlays/openssl");
    let make = overlay.join("make-certificate");
    run(make.to_str().unwrap(), [""; 0]);
    let authority = std::fs::read(overlay.join("certs/ca.crt")).unwrap();
    let first = std::fs::read(overlay.join("certs/tls.crt")).unwrap();
    // Again, to renew: another certificate, of the same CA.
    run(make.to_str().unwrap(), [""; 0]);
    assert_eq!(std::fs::read(overlay.join("certs/ca.crt")).unwrap(), authority);
    assert_ne!(std::fs::read(overlay.join("certs/tls.crt")).unwrap(), first);
    for name in sealgate::tls::WEBHOOK_NAMES {
        let verify = Command::new("openssl")
            .args([
                "verify",
                "-purpose",
                "sslserver",
                "-verify_hostname",
                name,
                "-CAfile",
                "certs/ca.crt",
                "certs/tls.crt",
            ])
            .current_dir(&overlay)
            .output()
            .unwrap();
        assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stderr));
    }

    let printed = cluster.kubectl(["apply".as_ref(), "--dry-run=server".as_ref(), "-k".as_ref(), overlay.as_os_str()]);
    assert!(printed.contains("secret/sealgate-webhook-certificate created"), "{printed}");
    let objects = objects(cluster, &overlay);
    let secret = find(&objects, "Secret");
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        for webhook in find(&objects, kind)["webhooks"].as_array().unwrap() {
            assert_eq!(webhook["clientConfig"]["caBundle"], secret["data"]["ca.crt"]);
        }
    }
}

/// The Deployment's own arguments, on the files that it mounts.
#[test]
fn the_shipped_configuration_and_policy_are_valid_where_the_deployment_mounts_them() {
    let objects = objects(Cluster::get(), &shipped("base"));
    let spec = &find(&objects, "Deployment")["spec"]["template"]["spec"];
    let root = Scratch::new();
    let below_root = |path: &str| format!("{}{path}", root.path().display());
    for volume in spec["volumes"].as_array().unwrap() {
        let mounts = spec["containers"][0]["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]).expect("every volume is mounted");
        let path = mount["mountPath"].as_str().unwrap().trim_start_matches('/');
        if let Some(name) = volume["configMap"]["name"].as_str() {
            let map = objects.iter().find(|object| object["kind"] == "ConfigMap" && object["metadata"]["name"] == name);
            for (file, content) in map.expect("the ConfigMap is there").get("data").unwrap().as_object().unwrap() {
                root.write(&format!("{path}/{file}"), content.as_str().unwrap());
            }
        } else {
            let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            root.write(&format!("{path}/tls.crt"), key.cert.pem());
            root.write(&format!("{path}/tls.key"), key.signing_key.serialize_pem());
        }
    }
    let arguments = spec["containers"][0]["args"].as_array().unwrap().iter().map(|argument| {
        let argument = argument.as_str().unwrap();
        if argument.starts_with('/') { below_root(argument) } else { argument.to_owned() }
    });
    let output =
        Command::new(env!("CARGO_BIN_EXE_sealgate")).args(arguments).arg("--validate").output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
