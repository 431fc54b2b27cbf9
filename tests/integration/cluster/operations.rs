//! What operators do: change policies, look at metrics, choose what is guarded.

use serde_json::{Value, json};

use super::{Scenario, apiserver::failed, scenario::ScenarioOptions};
use crate::support::{run, wait_until};

fn generation(scenario: &Scenario) -> u64 {
    scenario.metric("sealgate_policy_reloads_total", &["result=\"success\""])
}

#[test]
fn a_policy_edit_takes_effect_without_a_restart_and_a_removed_key_refuses_at_once() {
    let scenario = Scenario::start("edit");
    scenario.push_signed_by(&scenario.stranger, "acme/web", "1", None);
    let image = scenario.image("acme/web:1");
    assert!(scenario.refused("web", &image).contains("[untrusted-key]"));

    let before = generation(&scenario);
    scenario.write_policy(&scenario.policy("release, stranger"));
    wait_until("the policy with another key", || (generation(&scenario) > before).then_some(()));
    let pinned = scenario.run("web", &image);
    assert!(pinned.contains("@sha256:"), "{pinned}");

    let before = generation(&scenario);
    scenario.write_policy(&scenario.policy("release"));
    wait_until("the policy without that key", || (generation(&scenario) > before).then_some(()));
    assert!(scenario.refused("again", &image).contains("[untrusted-key]"));
    assert!(
        scenario.refused("pinned", pinned.trim()).contains("[untrusted-key]"),
        "what was verified once is no excuse"
    );
}

#[test]
fn a_broken_policy_edit_changes_nothing_and_the_metric_says_so() {
    let scenario = Scenario::start("broken");
    let pinned = scenario.push_signed("acme/web", "1");
    let successful = || scenario.metric("sealgate_policy_last_reload_successful", &[]);
    assert_eq!(successful(), 1);
    scenario.write_policy("apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nspec: {rules: [{image: []}]}\n");
    wait_until("the metric", || (successful() == 0).then_some(()));
    assert_eq!(scenario.metric("sealgate_policy_reloads_total", &["result=\"failure\""]), 1);
    assert_eq!(scenario.run("web", &scenario.image("acme/web:1")).trim(), pinned);
    assert!(scenario.refused("other", "registry.example.com/other:1").contains("[no-policy]"));
    assert!(scenario.gate.printed().contains("cluster.yaml"), "the log names the file:\n{}", scenario.gate.printed());
    scenario.write_policy(&scenario.policy("release"));
    wait_until("the metric", || (successful() == 1).then_some(()));
}

#[test]
fn promtool_accepts_the_metrics_of_a_gate_at_work() {
    let scenario = Scenario::start("metrics");
    scenario.push_signed("acme/web", "1");
    scenario.run("web", &scenario.image("acme/web:1"));
    scenario.refused("other", "registry.example.com/other:1");
    let file = scenario.folder().join("metrics.txt");
    std::fs::write(&file, scenario.metrics()).unwrap();
    let check = format!("promtool check metrics <{}", file.display());
    let output = run("sh", ["-c", &check]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "promtool has nothing to say");
}

/// Every metric that the shipped alerts look at is one that the gate has.
#[test]
fn the_alerts_look_at_metrics_that_exist() {
    let scenario = Scenario::start("alerts");
    scenario.push_signed("acme/web", "1");
    scenario.run("web", &scenario.image("acme/web:1"));
    scenario.refused("other", "registry.example.com/other:1");
    let metrics = scenario.metrics();
    let rules = include_str!("../../../monitoring/rules.yaml");
    let names = rules.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    for name in names.filter(|name| name.starts_with("sealgate_")) {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name} is missing in:\n{metrics}");
    }
    assert!(metrics.contains("code=\"no-policy\"") && metrics.contains("verdict=\"refused\""), "{metrics}");
}

