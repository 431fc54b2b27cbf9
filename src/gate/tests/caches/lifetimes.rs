//! The lifetimes of digests, signatures and failures.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_tag_is_asked_for_again_when_its_time_is_over_and_a_digest_never() {
    let (scenario, key) = cached();
    let first = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, first, WEB);
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    assert_eq!(scenario.registry.asked(), asked(1, 1));
    scenario.registry.image(WEB, "two");
    pass(29).await;
    assert_eq!(pinned(&scenario.decide(WEB).await), format!("{WEB}@{first}"));
    assert_eq!(scenario.registry.asked(), asked(1, 1));
    pass(1).await;
    assert_eq!(said(&scenario.decide(WEB).await), "unsigned");
    assert_eq!(scenario.registry.asked(), asked(2, 2));
    assert_eq!(said(&scenario.decide_run(&format!("{WEB}@{first}")).await), "verified");
    assert_eq!(
        scenario.registry.asked(),
        asked(2, 2),
        "manifest and signatures are known, only the reference is another"
    );
}

#[tokio::test]
async fn with_no_time_for_tags_each_review_asks() {
    let (scenario, key) = cached_with(|choices| choices.times = Some(CacheTimes { tag: Duration::ZERO, ..TIMES }));
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    scenario.registry.image(WEB, "two");
    assert_eq!(said(&scenario.decide(WEB).await), "unsigned");
    assert_eq!(scenario.registry.asked().manifests, 2);
    assert_eq!(said(&scenario.decide_run(&format!("{WEB}@{digest}")).await), "verified");
    assert_eq!(scenario.registry.asked().manifests, 2, "what the tag named is known by its digest");
}

