//! A signature source that is late or hangs beside one that answers.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_does_not_take_the_proof_from_another() {
    struct OneHangs(Arc<FakeRegistry>);
    impl FindSignatures for OneHangs {
        fn find<'a>(&'a self, _: &'a Repository, digest: Digest, deadline: Instant) -> SignatureSnapshots<'a> {
            stream::unfold(Some(None), move |step: Option<Option<FoundSignatures>>| async move {
                if let Some(found) = step? {
                    tokio::time::sleep_until(deadline).await;
                    return Some((SignatureSnapshot::complete(found), None));
                }
                let mut found = self.0.find_signatures(digest, deadline).await;
                let url = "https://hangs.example.com".into();
                found.asked.push(AskedSource { url, outcome: Err(timed_out()) });
                Some((SignatureSnapshot::partial(found.clone()), Some(Some(found))))
            })
            .boxed()
        }
    }
    let (scenario, key) = cached();
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    for seconds in [8, 4, 1] {
        for caching in [true, false] {
            let mut signatures: Arc<dyn FindSignatures> = Arc::new(OneHangs(scenario.registry.clone()));
            if caching {
                let times = CacheTimes { lookup: Duration::from_secs(2), ..TIMES };
                let times = if seconds == 1 { times } else { TIMES };
                signatures = Arc::new(CachedSignatures::new(signatures, times, scenario.metrics.clone()));
            }
            let settings = scenario.gate.engine.settings.clone();
            let registry = scenario.registry.clone();
            let gate = Gate::new(settings, scenario.policy.clone(), registry, signatures, scenario.metrics.clone());
            let images = [ImageUse { text: WEB, runs_as_written: false }];
            let deadline = Instant::now() + Duration::from_secs(seconds);
            let decisions = gate
                .decide(&Admission { namespace: None, images: &images, now: at(NOW), deadline, is_final: true })
                .await
                .unwrap();
            assert_eq!(said(&decisions[0]), "verified", "{seconds} s, cached: {caching}");
            assert!(Instant::now() <= deadline);
        }
    }
}

/// Two sources: the registry, and one that is late and has another signature of each image, if any.
struct OneIsLate {
    registry: Arc<FakeRegistry>,
    late: Mutex<Option<UntrustedSignature>>,
    answers: watch::Sender<bool>,
}

impl FindSignatures for OneIsLate {
    fn find<'a>(&'a self, _: &'a Repository, digest: Digest, deadline: Instant) -> SignatureSnapshots<'a> {
        // The signatures that are there at once, until the late source's are added.
        stream::unfold(Some(None), move |step: Option<Option<FoundSignatures>>| async move {
            let url: Arc<str> = "https://late.example.com".into();
            let with = |found: &FoundSignatures, outcome| {
                let mut found = found.clone();
                found.asked.push(AskedSource { url: Arc::clone(&url), outcome });
                found
            };
            let found = if let Some(found) = step? {
                found
            } else {
                let found = self.registry.find_signatures(digest, deadline).await;
                if !found.signatures.is_empty() {
                    let partial = SignatureSnapshot::partial(with(&found, Err(timed_out())));
                    return Some((partial, Some(Some(found))));
                }
                found
            };
            let mut answers = self.answers.subscribe();
            if timeout_at(deadline, answers.wait_for(|answers| *answers)).await.is_err() {
                return Some((SignatureSnapshot::complete(with(&found, Err(timed_out()))), None));
            }
            let mut all = with(&found, Ok(1));
            all.signatures.extend(self.late.lock().unwrap().clone());
            Some((SignatureSnapshot::complete(all), None))
        })
        .boxed()
    }
}

/// A gate that asks these sources, with and without caches.
fn asking(scenario: &Scenario, sources: Arc<OneIsLate>, caching: bool) -> Arc<Gate> {
    let mut signatures: Arc<dyn FindSignatures> = sources;
    if caching {
        signatures = Arc::new(CachedSignatures::new(signatures, TIMES, scenario.metrics.clone()));
    }
    let (settings, registry) = (scenario.gate.engine.settings.clone(), scenario.registry.clone());
    Arc::new(Gate::new(settings, scenario.policy.clone(), registry, signatures, scenario.metrics.clone()))
}