#[test]
fn a_denial_that_may_pass_by_itself_says_when_to_try_again() {
    let mut scenario =
        Scenario::with(ScenarioOptions { name: "later", caches: "{tag: 0s}", ..ScenarioOptions::default() });
    scenario.push_signed("acme/web", "1");
    scenario.stop_registries();
    let (status, after, body) = scenario.post_pod("web", &scenario.image("acme/web:1"));
    assert_eq!(status, 503, "{body}");
    let seconds = body["details"]["retryAfterSeconds"].as_u64().unwrap_or_default();
    assert!(seconds > 0, "{body}");
    assert_eq!(after, Some(seconds.to_string()), "client-go looks at the header");
    assert!(body["message"].as_str().unwrap().contains("[registry-unavailable]"), "{body}");
    let (status, after, body) = scenario.post_pod("other", "registry.example.com/other:1");
    assert_eq!((status, after), (403, None), "{body}");
}

/// The shipped configurations reach neither kube-system nor the gate's own namespace: a cluster whose gate is down must be
/// able to start what the gate needs.
#[test]
fn kube_system_and_the_gates_own_namespace_are_left_out() {
    let scenario = Scenario::with(ScenarioOptions {
        name: "left-out",
        namespaces: &["kube-system", "sealgate"],
        ..ScenarioOptions::default()
    });
    scenario.cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: sealgate}}");
    let image = "registry.example.com/nobody/trusts:this";
    assert!(scenario.refused("web", image).contains("[no-policy]"));
    let stored = |namespace: &str| {
        let image = ["--image", image, "--dry-run=server", "-o", "jsonpath={.spec.containers[0].image}"];
        let mut pod = vec!["-n", namespace, "run", "web"];
        pod.extend(image);
        if namespace == "sealgate" {
            // Its pods have to be restricted.
            pod.push(
                "--overrides={\"spec\":{\"containers\":[{\"name\":\"web\",\
                 \"image\":\"registry.example.com/nobody/trusts:this\",\"securityContext\":{\
                 \"runAsNonRoot\":true,\"allowPrivilegeEscalation\":false,\"capabilities\":{\"drop\":[\"ALL\"]},\
                 \"seccompProfile\":{\"type\":\"RuntimeDefault\"}}}]}}",
            );
        }
        scenario.cluster.kubectl(pod)
    };
    assert_eq!(stored("kube-system"), image);
    assert_eq!(stored("sealgate"), image);
}

/// Someone may point more at the gate than it can read. It can't know what is in there, so it does not say yes.
#[test]
fn a_kind_that_the_gate_can_not_read_is_refused() {
    let scenario = Scenario::start("unknown");
    scenario.cluster.apply(
        &json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "robots.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"kind": "Robot", "plural": "robots", "singular": "robot"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
            },
        })
        .to_string(),
    );
    scenario.cluster.kubectl(["wait", "--for=condition=Established", "crd/robots.example.com", "--timeout=60s"]);
    let robot = |name: &str| {
        json!({"apiVersion": "example.com/v1", "kind": "Robot",
               "metadata": {"name": name, "namespace": scenario.namespace}, "spec": {"image": "x"}})
    };
    let created = wait_until("custom resources that are served", || {
        Some(scenario.try_create(&robot("free"))).filter(|output| output.status.success())
    });
    drop(created);
    let kind = "validatingwebhookconfiguration";
    let text = scenario.cluster.kubectl(["get", kind, &scenario.configuration_name(), "-o", "json"]);
    let mut configuration: Value = serde_json::from_str(&text).unwrap();
    for webhook in configuration["webhooks"].as_array_mut().unwrap() {
        webhook["rules"].as_array_mut().unwrap().push(json!({
            "operations": ["CREATE"], "apiGroups": ["example.com"], "apiVersions": ["*"], "resources": ["robots"]}));
        webhook["matchConditions"] = json!([]);
    }
    configuration["metadata"].as_object_mut().unwrap().retain(|name, _| name == "name");
    scenario.cluster.apply(&configuration.to_string());
    let refused = wait_until("the wider configuration", || {
        let arguments = ["create", "--dry-run=server", "-f", "-"];
        let output = scenario.cluster.try_kubectl_with(arguments, &robot("guarded").to_string());
        (!output.status.success()).then(|| failed(&output))
    });
    assert!(refused.contains("[unknown-resource]"), "{refused}");
}
