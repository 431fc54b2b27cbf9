//! The shipped manifests, as a real API server takes them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};

use serde_json::{Value, json};

use super::{
    Cluster,
    apiserver::{failed, succeeded},
};
use crate::support::{Gpg, Scratch, code_blocks, run, wait_until};

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

const BOTH_KINDS: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

/// All webhooks of both configurations.
fn webhooks(objects: &[Value]) -> impl Iterator<Item = &Value> {
    BOTH_KINDS.into_iter().flat_map(|kind| find(objects, kind)["webhooks"].as_array().expect("there are webhooks"))
}

/// What docs/installation.md lets its readers write, beside a copy of the shipped manifests.
struct Installation {
    folder: Scratch,
    /// Its kustomization, to be changed as later steps say.
    kustomization: String,
}

impl Installation {
    fn documented() -> Self {
        let folder = Scratch::new();
        run("cp", ["-r".as_ref(), shipped("").as_os_str(), folder.path().join("manifests").as_os_str()]);
        let copied = std::fs::read(shipped("base/configuration/sealgate.yaml")).expect("it is shipped");
        folder.write("my-sealgate/sealgate.yaml", copied);
        folder.write("my-sealgate/policies/cluster.yaml", documented("kind: ClusterSealPolicy"));
        let gpg = Gpg::new();
        let key = gpg.generate("Release <release@example.com>");
        gpg.export_to(&key, folder.path().join("my-sealgate/policies/acme-release.asc"));
        Self { folder, kustomization: documented("kind: Kustomization") }
    }

    /// Everything that it makes.
    fn objects(&self) -> Vec<Value> {
        self.folder.write("my-sealgate/kustomization.yaml", &self.kustomization);
        objects(Cluster::get(), &self.folder.path().join("my-sealgate"))
    }

    /// Takes a line out, and the one above it, of which it is all.
    fn take_out(&mut self, list: &str) {
        let (before, after) = self.kustomization.split_once(&format!("{list}:\n")).expect(list);
        let (taken, rest) = after.split_once('\n').expect("a line");
        assert!(taken.starts_with("- ") && !rest.starts_with("- "), "{taken}");
        self.kustomization = format!("{before}{rest}");
    }
}

