//! Deployments: many pods at once, and what has to go on while registries, or the gate itself, are down.

use super::{Scenario, scenario::ScenarioOptions};
use crate::support::wait_until;

fn pods(scenario: &Scenario) -> Vec<String> {
    let images = "jsonpath={range .items[*]}{.spec.containers[0].image}{\"\\n\"}{end}";
    scenario.kubectl(&["get", "pods", "-l", "app=web", "-o", images]).lines().map(str::to_owned).collect()
}

fn wait_for_pods(scenario: &Scenario, count: usize) -> Vec<String> {
    wait_until(&format!("{count} pods"), || Some(pods(scenario)).filter(|pods| pods.len() == count))
}

#[test]
fn fifty_replicas_are_fifty_pinned_pods_and_two_registry_requests() {
    let scenario = Scenario::with(ScenarioOptions {
        name: "fifty",
        caches: "{tag: 10m, signatures: 10m}",
        ..ScenarioOptions::default()
    });
    let pinned = scenario.push_signed("acme/web", "1");
    let manifests = scenario.registry.requests("GET", "/v2/acme/web/manifests/");
    scenario.kubectl(&["create", "deployment", "web", "--image", &scenario.image("acme/web:1"), "--replicas=50"]);
    for image in wait_for_pods(&scenario, 50) {
        assert_eq!(image, pinned);
    }
    let asked = |kind: &str| scenario.metric("sealgate_registry_requests_total", &[kind]);
    assert_eq!(asked("kind=\"manifest\""), 1, "{}", scenario.metrics());
    assert_eq!(asked("kind=\"signatures\""), 1, "{}", scenario.metrics());
    assert_eq!(
        scenario.registry.requests("GET", "/v2/acme/web/manifests/"),
        manifests + 1,
        "{}",
        scenario.registry.log()
    );
}

#[test]
fn scaling_down_and_deleting_work_while_the_registry_is_stopped() {
    let mut scenario =
        Scenario::with(ScenarioOptions { name: "stopped", caches: "{tag: 0s}", ..ScenarioOptions::default() });
    scenario.push_signed("acme/web", "1");
    scenario.kubectl(&["create", "deployment", "web", "--image", &scenario.image("acme/web:1"), "--replicas=4"]);
    wait_for_pods(&scenario, 4);
    scenario.stop_registries();
    // It is really down, for whatever is new.
    let (status, _, body) = scenario.post_pod("new", &scenario.image("acme/web:1"));
    assert_eq!(status, 503, "{body}");
    assert!(body["message"].as_str().unwrap().contains("[registry-unavailable]"), "{body}");
    scenario.kubectl(&["scale", "deployment", "web", "--replicas=2"]);
    wait_for_pods(&scenario, 2);
    let pod = scenario.kubectl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]);
    scenario.kubectl(&["label", "pod", &pod, "looked-at=yes"]);
    scenario.kubectl(&["delete", "deployment", "web"]);
    wait_for_pods(&scenario, 0);
}

/// Whoever has to bring the gate back must not need it.
#[test]
fn scaling_down_and_deleting_work_while_the_gate_is_stopped_and_nothing_new_gets_in() {
    let mut scenario = Scenario::start("gateless");
    scenario.push_signed("acme/web", "1");
    scenario.kubectl(&["create", "deployment", "web", "--image", &scenario.image("acme/web:1"), "--replicas=4"]);
    wait_for_pods(&scenario, 4);
    scenario.gate.signal("KILL");
    scenario.gate.wait();
    let message = scenario.refused("new", &scenario.image("acme/web:1"));
    assert!(message.contains("failed calling webhook \"pods.sealgate.dev\""), "{message}");
    let metrics = scenario.cluster.kubectl(["get", "--raw", "/metrics"]);
    let counted = metrics.lines().any(|line| {
        line.starts_with("apiserver_admission_webhook_rejection_count{error_type=\"calling_webhook_error\"")
            && line.contains("name=\"pods.sealgate.dev\"")
    });
    assert!(counted, "the alert SealgateCanNotBeCalled looks at it:\n{metrics}");
    scenario.kubectl(&["scale", "deployment", "web", "--replicas=2"]);
    wait_for_pods(&scenario, 2);
    scenario.kubectl(&["delete", "deployment", "web"]);
    wait_for_pods(&scenario, 0);
}

#[test]
fn an_update_that_changes_no_image_is_not_even_sent_and_one_that_does_is() {
    let scenario = Scenario::start("updates");
    scenario.push_signed("acme/web", "1");
    let second = scenario.push_signed("acme/web", "2");
    scenario.push("acme/unsigned", "1", "unsigned");
    scenario.kubectl(&["create", "deployment", "web", "--image", &scenario.image("acme/web:1"), "--replicas=2"]);
    wait_for_pods(&scenario, 2);
    scenario.run("alone", &scenario.image("acme/web:1"));

    let reviews = scenario.reviews();
    scenario.kubectl(&["scale", "deployment", "web", "--replicas=1"]);
    wait_for_pods(&scenario, 1);
    scenario.kubectl(&["annotate", "deployment", "web", "note=seen"]);
    scenario.kubectl(&["label", "pod", "alone", "note=seen"]);
    scenario.kubectl(&["delete", "pod", "alone", "--wait=true"]);
    assert_eq!(scenario.reviews(), reviews, "{}", scenario.metrics());

    scenario.run("alone", &scenario.image("acme/web:1"));
    let reviews = scenario.reviews();
    scenario.kubectl(&["set", "image", "pod/alone", &format!("alone={}", scenario.image("acme/web:2"))]);
    let stored = scenario.kubectl(&["get", "pod", "alone", "-o", "jsonpath={.spec.containers[0].image}"]);
    assert_eq!(stored, second);
    assert_eq!(scenario.reviews(), reviews + 2, "one to mutate, one to validate");

    for target in ["pod/alone", "deployment/web"] {
        let image = format!("*={}", scenario.image("acme/unsigned:1"));
        let refused = super::apiserver::failed(&scenario.try_kubectl(&["set", "image", target, &image]));
        assert!(refused.contains("[unsigned]"), "{refused}");
    }
}

/// A volume that becomes another one is a changed image too.
#[test]
fn a_new_name_for_an_image_is_a_change_and_a_new_order_of_templates_too() {
    let scenario = Scenario::start("renamed");
    scenario.push_signed("acme/web", "1");
    scenario.kubectl(&["create", "deployment", "web", "--image", &scenario.image("acme/web:1"), "--replicas=0"]);
    let reviews = scenario.reviews();
    let patch = format!(
        "[{{\"op\":\"replace\",\"path\":\"/spec/template/spec/containers/0\",\"value\":\
         {{\"name\":\"renamed\",\"image\":\"{}\"}}}}]",
        scenario.image("acme/web:1")
    );
    scenario.kubectl(&["patch", "deployment", "web", "--type=json", "-p", &patch]);
    assert!(scenario.reviews() > reviews);
}
