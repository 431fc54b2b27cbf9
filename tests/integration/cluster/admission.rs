//! Who gets in, and what the others read.

use super::{Scenario, scenario::ScenarioOptions};

#[test]
fn a_signed_image_runs_pinned_to_the_digest_that_was_verified() {
    let scenario = Scenario::start("signed");
    let pinned = scenario.push_signed("acme/web", "1.2");
    assert_eq!(scenario.run("web", &scenario.image("acme/web:1.2")).trim(), pinned);
    let stored = scenario.kubectl(&["get", "pod", "web", "-o", "jsonpath={.spec.containers[0].image}"]);
    assert_eq!(stored, pinned);
    // What is pinned already, by its user, stays as it is.
    assert_eq!(scenario.run("again", &pinned).trim(), pinned);
}

#[test]
fn what_is_not_signed_as_the_policy_asks_is_refused_with_its_code_and_what_to_do() {
    let scenario = Scenario::start("refused");
    let elsewhere = [("acme/absent:1", "manifest-unknown"), ("other/unsigned:1", "no-policy")];
    for (path, code) in scenario.push_untrusted().into_iter().chain(elsewhere) {
        let image = scenario.image(path);
        let message = scenario.refused("web", &image);
        let begins = format!(
            "Error from server (Forbidden): admission webhook \"pods.sealgate.dev\" denied the request: \
             container \"web\": {image} refused [{code}]: "
        );
        assert!(message.starts_with(&begins), "{message}");
        assert!(message.contains(&format!("See docs/refusals.md#{code}")), "{message}");
    }
    // The one who reads it can go on from there: which rule, which key, which command.
    let message = scenario.refused("web", &scenario.image("acme/unsigned:1"));
    assert!(message.contains("cluster/acme"), "{message}");
    assert!(message.contains("release"), "{message}");
    assert!(message.contains(" --sign-by "), "{message}");
    let message = scenario.refused("web", &scenario.image("acme/stranger:1"));
    assert!(message.contains("signed by 0x"), "{message}");
    let nothing = scenario.kubectl(&["get", "pods", "-o", "name"]);
    assert_eq!(nothing, "", "nothing that was refused is stored");
}

#[test]
fn a_tag_that_was_moved_to_an_unsigned_image_is_refused_from_then_on() {
    let scenario = Scenario::with(ScenarioOptions { name: "moved", caches: "{tag: 0s}", ..ScenarioOptions::default() });
    let pinned = scenario.push_signed("acme/web", "1");
    assert_eq!(scenario.run("before", &scenario.image("acme/web:1")).trim(), pinned);
    scenario.push("acme/web", "1", "somebody else's");
    let message = scenario.refused("after", &scenario.image("acme/web:1"));
    assert!(message.contains("[unsigned]"), "{message}");
    // The image that was verified has not become worse.
    assert_eq!(scenario.run("pinned", &pinned).trim(), pinned);
}

#[test]
fn all_images_of_a_pod_are_refused_in_one_message() {
    let scenario = Scenario::start("several");
    let signed = scenario.push_signed("acme/web", "1");
    scenario.push("acme/unsigned", "1", "unsigned");
    let mut pod = scenario.pod("web", &scenario.image("acme/unsigned:1"));
    pod["spec"]["containers"].as_array_mut().unwrap().extend([
        serde_json::json!({"name": "good", "image": signed}),
        serde_json::json!({"name": "other", "image": "registry.example.com/other:1"}),
    ]);
    let message = super::apiserver::failed(&scenario.try_create(&pod));
    assert!(message.contains("container \"web\": "), "{message}");
    assert!(message.contains("container \"other\": registry.example.com/other:1 refused [no-policy]"), "{message}");
    assert!(!message.contains("container \"good\""), "{message}");
}
