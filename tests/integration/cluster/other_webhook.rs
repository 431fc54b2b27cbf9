//! Another mutating webhook, which comes after ours and changes what ours has seen.

use std::{net::TcpListener, path::Path, sync::Arc};

use actix_web::{App, HttpResponse, HttpServer, rt, web};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use sealgate::{configuration::Certificate, tls::ServerTls};
use serde_json::{Value, json};

use super::{
    Scenario,
    apiserver::{failed, succeeded},
    scenario::ScenarioOptions,
};
use crate::support::wait_until;

/// The annotation with the JSON patch that the other webhook answers.
const PATCH: &str = "example.com/patch";

/// Answers each review with the patch that stands in the object's own annotation.
struct Other {
    address: String,
    ca: String,
    server: actix_web::dev::ServerHandle,
}

impl Other {
    fn start(folder: &Path) -> Self {
        let certificate = Certificate::Made { folder: folder.join("other") };
        let tls = ServerTls::load(&certificate, None, &["localhost"], Timestamp::now()).expect("a certificate is made");
        let ca = std::fs::read_to_string(tls.made_ca().expect("it is made")).expect("it is there");
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let address = listener.local_addr().expect("it has one").to_string();
        let configuration = Arc::new(tls);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            rt::System::new().block_on(async move {
                let server = HttpServer::new(|| App::new().route("/", web::post().to(answer)))
                    .workers(1)
                    .disable_signals()
                    .listen_rustls_0_23(listener, configuration.server_config())
                    .expect("it listens")
                    .run();
                sender.send(server.handle()).expect("the test waits");
                server.await
            })
        });
        Self { address, ca, server: receiver.recv().expect("it starts") }
    }

    /// Its configuration; the name sorts after ours, so that the API server calls it after ours.
    fn configuration(&self, scenario: &Scenario, reinvocation: &str) -> Value {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": format!("zz-other-{}", scenario.namespace)},
            "webhooks": [{
                "name": "other.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "reinvocationPolicy": reinvocation, "failurePolicy": "Fail",
                "clientConfig": {"url": format!("https://{}/", self.address), "caBundle": STANDARD.encode(&self.ca)},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scenario.namespace}},
                "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"],
                           "resources": ["pods"]}],
            }],
        })
    }

    fn register(&self, scenario: &Scenario, reinvocation: &str) {
        scenario.cluster.apply(&self.configuration(scenario, reinvocation).to_string());
        wait_until("the other webhook", || {
            let patch = json!([{"op": "add", "path": "/metadata/labels", "value": {"other": "was-here"}}]);
            let mut probe = scenario.pod("probe", "probe");
            probe["metadata"]["annotations"] = json!({PATCH: patch.to_string()});
            let arguments = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
            let output = scenario.cluster.try_kubectl_with(arguments, &probe.to_string());
            String::from_utf8_lossy(&output.stdout).contains("was-here").then_some(())
        });
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // The future only waits for the stop, which happens without it too.
        drop(self.server.stop(false));
    }
}

