//! Deployments: many pods at once, and what has to go on while registries, or the gate itself, are down.

use super::{World, world::Setup};
use crate::support::wait_until;

fn pods(world: &World) -> Vec<String> {
    let images = "jsonpath={range .items[*]}{.spec.containers[0].image}{\"\\n\"}{end}";
    world.kubectl(&["get", "pods", "-l", "app=web", "-o", images]).lines().map(str::to_owned).collect()
}

fn wait_for_pods(world: &World, count: usize) -> Vec<String> {
    wait_until(&format!("{count} pods"), || Some(pods(world)).filter(|pods| pods.len() == count))
}

#[test]
fn fifty_replicas_are_fifty_pinned_pods_and_two_registry_requests() {
    let world = World::with(Setup { name: "fifty", caches: "{tag: 10m, signatures: 10m}", ..Setup::default() });
    let pinned = world.push_signed("acme/web", "1");
    let manifests = world.registry.requests("GET", "/v2/acme/web/manifests/");
    world.kubectl(&["create", "deployment", "web", "--image", &world.image("acme/web:1"), "--replicas=50"]);
    for image in wait_for_pods(&world, 50) {
        assert_eq!(image, pinned);
    }
    let asked = |kind: &str| world.metric("sealgate_registry_requests_total", &[kind]);
    assert_eq!(asked("kind=\"manifest\""), 1, "{}", world.metrics());
    assert_eq!(asked("kind=\"signatures\""), 1, "{}", world.metrics());
    assert_eq!(world.registry.requests("GET", "/v2/acme/web/manifests/"), manifests + 1, "{}", world.registry.log());
}

#[test]
fn scaling_down_and_deleting_work_while_the_registry_is_stopped() {
    let mut world = World::with(Setup { name: "stopped", caches: "{tag: 0s}", ..Setup::default() });
    world.push_signed("acme/web", "1");
    world.kubectl(&["create", "deployment", "web", "--image", &world.image("acme/web:1"), "--replicas=4"]);
    wait_for_pods(&world, 4);
    world.stop_registries();
    // It is really down, for whatever is new.
    let (status, _, body) = world.post_pod("new", &world.image("acme/web:1"));
    assert_eq!(status, 503, "{body}");
    assert!(body["message"].as_str().unwrap().contains("[registry-unavailable]"), "{body}");
    world.kubectl(&["scale", "deployment", "web", "--replicas=2"]);
    wait_for_pods(&world, 2);
    let pod = world.kubectl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]);
    world.kubectl(&["label", "pod", &pod, "looked-at=yes"]);
    world.kubectl(&["delete", "deployment", "web"]);
    wait_for_pods(&world, 0);
}

/// Whoever has to bring the gate back must not need it.
#[test]
fn scaling_down_and_deleting_work_while_the_gate_is_stopped_and_nothing_new_gets_in() {
    let mut world = World::start("gateless");
    world.push_signed("acme/web", "1");
    world.kubectl(&["create", "deployment", "web", "--image", &world.image("acme/web:1"), "--replicas=4"]);
    wait_for_pods(&world, 4);
    world.gate.signal("KILL");
    world.gate.wait();
    let message = world.refused("new", &world.image("acme/web:1"));
    assert!(message.contains("failed calling webhook \"pods.sealgate.dev\""), "{message}");
    let metrics = world.cluster.kubectl(["get", "--raw", "/metrics"]);
    let counted = metrics.lines().any(|line| {
        line.starts_with("apiserver_admission_webhook_rejection_count{error_type=\"calling_webhook_error\"")
            && line.contains("name=\"pods.sealgate.dev\"")
    });
    assert!(counted, "the alert SealgateCanNotBeCalled looks at it:\n{metrics}");
    world.kubectl(&["scale", "deployment", "web", "--replicas=2"]);
    wait_for_pods(&world, 2);
    world.kubectl(&["delete", "deployment", "web"]);
    wait_for_pods(&world, 0);
}

#[test]
fn an_update_that_changes_no_image_is_not_even_sent_and_one_that_does_is() {
    let world = World::start("updates");
    world.push_signed("acme/web", "1");
    let second = world.push_signed("acme/web", "2");
    world.push("acme/unsigned", "1", "unsigned");
    world.kubectl(&["create", "deployment", "web", "--image", &world.image("acme/web:1"), "--replicas=2"]);
    wait_for_pods(&world, 2);
    world.run("alone", &world.image("acme/web:1"));

    let reviews = world.reviews();
    world.kubectl(&["scale", "deployment", "web", "--replicas=1"]);
    wait_for_pods(&world, 1);
    world.kubectl(&["annotate", "deployment", "web", "note=seen"]);
    world.kubectl(&["label", "pod", "alone", "note=seen"]);
    world.kubectl(&["delete", "pod", "alone", "--wait=true"]);
    assert_eq!(world.reviews(), reviews, "{}", world.metrics());

    world.run("alone", &world.image("acme/web:1"));
    let reviews = world.reviews();
    world.kubectl(&["set", "image", "pod/alone", &format!("alone={}", world.image("acme/web:2"))]);
    let stored = world.kubectl(&["get", "pod", "alone", "-o", "jsonpath={.spec.containers[0].image}"]);
    assert_eq!(stored, second);
    assert_eq!(world.reviews(), reviews + 2, "one to mutate, one to validate");

    for target in ["pod/alone", "deployment/web"] {
        let image = format!("*={}", world.image("acme/unsigned:1"));
        let refused = super::apiserver::failed(&world.try_kubectl(&["set", "image", target, &image]));
        assert!(refused.contains("[unsigned]"), "{refused}");
    }
}

/// A volume that becomes another one is a changed image too.
#[test]
fn a_new_name_for_an_image_is_a_change_and_a_new_order_of_templates_too() {
    let world = World::start("renamed");
    world.push_signed("acme/web", "1");
    world.kubectl(&["create", "deployment", "web", "--image", &world.image("acme/web:1"), "--replicas=0"]);
    let reviews = world.reviews();
    let patch = format!(
        "[{{\"op\":\"replace\",\"path\":\"/spec/template/spec/containers/0\",\"value\":\
         {{\"name\":\"renamed\",\"image\":\"{}\"}}}}]",
        world.image("acme/web:1")
    );
    world.kubectl(&["patch", "deployment", "web", "--type=json", "-p", &patch]);
    assert!(world.reviews() > reviews);
}
