//! Callers that share a look-up: each has a time of its own, and takes nothing from the others.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reviews_of_one_new_image_cost_two_requests() {
    for by_digest in [false, true] {
        let (scenario, key) = cached();
        let scenario = Arc::new(scenario);
        let digest = scenario.registry.image(WEB, "one");
        scenario.registry.sign(&key, digest, WEB);
        scenario.registry.close();
        let text = if by_digest { format!("{WEB}@{digest}") } else { WEB.to_owned() };
        let reviews: Vec<_> = (0..1000)
            .map(|_| {
                let (scenario, text) = (scenario.clone(), text.clone());
                tokio::spawn(async move { said(&scenario.decide(&text).await) })
            })
            .collect();
        scenario.registry.until_asked(1, usize::from(by_digest)).await;
        scenario.registry.open();
        for review in reviews {
            assert_eq!(review.await.unwrap(), "verified");
        }
        assert_eq!(scenario.registry.asked(), asked(1, 1));
    }
}

/// A caller that waits in one way, at most for this long.
type Waits = fn(Arc<Scenario>, Digest, Duration) -> tokio::task::JoinHandle<bool>;

#[tokio::test(start_paused = true)]
async fn a_look_up_has_a_time_of_its_own_whichever_caller_began_it() {
    fn for_a_manifest(scenario: Arc<Scenario>, _: Digest, time: Duration) -> tokio::task::JoinHandle<bool> {
        let image = Reference::for_image(WEB).unwrap();
        tokio::spawn(async move { scenario.gate.engine.resolve.resolve(&image, Instant::now() + time).await.is_ok() })
    }
    fn for_signatures(scenario: Arc<Scenario>, digest: Digest, time: Duration) -> tokio::task::JoinHandle<bool> {
        let repository = Reference::for_image(WEB).unwrap().repository().clone();
        tokio::spawn(async move {
            let mut snapshots = scenario.signatures.find(&repository, digest, Instant::now() + time);
            let found = complete(&mut snapshots).await.unwrap().found;
            found.failure().is_none() && found.signatures.len() == 1
        })
    }
    fn for_a_decision(scenario: Arc<Scenario>, digest: Digest, time: Duration) -> tokio::task::JoinHandle<bool> {
        tokio::spawn(async move {
            let text = format!("{WEB}@{digest}");
            scenario.decide_within(&text, time).await.verdict.is_ok()
        })
    }
    let waits: [(&str, Waits, RequestCounts, Option<CacheTimes>); 4] = [
        ("manifest", for_a_manifest, asked(1, 0), Some(TIMES)),
        ("signatures", for_signatures, asked(0, 1), Some(TIMES)),
        ("decision", for_a_decision, asked(1, 1), Some(TIMES)),
        // Here nothing but the examination itself is shared.
        ("decision without caches", for_a_decision, asked(1, 1), None),
    ];
    for (what, waits, expected, times) in waits {
        let (scenario, key) = cached_with(|choices| choices.times = times);
        let scenario = Arc::new(scenario);
        let digest = scenario.registry.image(WEB, "one");
        scenario.registry.sign(&key, digest, WEB);
        scenario.registry.close();
        let short = Duration::from_secs(1);
        let hasty: Vec<_> = (0..10).map(|_| waits(scenario.clone(), digest, short)).collect();
        scenario.registry.until_asked(expected.manifests, expected.signatures).await;
        let patient: Vec<_> = (0..10).map(|_| waits(scenario.clone(), digest, Duration::from_secs(8))).collect();
        for hasty in hasty {
            assert!(!hasty.await.unwrap(), "{what}: nothing is there yet");
        }
        pass(4).await;
        scenario.registry.open();
        for patient in patient {
            assert!(patient.await.unwrap(), "{what}: it waits as long as it said");
        }
        assert_eq!(scenario.registry.asked(), expected, "{what}: nothing is asked twice");
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_up_whose_caller_left_goes_on_for_the_next() {
    let (scenario, key) = cached();
    let scenario = Arc::new(scenario);
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    scenario.registry.close();
    let text = format!("{WEB}@{digest}");
    let hasty = scenario.decide_within(&text, Duration::from_secs(1)).await;
    assert_eq!(said(&hasty), "deadline-exceeded");
    assert_eq!(scenario.registry.asked(), asked(1, 1));
    scenario.registry.open();
    assert_eq!(said(&scenario.decide_within(&text, Duration::from_secs(1)).await), "verified");
    assert_eq!(scenario.registry.asked(), asked(1, 1), "the look-ups went on");
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_more_time_asks_again_where_another_ran_out_of_it() {
    struct FailsThenHangs(Arc<FakeRegistry>);
    impl FindSignatures for FailsThenHangs {
        fn find<'a>(&'a self, _: &'a Repository, digest: Digest, deadline: Instant) -> SignatureSnapshots<'a> {
            once(async move {
                let mut found = self.0.find_signatures(digest, deadline).await;
                let url = "https://fails.example.com".into();
                found.asked.insert(0, AskedSource { url, outcome: Err(unavailable()) });
                SignatureSnapshot::complete(found)
            })
        }
    }
    let registry = FakeRegistry::new();
    let digest = registry.image(WEB, "one");
    registry.sign(&Key::new("acme"), digest, WEB);
    registry.close();
    let inner = Arc::new(FailsThenHangs(registry.clone()));
    let signatures = Arc::new(CachedSignatures::new(inner, TIMES, Arc::new(Metrics::new())));
    let find = |time: Duration| {
        let signatures = signatures.clone();
        let repository = Reference::for_image(WEB).unwrap().repository().clone();
        let deadline = Instant::now() + time;
        tokio::spawn(async move { complete(&mut signatures.find(&repository, digest, deadline)).await.unwrap().found })
    };
    let hasty = find(Duration::from_secs(1));
    registry.until_asked(0, 1).await;
    let patient = find(Duration::from_secs(8));
    assert!(hasty.await.unwrap().signatures.is_empty());
    registry.until_asked(0, 2).await;
    registry.open();
    assert_eq!(patient.await.unwrap().signatures.len(), 1);
}

#[tokio::test]
async fn a_caller_that_leaves_takes_nothing_from_the_others() {
    let (scenario, key) = cached();
    let scenario = Arc::new(scenario);
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    scenario.registry.close();
    let review = || {
        let scenario = scenario.clone();
        tokio::spawn(async move { said(&scenario.decide(WEB).await) })
    };
    let first = review();
    scenario.registry.until_asked(1, 0).await;
    let second = review();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    scenario.registry.open();
    assert_eq!(second.await.unwrap(), "verified");
    assert_eq!(scenario.registry.asked(), asked(1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_time_is_over_takes_nothing_from_the_others() {
    let (scenario, key) = cached();
    let scenario = Arc::new(scenario);
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    scenario.registry.close();
    let hasty = tokio::spawn({
        let scenario = scenario.clone();
        async move {
            let text = format!("{WEB}@{digest}");
            let images = [ImageUse { text: &text, runs_as_written: true }];
            let deadline = Instant::now() + Duration::from_millis(100);
            let decisions = scenario
                .gate
                .decide(&Admission { namespace: None, images: &images, now: at(NOW), deadline, is_final: true })
                .await
                .unwrap();
            said(&decisions[0])
        }
    });
    scenario.registry.until_asked(1, 1).await;
    let patient = tokio::spawn({
        let scenario = scenario.clone();
        async move { said(&scenario.decide_run(&format!("{WEB}@{digest}")).await) }
    });
    assert_eq!(hasty.await.unwrap(), "deadline-exceeded");
    scenario.registry.open();
    assert_eq!(patient.await.unwrap(), "verified");
    assert_eq!(
        scenario.registry.asked(),
        asked(1, 1),
        "the requests that the hasty one began are those of the patient one"
    );
}

#[tokio::test]
async fn a_task_that_panics_refuses_and_blocks_nothing() {
    struct Panics(std::sync::atomic::AtomicBool, Arc<FakeRegistry>);
    #[async_trait]
    impl ResolveDigest for Panics {
        async fn resolve(&self, image: &Reference, deadline: Instant) -> Result<Arc<HashedManifest>, LookupError> {
            assert!(self.0.swap(true, std::sync::atomic::Ordering::Relaxed), "the first one panics");
            self.1.resolve(image, deadline).await
        }
    }
    let registry = FakeRegistry::new();
    let digest = registry.image(WEB, "one");
    let resolve = CachedResolve::new(Arc::new(Panics(false.into(), registry)), TIMES, Arc::new(Metrics::new()));
    let image = Reference::for_image(WEB).unwrap();
    let deadline = Instant::now() + TEST_TIMEOUT;
    assert!(matches!(resolve.resolve(&image, deadline).await, Err(LookupError::Unavailable { .. })));
    assert_eq!(resolve.resolve(&image, deadline).await.unwrap().digest(), digest);
}

#[tokio::test]
async fn an_answer_for_one_reference_is_none_for_another() {
    let (scenario, key) = cached();
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    let other_tag = "registry.example.com/acme/web:2";
    let other_repository = "registry.example.com/acme/other:1";
    assert_eq!(scenario.registry.image(other_tag, "one"), digest);
    assert_eq!(scenario.registry.image(other_repository, "one"), digest);
    assert_eq!(said(&scenario.decide(other_tag).await), "wrong-identity");
    assert_eq!(said(&scenario.decide(other_repository).await), "wrong-identity");
    assert_eq!(said(&scenario.decide(&format!("{other_repository}@{digest}")).await), "wrong-identity");
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_to_its_own_deadline_for_what_is_not_proven_yet() {
    let (scenario, key) = cached();
    let scenario = Arc::new(scenario);
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    scenario.registry.close();
    let decide = |seconds| {
        let scenario = scenario.clone();
        let text = format!("{WEB}@{digest}");
        tokio::spawn(async move { said(&scenario.decide_within(&text, Duration::from_secs(seconds)).await) })
    };
    let patient = decide(8);
    scenario.registry.until_asked(1, 1).await;
    let hasty = decide(2);
    // Later than the hasty one waits for look-ups, and before its deadline.
    tokio::time::sleep(Duration::from_millis(1_900)).await;
    assert!(!hasty.is_finished(), "what is known by now proves nothing, and is no reason to refuse");
    scenario.registry.open();
    assert_eq!(hasty.await.unwrap(), "verified");
    assert_eq!(patient.await.unwrap(), "verified");
    assert_eq!(scenario.registry.asked(), asked(1, 1));
}

#[tokio::test(start_paused = true)]
async fn only_a_callers_time_that_was_too_short_is_a_reason_to_ask_again() {
    let (scenario, _) = cached();
    let scenario = Arc::new(scenario);
    let digest = scenario.registry.image(WEB, "one");
    let find = |time: Duration| {
        let scenario = scenario.clone();
        let repository = Reference::for_image(WEB).unwrap().repository().clone();
        let deadline = Instant::now() + time;
        tokio::spawn(async move {
            complete(&mut scenario.signatures.find(&repository, digest, deadline)).await.unwrap().found
        })
    };
    // A caller that had all of the time itself.
    scenario.registry.close();
    let patient = find(Duration::from_mins(1));
    assert!(patient.await.unwrap().failure().is_some_and(LookupError::is_out_of_time));
    assert_eq!(scenario.registry.asked(), asked(0, 1));
    // A source that failed for another reason.
    scenario.registry.source_fails(Some(unavailable()));
    let first = find(Duration::from_secs(8));
    scenario.registry.until_asked(0, 2).await;
    let second = find(Duration::from_secs(8));
    tokio::task::yield_now().await;
    scenario.registry.open();
    for found in [first.await.unwrap(), second.await.unwrap()] {
        assert!(found.failure().is_some_and(|error| !error.is_out_of_time()));
    }
    assert_eq!(scenario.registry.asked(), asked(0, 2));
}