#[tokio::test(start_paused = true)]
async fn signatures_are_asked_for_again_when_their_time_is_over() {
    let (scenario, key) = cached();
    let digest = scenario.registry.image(WEB, "one");
    let text = format!("{WEB}@{digest}");
    scenario.registry.sign(&key, digest, WEB);
    assert_eq!(said(&scenario.decide(&text).await), "verified");
    scenario.registry.unsign(digest);
    pass(599).await;
    assert_eq!(said(&scenario.decide(&text).await), "verified");
    pass(1).await;
    assert_eq!(said(&scenario.decide(&text).await), "unsigned", "neither the list nor the verdict outlives it");
    assert_eq!(scenario.registry.asked(), asked(1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_with_the_time_of_its_list() {
    let registry = FakeRegistry::new();
    let key = Key::new("acme");
    let digest = registry.image(WEB, "one");
    registry.sign(&key, digest, WEB);
    let signatures = CachedSignatures::new(registry.clone(), TIMES, Arc::new(Metrics::new()));
    let repository = Reference::for_image(WEB).unwrap().repository().clone();
    let deadline = || Instant::now() + Duration::from_secs(8);
    let find = async || complete(&mut signatures.find(&repository, digest, deadline())).await.unwrap().lease;
    let first = find().await;
    let until = Instant::now() + TIMES.signatures;
    let soon = Instant::now() + Duration::from_secs(10);
    for lease in [first, find().await] {
        assert_eq!(lease.keep_until(false), Some(soon));
        assert_eq!(lease.keep_until(true), Some(until));
    }
    pass(10).await;
    assert_eq!(first.keep_until(false), None, "more may be there by now");
    assert_eq!(first.keep_until(true), Some(until));
    pass(591).await;
    let second = find().await;
    for sufficed in [true, false] {
        assert_eq!(first.keep_until(sufficed), None, "its time is over");
    }
    assert_eq!(second.keep_until(true), Some(Instant::now() + TIMES.signatures));
}

#[tokio::test(start_paused = true)]
async fn newer_signatures_are_asked_for_once_in_ten_seconds() {
    let (registry, key) = (FakeRegistry::new(), Key::new("acme"));
    let digest = registry.image(WEB, "one");
    registry.sign(&key, digest, WEB);
    let signatures = CachedSignatures::new(registry.clone(), TIMES, Arc::new(Metrics::new()));
    let repository = Reference::for_image(WEB).unwrap().repository().clone();
    let deadline = || Instant::now() + Duration::from_secs(8);
    let found = async |snapshots: &mut SignatureSnapshots<'_>| complete(snapshots).await.map(|snapshot| snapshot.found);
    let mut first_reader = signatures.find(&repository, digest, deadline());
    let first = found(&mut first_reader).await.unwrap();
    pass(9).await;
    let mut reader = signatures.find(&repository, digest, deadline());
    assert!(Arc::ptr_eq(&found(&mut reader).await.unwrap(), &first));
    assert!(found(&mut reader).await.is_none(), "it is of just now");
    let mut early = signatures.find(&repository, digest, deadline());
    assert!(Arc::ptr_eq(&found(&mut early).await.unwrap(), &first));
    pass(1).await;
    registry.sign(&key, digest, WEB);
    let mut reader = signatures.find(&repository, digest, deadline());
    assert!(Arc::ptr_eq(&found(&mut reader).await.unwrap(), &first));
    assert_eq!(registry.asked(), asked(0, 1), "a reader that is satisfied asks for nothing");
    let second = found(&mut reader).await.expect("there is more");
    assert_eq!((second.signatures.len(), registry.asked()), (2, asked(0, 2)));
    assert!(found(&mut reader).await.is_none());
    for mut other in [first_reader, early] {
        assert!(Arc::ptr_eq(&found(&mut other).await.unwrap(), &second), "what one reader asked for is for all");
    }
    for _ in 0..100 {
        let mut reader = signatures.find(&repository, digest, deadline());
        assert!(Arc::ptr_eq(&found(&mut reader).await.unwrap(), &second));
        assert!(found(&mut reader).await.is_none());
    }
    assert_eq!(registry.asked(), asked(0, 2));
    // A source that fails says nothing, and takes nothing away.
    pass(10).await;
    registry.source_fails(Some(unavailable()));
    let mut reader = signatures.find(&repository, digest, deadline());
    assert!(Arc::ptr_eq(&found(&mut reader).await.unwrap(), &second));
    assert!(found(&mut reader).await.expect("it was asked").failure().is_some());
    assert!(found(&mut reader).await.is_none());
    assert!(Arc::ptr_eq(&found(&mut signatures.find(&repository, digest, deadline())).await.unwrap(), &second));
}

#[tokio::test(start_paused = true)]
async fn what_did_not_suffice_is_asked_for_again_after_ten_seconds() {
    let (scenario, key) = cached();
    let digest = scenario.registry.image(WEB, "one");
    for signed_by_another in [false, true] {
        if signed_by_another {
            scenario.registry.sign(&Key::new("other"), digest, WEB);
            pass(10).await;
        }
        let refused = if signed_by_another { "untrusted-key" } else { "unsigned" };
        let before = scenario.registry.asked().signatures;
        assert_eq!(said(&scenario.decide(WEB).await), refused);
        pass(9).await;
        assert_eq!(said(&scenario.decide(WEB).await), refused);
        assert_eq!(scenario.registry.asked().signatures, before + 1);
    }
    scenario.registry.sign(&key, digest, WEB);
    assert_eq!(said(&scenario.decide(WEB).await), "untrusted-key");
    pass(1).await;
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
}

#[tokio::test(start_paused = true)]
async fn a_list_is_asked_for_again_at_once_by_a_rule_that_it_does_not_suffice_for() {
    let (a, b) = (Key::new("a"), Key::new("b"));
    let policy =
        with_namespace(layer(vec![(ACME, None, signed_by(&a))]), "billing", layer(vec![(ACME, None, signed_by(&b))]));
    let scenario = Scenario::cached(policy);
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&a, digest, WEB);
    let billing = Some("billing");
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    pass(20).await;
    assert_eq!(said(&scenario.decide_in(billing, WEB).await), "untrusted-key");
    assert_eq!(scenario.registry.asked(), asked(1, 2), "the list was of some time ago");
    scenario.registry.sign(&b, digest, WEB);
    pass(9).await;
    assert_eq!(said(&scenario.decide_in(billing, WEB).await), "untrusted-key");
    pass(1).await;
    assert_eq!(said(&scenario.decide_in(billing, WEB).await), "verified");
    assert_eq!(scenario.registry.asked().signatures, 3);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_signatures_do_not_suffice_for_shortens_nothing_for_another() {
    let (scenario, key) = cached();
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    let (by_digest, other_tag) = (format!("{WEB}@{digest}"), "registry.example.com/acme/web:2");
    assert_eq!(scenario.registry.image(other_tag, "one"), digest);
    assert_eq!(said(&scenario.decide_run(&by_digest).await), "verified");
    pass(5).await;
    // Anybody who may create a pod can ask this.
    assert_eq!(said(&scenario.decide(other_tag).await), "wrong-identity");
    let before = scenario.registry.asked();
    assert_eq!(before.signatures, 1);
    for _ in 0..5 {
        pass(100).await;
        // Another question than the first: what it rests on is the list of signatures.
        let key_of_its_own = format!("registry.example.com/acme/web:{}@{digest}", scenario.registry.asked().manifests);
        assert_eq!(said(&scenario.decide_run(&key_of_its_own).await), "verified");
        assert_eq!(said(&scenario.decide_run(&by_digest).await), "verified");
    }
    assert_eq!(scenario.registry.asked(), before);
}

#[tokio::test]
async fn failures_are_never_kept() {
    let (scenario, key) = cached();
    scenario.registry.registry_fails(Some(unavailable()));
    assert_eq!(said(&scenario.decide(WEB).await), "registry-unavailable");
    scenario.registry.registry_fails(None);
    assert_eq!(said(&scenario.decide(WEB).await), "manifest-unknown");
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.source_fails(Some(unavailable()));
    assert_eq!(said(&scenario.decide(WEB).await), "registry-unavailable");
    scenario.registry.sign(&key, digest, WEB);
    scenario.registry.source_fails(None);
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
}

#[tokio::test(start_paused = true)]
async fn what_was_proven_beside_a_failed_source_is_kept_for_ten_seconds() {
    let (scenario, key) = cached();
    let digest = scenario.registry.image(WEB, "one");
    let text = format!("{WEB}@{digest}");
    scenario.registry.sign(&key, digest, WEB);
    scenario.registry.source_fails(Some(unavailable()));
    assert_eq!(said(&scenario.decide(&text).await), "verified");
    pass(9).await;
    assert_eq!(said(&scenario.decide(&text).await), "verified");
    assert_eq!(scenario.registry.asked(), asked(1, 1));
    pass(1).await;
    assert_eq!(said(&scenario.decide(&text).await), "verified");
    assert_eq!(scenario.registry.asked(), asked(1, 2));
}

#[tokio::test(start_paused = true)]
async fn that_there_are_no_signatures_is_forgotten_after_ten_seconds() {
    let (scenario, key) = cached();
    let digest = scenario.registry.image(WEB, "one");
    let repository = Reference::for_image(WEB).unwrap().repository().clone();
    let count = async || {
        let deadline = Instant::now() + Duration::from_secs(8);
        complete(&mut scenario.signatures.find(&repository, digest, deadline)).await.unwrap().found.signatures.len()
    };
    assert_eq!(count().await, 0);
    scenario.registry.sign(&key, digest, WEB);
    pass(9).await;
    assert_eq!(count().await, 0);
    pass(1).await;
    assert_eq!(count().await, 1, "the first list that is read is a new one");
}

#[tokio::test(start_paused = true)]
async fn with_no_time_for_signatures_each_caller_asks() {
    let times = CacheTimes { signatures: Duration::ZERO, ..TIMES };
    let (scenario, _) = cached_with(|choices| choices.times = Some(times));
    let scenario = Arc::new(scenario);
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.close();
    let began = Instant::now();
    let callers = [(); 2].map(|()| {
        let scenario = scenario.clone();
        let repository = Reference::for_image(WEB).unwrap().repository().clone();
        let deadline = Instant::now() + Duration::from_secs(8);
        tokio::spawn(async move {
            let mut snapshots = scenario.signatures.find(&repository, digest, deadline);
            let snapshot = complete(&mut snapshots).await.unwrap();
            (snapshot.lease.keep_until(true), complete(&mut snapshots).await.is_some())
        })
    });
    scenario.registry.until_asked(0, 2).await;
    assert_eq!(Instant::now(), began, "neither waits for the other's request");
    scenario.registry.open();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), (None, false));
    }
}