/// The one example of docs/installation.md with this text in it.
fn documented(text: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/installation.md");
    let examples = code_blocks(&std::fs::read_to_string(page).expect("the page is there"), "yaml");
    let mut matching = examples.into_iter().filter(|example| example.contains(text));
    let example = matching.next().unwrap_or_else(|| panic!("no example has {text}"));
    assert!(matching.next().is_none(), "{text} stands in two examples");
    example
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
        "resourcequota/sealgate",
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
    let objects = objects(cluster, &shipped("base"));
    cluster.apply(&find(&objects, "ResourceQuota").to_string());
    let mut pod = find(&objects, "Deployment")["spec"]["template"].clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = "gate".into();
    let create = |namespace: &str, pod: &Value| {
        let arguments = ["-n", namespace, "create", "--dry-run=server", "-f", "-"];
        cluster.try_kubectl_with(arguments, &pod.to_string())
    };
    // A quota says what it allows only once its controller has seen it.
    let quota = ["-n", "sealgate", "get", "resourcequota", "-o", "jsonpath={.items[*].status.hard.pods}"];
    wait_until("the quota", || (!cluster.kubectl(quota).is_empty()).then_some(()));
    succeeded(create("sealgate", &pod));
    let elsewhere = cluster.namespace("elsewhere");
    let refused = failed(&create(&elsewhere, &pod));
    assert!(refused.contains("insufficient quota to match these scopes"), "as on GKE: {refused}");

    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = true.into();
    let refused = failed(&create("sealgate", &pod));
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
fn cert_manager_is_asked_for_the_webhooks_name_and_told_where_its_ca_belongs() {
    let objects = objects(Cluster::get(), &shipped("overlays/cert-manager"));
    for kind in BOTH_KINDS {
        let annotations = &find(&objects, kind)["metadata"]["annotations"];
        assert_eq!(annotations["cert-manager.io/inject-ca-from"], "sealgate/sealgate-webhook");
    }
    let certificate = objects
        .iter()
        .find(|object| object["kind"] == "Certificate" && object["metadata"]["name"] == "sealgate-webhook")
        .expect("it is the one that is injected");
    let mounted = find(&objects, "Deployment")["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    assert!(mounted.iter().any(|volume| volume["secret"]["secretName"] == certificate["spec"]["secretName"]));
    assert_eq!(certificate["spec"]["dnsNames"], json!(sealgate::tls::WEBHOOK_NAMES));
}

#[test]
fn the_openssl_overlay_has_a_certificate_that_its_webhook_configurations_trust() {
    let cluster = Cluster::get();
    make_namespace(cluster);
    let copy = Scratch::new();
    run("cp", ["-r".as_ref(), shipped("").as_os_str(), copy.path().join("manifests").as_os_str()]);
    let overlay = copy.path().join("manifests/overlays/openssl");
    let make = overlay.join("make-certificate");
    // What a first run left that was interrupted.
    copy.write("manifests/overlays/openssl/certs/ca.key", "");
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
    for webhook in webhooks(&objects) {
        assert_eq!(webhook["clientConfig"]["caBundle"], secret["data"]["ca.crt"]);
    }
}

#[test]
fn until_it_enforces_the_installation_refuses_nothing_the_gate_was_not_asked() {
    let mut installation = Installation::documented();
    let all = |objects: &[Value], policy: &str| {
        assert_eq!(webhooks(objects).count(), 5);
        for webhook in webhooks(objects) {
            assert_eq!(webhook["failurePolicy"], policy, "{webhook}");
        }
    };
    let warning = installation.objects();
    all(&warning, "Ignore");
    let certificates = find(&warning, "MutatingWebhookConfiguration")["metadata"]["annotations"].as_object();
    assert!(certificates.is_some_and(|annotations| annotations.contains_key("cert-manager.io/inject-ca-from")));
    let image = &find(&warning, "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "registry.example.com/sealgate:0.1.0");
    assert!(warning.iter().all(|object| object["metadata"]["name"] != "sealgate-fail-open"), "only kustomize reads it");
    valid_where_it_is_mounted(&warning);

    installation.take_out("components");
    all(&installation.objects(), "Fail");
}

#[test]
fn the_documented_installation_works_with_the_other_overlay() {
    let mut installation = Installation::documented();
    run(installation.folder.path().join("manifests/overlays/openssl/make-certificate").to_str().unwrap(), [""; 0]);
    assert!(installation.kustomization.contains("# or ../manifests/overlays/openssl"));
    installation.kustomization = installation.kustomization.replace("overlays/cert-manager", "overlays/openssl");
    for webhook in webhooks(&installation.objects()) {
        assert_eq!(webhook["failurePolicy"], "Ignore");
        assert!(webhook["clientConfig"]["caBundle"].is_string(), "{webhook}");
    }
}

#[test]
fn the_documented_patch_leaves_further_namespaces_out_of_all_webhooks_and_none_in() {
    let mut installation = Installation::documented();
    installation.kustomization += &documented("patches:");
    let objects = installation.objects();
    for webhook in webhooks(&objects) {
        let expression =
            |values: &[&str]| json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": values});
        let expected = [expression(&["kube-system", "sealgate"]), expression(&["calico-system", "tigera-operator"])];
        assert_eq!(webhook["namespaceSelector"], json!({"matchExpressions": expected}), "{}", webhook["name"]);
    }
}

#[test]
fn the_shipped_configuration_and_policy_are_valid_where_the_deployment_mounts_them() {
    valid_where_it_is_mounted(&objects(Cluster::get(), &shipped("base")));
}

/// Runs the Deployment's own arguments on the files that it mounts.
fn valid_where_it_is_mounted(objects: &[Value]) {
    let spec = &find(objects, "Deployment")["spec"]["template"]["spec"];
    let root = Scratch::new();
    let below_root = |path: &str| format!("{}{path}", root.path().display());
    for volume in spec["volumes"].as_array().expect("volumes") {
        let mounts = spec["containers"][0]["volumeMounts"].as_array().expect("mounts");
        let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]).expect("every volume is mounted");
        let path = mount["mountPath"].as_str().expect("a path").trim_start_matches('/');
        if let Some(name) = volume["configMap"]["name"].as_str() {
            let map = objects.iter().find(|object| object["kind"] == "ConfigMap" && object["metadata"]["name"] == name);
            for (file, content) in map.expect("the ConfigMap is there")["data"].as_object().expect("data") {
                root.write(&format!("{path}/{file}"), content.as_str().expect("text"));
            }
        } else {
            let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
            root.write(&format!("{path}/tls.crt"), key.cert.pem());
            root.write(&format!("{path}/tls.key"), key.signing_key.serialize_pem());
        }
    }
    let arguments = spec["containers"][0]["args"].as_array().expect("arguments").iter().map(|argument| {
        let argument = argument.as_str().expect("text");
        if argument.starts_with('/') { below_root(argument) } else { argument.to_owned() }
    });
    let output =
        Command::new(env!("CARGO_BIN_EXE_sealgate")).args(arguments).arg("--validate").output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