#[tokio::test(start_paused = true)]
async fn a_late_source_is_not_waited_for_where_what_another_has_is_proof() {
    for caching in [true, false] {
        let (scenario, key) = cached();
        let digest = scenario.registry.image(WEB, "one");
        scenario.registry.sign(&key, digest, WEB);
        let sources = OneIsLate {
            registry: scenario.registry.clone(),
            late: Mutex::default(),
            answers: watch::Sender::new(false),
        };
        let gate = asking(&scenario, Arc::new(sources), caching);
        let scenario = Arc::new(Scenario { gate, ..scenario });
        let began = Instant::now();
        let reviews = [(); 3].map(|()| {
            let scenario = scenario.clone();
            tokio::spawn(async move { said(&scenario.decide(WEB).await) })
        });
        for review in reviews {
            assert_eq!(review.await.unwrap(), "verified");
        }
        let other = format!("{WEB}@{digest}");
        assert_eq!(said(&scenario.decide(&other).await), "verified", "another question about the same signatures");
        if caching {
            let again = Instant::now();
            assert_eq!(said(&scenario.decide(WEB).await), "verified");
            assert_eq!(Instant::now(), again, "what was proven without the late source is kept");
        }
        assert!(Instant::now() < began + TIMES.lookup, "cached: {caching}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_source_is_waited_for_where_what_another_has_does_not_suffice() {
    for caching in [true, false] {
        let (scenario, key) = cached();
        let digest = scenario.registry.image(WEB, "one");
        scenario.registry.sign(&Key::new("other"), digest, WEB);
        let late = untrusted(key.sign(&payload(WEB, &digest.to_string()), at(SIGNED_AT)));
        let answers = watch::Sender::new(false);
        let sources = Arc::new(OneIsLate {
            registry: scenario.registry.clone(),
            late: Mutex::new(Some(late)),
            answers: answers.clone(),
        });
        let gate = asking(&scenario, sources, caching);
        let scenario = Arc::new(Scenario { gate, ..scenario });
        assert_eq!(said(&scenario.decide(WEB).await), "deadline-exceeded", "not that the other key is untrusted");
        let review = tokio::spawn({
            let scenario = scenario.clone();
            async move { said(&scenario.decide(WEB).await) }
        });
        scenario.registry.until_asked(1, 2).await;
        answers.send_replace(true);
        assert_eq!(review.await.unwrap(), "verified", "cached: {caching}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_source_does_not_hold_up_what_came_since_a_cached_list() {
    let (scenario, key) = cached();
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&Key::new("other"), digest, WEB);
    let answers = watch::Sender::new(true);
    let sources = Arc::new(OneIsLate { registry: scenario.registry.clone(), late: Mutex::default(), answers });
    let gate = asking(&scenario, sources.clone(), true);
    let scenario = Scenario { gate, ..scenario };
    assert_eq!(said(&scenario.decide(WEB).await), "untrusted-key");
    pass(10).await;
    scenario.registry.sign(&key, digest, WEB);
    sources.answers.send_replace(false);
    let began = Instant::now();
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    assert!(Instant::now() < began + TIMES.lookup);
}

#[tokio::test(start_paused = true)]
async fn sources_that_answer_one_after_the_other_do_not_put_off_a_proof() {
    /// Sources of which another one answers every 900 ms.
    struct Trickle(Arc<FakeRegistry>);
    impl FindSignatures for Trickle {
        fn find<'a>(&'a self, _: &'a Repository, digest: Digest, deadline: Instant) -> SignatureSnapshots<'a> {
            stream::unfold(0, move |answers| async move {
                if answers > 0 {
                    tokio::time::sleep(Duration::from_millis(900)).await;
                }
                let mut found = self.0.find_signatures(digest, deadline).await;
                found.asked.push(AskedSource { url: "https://late.example.com".into(), outcome: Err(timed_out()) });
                let is_complete = Instant::now() >= deadline;
                Some((SignatureSnapshot { is_complete, ..SignatureSnapshot::partial(found) }, answers + 1))
            })
            .boxed()
        }
    }
    let (scenario, key) = cached();
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    let (settings, registry) = (scenario.gate.engine.settings.clone(), scenario.registry.clone());
    let sources = Arc::new(Trickle(registry.clone()));
    let gate = Gate::new(settings, scenario.policy.clone(), registry, sources, scenario.metrics.clone());
    let scenario = Scenario { gate: Arc::new(gate), ..scenario };
    let began = Instant::now();
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    assert_eq!(began.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_partial_list_ends_with_its_look_up() {
    let (scenario, key) = cached();
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    let answers = watch::Sender::new(true);
    let sources = OneIsLate { registry: scenario.registry.clone(), late: Mutex::default(), answers };
    let signatures = CachedSignatures::new(Arc::new(sources), TIMES, Arc::new(Metrics::new()));
    let repository = Reference::for_image(WEB).unwrap().repository().clone();
    for is_signed in [true, false] {
        let mut snapshots = signatures.find(&repository, digest, Instant::now() + Duration::from_secs(8));
        while let Some(snapshot) = snapshots.next().await {
            assert_eq!(!snapshot.found.signatures.is_empty(), is_signed);
        }
        scenario.registry.unsign(digest);
        pass(600).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_partial_list_leaves_enough_of_the_budget_for_the_complete_one() {
    let (scenario, key) = cached_with(|choices| {
        choices.settings.signatures_per_image = 256;
        // More than two lists of forgeries cost, and less than three: about 37,000 each.
        choices.settings.budgets.question = 90_000;
    });
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.forge(&key, digest, WEB, 100);
    let answers = watch::Sender::new(true);
    let sources = Arc::new(OneIsLate { registry: scenario.registry.clone(), late: Mutex::default(), answers });
    let gate = asking(&scenario, sources.clone(), true);
    let scenario = Arc::new(Scenario { gate, ..scenario });
    assert_eq!(said(&scenario.decide(WEB).await), "invalid-signature");
    pass(10).await;
    sources.answers.send_replace(false);
    let content = key.sign(&payload(WEB, &digest.to_string()), at(SIGNED_AT));
    *sources.late.lock().unwrap() = Some(untrusted(content));
    let deciding = tokio::spawn({
        let scenario = scenario.clone();
        async move { said(&scenario.decide(WEB).await) }
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    sources.answers.send_replace(true);
    assert_eq!(deciding.await.unwrap(), "verified");
}

#[tokio::test(start_paused = true)]
async fn a_request_to_a_late_source_ends_with_the_proof() {
    /// Says that it was dropped.
    struct Guard(watch::Sender<bool>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.send_replace(true);
        }
    }
    /// For the index, a signature at once and then a source that hangs.
    struct Hangs {
        index: Digest,
        signature: UntrustedSignature,
        has_ended: watch::Sender<bool>,
        asked_for_entries: watch::Sender<Vec<bool>>,
    }
    impl FindSignatures for Hangs {
        fn find<'a>(&'a self, _: &'a Repository, digest: Digest, _: Instant) -> SignatureSnapshots<'a> {
            if digest != self.index {
                self.asked_for_entries.send_modify(|asked| asked.push(*self.has_ended.borrow()));
                return once(async { SignatureSnapshot::complete(FoundSignatures::default()) });
            }
            let guard = Guard(self.has_ended.clone());
            let mut found = FoundSignatures { signatures: vec![self.signature.clone()], asked: Vec::new() };
            found.asked.push(AskedSource { url: "https://hangs.example.com".into(), outcome: Err(timed_out()) });
            let hangs = once(async move {
                let _guard = guard;
                std::future::pending().await
            });
            once(async { SignatureSnapshot::partial(found) }).chain(hangs).boxed()
        }
    }
    let key = Key::new("acme");
    let scenario = Scenario::new(cluster(layer(vec![(ACME, None, signed(&key, Platforms::Each))])));
    let entries = vec![entry(scenario.registry.untagged("amd64"), "linux/amd64")];
    let index = scenario.registry.manifest(WEB, "index", Manifest::Index(entries));
    let sources = Arc::new(Hangs {
        index,
        signature: untrusted(key.sign(&payload(WEB, &index.to_string()), at(SIGNED_AT))),
        has_ended: watch::Sender::new(false),
        asked_for_entries: watch::Sender::default(),
    });
    let (settings, registry) = (scenario.gate.engine.settings.clone(), scenario.registry.clone());
    let gate = Gate::new(settings, scenario.policy.clone(), registry, sources.clone(), scenario.metrics.clone());
    let scenario = Arc::new(Scenario { gate: Arc::new(gate), ..scenario });
    scenario.registry.close();
    let deciding = tokio::spawn({
        let scenario = scenario.clone();
        async move { said(&scenario.decide(&format!("registry.example.com/acme/web@{index}")).await) }
    });
    // The index is known to be signed before it is known to be an index.
    tokio::time::sleep(Duration::from_secs(2)).await;
    scenario.registry.open();
    assert_eq!(deciding.await.unwrap(), "unsigned");
    assert_eq!(*sources.asked_for_entries.borrow(), [true]);
}
