//! Verdicts that outlive a registry that is down.

use super::*;

fn for_an_hour(choices: &mut Choices) {
    choices.settings.last_known_good = Duration::from_hours(1);
}

#[tokio::test(start_paused = true)]
async fn last_known_good_admits_what_was_verified_while_the_registry_is_down() {
    let (scenario, key) = cached_with(for_an_hour);
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    scenario.registry.registry_fails(Some(unavailable()));
    pass(1800).await;
    let decision = scenario.decide(WEB).await;
    assert_eq!((said(&decision), pinned(&decision)), ("verified".to_owned(), format!("{WEB}@{digest}")));
    // Another reference was never verified.
    assert_eq!(said(&scenario.decide("registry.example.com/acme/web:2").await), "registry-unavailable");
    pass(1800).await;
    assert_eq!(said(&scenario.decide(WEB).await), "registry-unavailable");
}

#[tokio::test(start_paused = true)]
async fn last_known_good_is_off_unless_asked_for() {
    let (scenario, key) = cached();
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    scenario.registry.registry_fails(Some(unavailable()));
    pass(60).await;
    assert_eq!(said(&scenario.decide(WEB).await), "registry-unavailable");
}

#[tokio::test(start_paused = true)]
async fn last_known_good_is_for_a_registry_that_is_down_and_no_other_answer() {
    let (scenario, key) = cached_with(for_an_hour);
    let first = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, first, WEB);
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    pass(600).await;
    let (registry, url): (Box<str>, Box<str>) = ("registry.example.com".into(), "x".into());
    scenario.registry.registry_fails(Some(LookupError::ManifestUnknown { registry, url }));
    assert_eq!(said(&scenario.decide(WEB).await), "manifest-unknown");
    scenario.registry.registry_fails(None);
    // The tag moved, and only the signatures of the new image can't be had: the old proof is of another digest.
    scenario.registry.image(WEB, "two");
    scenario.registry.source_fails(Some(unavailable()));
    assert_eq!(said(&scenario.decide(WEB).await), "registry-unavailable");
    // Moved back, it is of this one.
    scenario.registry.image(WEB, "one");
    scenario.registry.unsign(first);
    pass(30).await;
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    // Known to be unsigned, it is good no more.
    scenario.registry.source_fails(None);
    assert_eq!(said(&scenario.decide(WEB).await), "unsigned");
    scenario.registry.registry_fails(Some(unavailable()));
    pass(60).await;
    assert_eq!(said(&scenario.decide(WEB).await), "registry-unavailable");
}

#[tokio::test(start_paused = true)]
async fn last_known_good_is_good_under_this_policy_and_until_the_proof_ends() {
    let key = Key::new("acme");
    let rules = || {
        let max_age = Some(Duration::from_hours(40 * 24));
        cluster(layer(vec![(ACME, None, signed_lately(&key, Platforms::default(), max_age))]))
    };
    let scenario = Scenario::with(rules(), |choices| {
        choices.times = Some(TIMES);
        for_an_hour(choices);
    });
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    scenario.registry.registry_fails(Some(unavailable()));
    pass(30).await;
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    let over = at("2026-06-10T12:00:01Z");
    assert_eq!(said(&scenario.decide_at(None, WEB, false, over).await), "registry-unavailable");
    scenario.policy.replace(rules());
    assert_eq!(said(&scenario.decide(WEB).await), "registry-unavailable");
}

#[tokio::test(start_paused = true)]
async fn last_known_good_is_not_for_an_image_whose_last_whole_list_did_not_suffice() {
    let key = Key::new("acme");
    // By the second look's failure, and by a second look that ends with the time of the review.
    for hangs in [false, true] {
        let (scenario, _) = cached_with(for_an_hour);
        scenario.policy.replace(cluster(layer(vec![(ACME, None, signed_by(&key))])));
        let digest = scenario.registry.image(WEB, "one");
        // The same image by another reference, which has no tag to resolve.
        let other = format!("registry.example.com/acme/web@{digest}");
        let foreign = Key::new("foreign");
        scenario.registry.sign(&foreign, digest, WEB);
        scenario.registry.sign(&key, digest, WEB);
        for text in [WEB, &other] {
            assert_eq!(said(&scenario.decide(text).await), "verified");
        }
        // The needed signatures are removed, and others are left.
        scenario.registry.unsign(digest);
        scenario.registry.sign(&foreign, digest, WEB);
        pass(601).await;
        assert_eq!(said(&scenario.decide(WEB).await), "untrusted-key");
        pass(11).await;
        let decision = if hangs {
            scenario.registry.close();
            scenario.decide_within(&other, Duration::from_secs(2)).await
        } else {
            scenario.registry.source_fails(Some(unavailable()));
            scenario.decide(&other).await
        };
        let said = said(&decision);
        assert!(["registry-unavailable", "deadline-exceeded"].contains(&&*said), "{hangs}: {said}");
    }
}
