//! Cached verdicts, and what ends them at once.

use super::*;

#[tokio::test]
async fn a_verdict_ends_with_its_signature_whatever_is_kept() {
    let key = Key::new("acme");
    let max_age = Some(Duration::from_hours(40 * 24));
    let action = signed_lately(&key, Platforms::default(), max_age);
    let scenario = Scenario::cached(cluster(layer(vec![(ACME, None, action)])));
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    let last = at("2026-06-10T11:59:59Z");
    let over = at("2026-06-10T12:00:00Z");
    assert_eq!(said(&scenario.decide_at(None, WEB, false, last).await), "verified");
    assert_eq!(said(&scenario.decide_at(None, WEB, false, last).await), "verified");
    assert_eq!(said(&scenario.decide_at(None, WEB, false, over).await), "too-old");
    assert_eq!(scenario.registry.asked(), asked(1, 1));
}

#[tokio::test]
async fn a_key_that_is_removed_from_the_policy_refuses_its_images_at_once() {
    let (scenario, key) = cached();
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    assert_eq!(scenario.policy.replace(cluster(layer(vec![(ACME, None, signed_by(&Key::new("next")))]))), 2);
    assert_eq!(said(&scenario.decide(WEB).await), "untrusted-key");
    assert_eq!(scenario.registry.asked(), asked(1, 1), "what the registry said is still known");
    assert_eq!(scenario.policy.replace(cluster(layer(vec![(ACME, None, signed_by(&key))]))), 3);
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
}

#[tokio::test]
async fn a_policy_that_comes_into_force_during_a_review_holds_for_it() {
    let (scenario, key) = cached();
    let scenario = Arc::new(scenario);
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    scenario.registry.close();
    let review = tokio::spawn({
        let scenario = scenario.clone();
        async move { said(&scenario.decide(WEB).await) }
    });
    scenario.registry.until_asked(1, 0).await;
    scenario.policy.replace(cluster(layer(vec![(ACME, None, deny())])));
    scenario.registry.open();
    assert_eq!(review.await.unwrap(), "denied-by-policy");
}

#[tokio::test]
async fn exemptions_and_modes_are_decided_anew_whatever_is_kept() {
    let key = Key::new("acme");
    let scenario = Scenario::cached(cluster(exempting(layer(vec![(ACME, None, signed_by(&key))]), ACME, &["billing"])));
    scenario.registry.image(WEB, "one");
    for _ in 0..2 {
        assert_eq!(said(&scenario.decide_in(Some("billing"), WEB).await), "exempted(unsigned)");
        assert_eq!(said(&scenario.decide_in(Some("web"), WEB).await), "unsigned");
    }
    assert_eq!(scenario.registry.asked(), asked(1, 1));
}