async fn answer(review: web::Json<Value>) -> HttpResponse {
    let request = &review["request"];
    let mut response = json!({"uid": request["uid"], "allowed": true});
    if let Some(patch) = request["object"]["metadata"]["annotations"][PATCH].as_str() {
        response["patchType"] = "JSONPatch".into();
        response["patch"] = STANDARD.encode(patch).into();
    }
    HttpResponse::Ok()
        .json(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
}

/// A pod with this image, whose creation the other webhook will answer with this patch.
fn patched(scenario: &Scenario, name: &str, image: &str, patch: &Value) -> Value {
    let mut pod = scenario.pod(name, image);
    pod["metadata"]["annotations"] = json!({PATCH: patch.to_string()});
    pod
}

#[test]
fn an_image_that_is_swapped_after_ours_gets_in_only_if_it_is_signed_itself() {
    let scenario = Scenario::start("swap");
    let other = Other::start(scenario.folder());
    other.register(&scenario, "Never");
    scenario.push_signed("acme/web", "1");
    let second = scenario.push_signed("acme/web", "2");
    let unsigned = scenario.push("acme/unsigned", "1", "unsigned");
    let swap = |image: &str| json!([{"op": "replace", "path": "/spec/containers/0/image", "value": image}]);

    let web = scenario.image("acme/web:1");
    let refused =
        failed(&scenario.try_create(&patched(&scenario, "a", &web, &swap(&scenario.image("acme/unsigned:1")))));
    assert!(refused.contains("[unsigned]"), "{refused}");
    // A digest is no seal, and neither is the name of a signed image in front of one.
    for lie in [
        scenario.pinned("acme/unsigned", "1", &unsigned.digest),
        format!("{}@{}", scenario.image("acme/web:1"), unsigned.digest),
    ] {
        let refused = failed(&scenario.try_create(&patched(&scenario, "b", &web, &swap(&lie))));
        assert!(refused.contains("[manifest-unknown]") || refused.contains("[unsigned]"), "{refused}");
    }
    let stored = scenario.create(&patched(&scenario, "c", &web, &swap(&scenario.image("acme/web:2"))));
    assert_eq!(stored.trim(), second, "our webhook is asked again, and pins what came later");
}

#[test]
fn an_injected_sidecar_is_pinned_or_refused() {
    let scenario = Scenario::start("sidecar");
    let other = Other::start(scenario.folder());
    other.register(&scenario, "Never");
    let web = scenario.push_signed("acme/web", "1");
    let proxy = scenario.push_signed("acme/proxy", "1");
    scenario.push("acme/unsigned", "1", "unsigned");
    let inject = |list: &str, image: &str| {
        let sidecar = json!({"name": "sidecar", "image": image, "restartPolicy": "Always"});
        if list == "initContainers" {
            json!([{"op": "add", "path": "/spec/initContainers", "value": [sidecar]}])
        } else {
            json!([{"op": "add", "path": "/spec/containers/-", "value": {"name": "sidecar", "image": image}}])
        }
    };
    for list in ["containers", "initContainers"] {
        let name = list.to_lowercase();
        let patch = inject(list, &scenario.image("acme/unsigned:1"));
        let refused = failed(&scenario.try_create(&patched(&scenario, &name, &scenario.image("acme/web:1"), &patch)));
        assert!(refused.contains("\"sidecar\": "), "{refused}");
        assert!(refused.contains("[unsigned]"), "{refused}");
        let patch = inject(list, &scenario.image("acme/proxy:1"));
        let stored = scenario.create(&patched(&scenario, &name, &scenario.image("acme/web:1"), &patch));
        assert_eq!(stored.trim(), format!("{web} {proxy}"));
    }
}

/// `image: auto` is what an injector's users write for what the injector knows.
#[test]
fn a_placeholder_survives_us_and_what_replaces_it_is_judged() {
    let scenario = Scenario::start("auto");
    let other = Other::start(scenario.folder());
    other.register(&scenario, "Never");
    let web = scenario.push_signed("acme/web", "1");
    scenario.push("acme/unsigned", "1", "unsigned");
    let replace = |image: &str| {
        json!([
            {"op": "test", "path": "/spec/containers/0/image", "value": "auto"},
            {"op": "replace", "path": "/spec/containers/0/image", "value": image},
        ])
    };
    let stored = scenario.create(&patched(&scenario, "a", "auto", &replace(&scenario.image("acme/web:1"))));
    assert_eq!(stored.trim(), web);
    let refused =
        failed(&scenario.try_create(&patched(&scenario, "b", "auto", &replace(&scenario.image("acme/unsigned:1")))));
    assert!(refused.contains("[unsigned]"), "{refused}");
    // Nobody replaced it.
    let refused = scenario.refused("c", "auto");
    assert!(refused.contains("container \"c\": docker.io/library/auto:latest refused [no-policy]"), "{refused}");
}

/// As Istio's gateways are installed: the placeholder stands in a Deployment, which no webhook of theirs changes.
#[test]
fn a_configured_placeholder_passes_in_a_deployment_and_is_judged_in_the_pod() {
    let scenario = Scenario::with(ScenarioOptions {
        name: "auto-template",
        webhook: "placeholders: [auto]",
        ..ScenarioOptions::default()
    });
    let other = Other::start(scenario.folder());
    other.register(&scenario, "Never");
    let web = scenario.push_signed("acme/web", "1");
    scenario.push("acme/unsigned", "1", "unsigned");
    let deploy = |name: &str, patch: Option<&str>| {
        let patch = patch.map_or_else(
            || json!([]),
            |image| json!([{"op": "replace", "path": "/spec/containers/0/image", "value": image}]),
        );
        let labels = json!({"app": name});
        scenario.try_create(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": scenario.namespace},
            "spec": {"selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels, "annotations": {PATCH: patch.to_string()}},
                "spec": {"containers": [{"name": name, "image": "auto"}]},
            }},
        }))
    };
    let refused_pods = |name: &str| {
        let message = "jsonpath={.status.conditions[?(@.type==\"ReplicaFailure\")].message}";
        let message = scenario.kubectl(&["get", "deployment", name, "-o", message]);
        Some(message).filter(|message| !message.is_empty())
    };
    let image = "jsonpath={.items[*].spec.containers[0].image}";

    succeeded(deploy("signed", Some(&scenario.image("acme/web:1"))));
    let stored = wait_until("its pod", || {
        Some(scenario.kubectl(&["get", "pods", "-l", "app=signed", "-o", image])).filter(|images| !images.is_empty())
    });
    assert_eq!(stored, web);
    succeeded(deploy("unsigned", Some(&scenario.image("acme/unsigned:1"))));
    let refused = wait_until("a refusal of its pod", || refused_pods("unsigned"));
    assert!(refused.contains("acme/unsigned:1 refused [unsigned]"), "{refused}");
    // Nobody replaces it.
    succeeded(deploy("forgotten", None));
    let refused = wait_until("a refusal of its pod", || refused_pods("forgotten"));
    assert!(refused.contains("docker.io/library/auto:latest refused [no-policy]"), "{refused}");
}

/// One that insists on having the last word takes the pin away again.
#[test]
fn a_pin_that_is_taken_away_again_is_missed() {
    let scenario = Scenario::start("unpin");
    let other = Other::start(scenario.folder());
    other.register(&scenario, "IfNeeded");
    scenario.push_signed("acme/web", "1");
    let tag = scenario.image("acme/web:1");
    let unpin = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": tag}]);
    let (status, after, answer) = scenario.post(&patched(&scenario, "a", &tag, &unpin));
    // It could be a passing trouble of the mutation. Here it is none, and whoever tried often enough reads what it is.
    assert_eq!((status, after.as_deref()), (503, Some("1")), "{answer}");
    let refused = answer["message"].as_str().unwrap();
    assert!(refused.contains("[not-pinned]") && refused.contains("something takes away what it wrote"), "{refused}");
}
