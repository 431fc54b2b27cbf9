//! What is kept, for how long, and what is never kept.

use super::*;

const ACME: &str = "registry.example.com/acme";

fn cached() -> (Scene, Key) {
    cached_with(|_| {})
}

fn cached_with(choose: impl FnOnce(&mut Choices)) -> (Scene, Key) {
    let key = Key::new("acme");
    let policy = cluster(layer(vec![(ACME, None, signed_by(&key))]));
    let scene = Scene::with(policy, |choices| {
        choices.times = Some(TIMES);
        choose(choices);
    });
    (scene, key)
}

fn asked(manifests: usize, signatures: usize) -> RequestCounts {
    RequestCounts { manifests, signatures }
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reviews_of_one_new_image_cost_two_requests() {
    for by_digest in [false, true] {
        let (scene, key) = cached();
        let scene = Arc::new(scene);
        let digest = scene.world.image(WEB, "one");
        scene.world.sign(&key, digest, WEB);
        scene.world.close();
        let text = if by_digest { format!("{WEB}@{digest}") } else { WEB.to_owned() };
        let reviews: Vec<_> = (0..1000)
            .map(|_| {
                let (scene, text) = (scene.clone(), text.clone());
                tokio::spawn(async move { said(&scene.decide(&text).await) })
            })
            .collect();
        scene.world.until_asked(1, usize::from(by_digest)).await;
        scene.world.open();
        for review in reviews {
            assert_eq!(review.await.unwrap(), "verified");
        }
        assert_eq!(scene.world.asked(), asked(1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_tag_is_asked_for_again_when_its_time_is_over_and_a_digest_never() {
    let (scene, key) = cached();
    let first = scene.world.image(WEB, "one");
    scene.world.sign(&key, first, WEB);
    assert_eq!(said(&scene.decide(WEB).await), "verified");
    assert_eq!(scene.world.asked(), asked(1, 1));
    scene.world.image(WEB, "two");
    pass(29).await;
    assert_eq!(pinned(&scene.decide(WEB).await), format!("{WEB}@{first}"));
    assert_eq!(scene.world.asked(), asked(1, 1));
    pass(1).await;
    assert_eq!(said(&scene.decide(WEB).await), "unsigned");
    assert_eq!(scene.world.asked(), asked(2, 2));
    assert_eq!(said(&scene.decide_run(&format!("{WEB}@{first}")).await), "verified");
    assert_eq!(scene.world.asked(), asked(2, 2), "manifest and signatures are known, only the reference is another");
}

#[tokio::test]
async fn with_no_time_for_tags_each_review_asks() {
    let (scene, key) = cached_with(|choices| choices.times = Some(CacheTimes { tag: Duration::ZERO, ..TIMES }));
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&key, digest, WEB);
    assert_eq!(said(&scene.decide(WEB).await), "verified");
    scene.world.image(WEB, "two");
    assert_eq!(said(&scene.decide(WEB).await), "unsigned");
    assert_eq!(scene.world.asked().manifests, 2);
    assert_eq!(said(&scene.decide_run(&format!("{WEB}@{digest}")).await), "verified");
    assert_eq!(scene.world.asked().manifests, 2, "what the tag named is known by its digest");
}

#[tokio::test(start_paused = true)]
async fn signatures_are_asked_for_again_when_their_time_is_over() {
    let (scene, key) = cached();
    let digest = scene.world.image(WEB, "one");
    let text = format!("{WEB}@{digest}");
    scene.world.sign(&key, digest, WEB);
    assert_eq!(said(&scene.decide(&text).await), "verified");
    scene.world.unsign(digest);
    pass(599).await;
    assert_eq!(said(&scene.decide(&text).await), "verified");
    pass(1).await;
    assert_eq!(said(&scene.decide(&text).await), "unsigned", "neither the list nor the verdict outlives it");
    assert_eq!(scene.world.asked(), asked(1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_with_the_time_of_its_list() {
    let world = World::new();
    let key = Key::new("acme");
    let digest = world.image(WEB, "one");
    world.sign(&key, digest, WEB);
    let signatures = CachedSignatures::new(world.clone(), TIMES, Arc::new(Metrics::new()));
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
async fn what_came_since_a_list_was_asked_for_is_asked_for_once_in_ten_seconds_by_whoever_needs_it() {
    let (world, key) = (World::new(), Key::new("acme"));
    let digest = world.image(WEB, "one");
    world.sign(&key, digest, WEB);
    let signatures = CachedSignatures::new(world.clone(), TIMES, Arc::new(Metrics::new()));
    let repository = Reference::for_image(WEB).unwrap().repository().clone();
    let deadline = || Instant::now() + Duration::from_secs(8);
    let found = async |snapshots: &mut SignatureSnapshots<'_>| complete(snapshots).await.map(|snapshot| snapshot.found);
    let first = found(&mut signatures.find(&repository, digest, deadline())).await.unwrap();
    pass(9).await;
    let mut reader = signatures.find(&repository, digest, deadline());
    assert!(Arc::ptr_eq(&found(&mut reader).await.unwrap(), &first));
    assert!(found(&mut reader).await.is_none(), "it is of just now");
    let mut early = signatures.find(&repository, digest, deadline());
    assert!(Arc::ptr_eq(&found(&mut early).await.unwrap(), &first));
    pass(1).await;
    world.sign(&key, digest, WEB);
    let mut reader = signatures.find(&repository, digest, deadline());
    assert!(Arc::ptr_eq(&found(&mut reader).await.unwrap(), &first));
    assert_eq!(world.asked(), asked(0, 1), "a reader that is satisfied asks for nothing");
    let second = found(&mut reader).await.expect("there is more");
    assert_eq!((second.signatures.len(), world.asked()), (2, asked(0, 2)));
    assert!(found(&mut reader).await.is_none());
    assert!(Arc::ptr_eq(&found(&mut early).await.unwrap(), &second), "what another reader asked for is for all");
    for _ in 0..100 {
        let mut reader = signatures.find(&repository, digest, deadline());
        assert!(Arc::ptr_eq(&found(&mut reader).await.unwrap(), &second));
        assert!(found(&mut reader).await.is_none());
    }
    assert_eq!(world.asked(), asked(0, 2));
    // A source that fails says nothing, and takes nothing away.
    pass(10).await;
    world.source_fails(Some(unavailable()));
    let mut reader = signatures.find(&repository, digest, deadline());
    assert!(Arc::ptr_eq(&found(&mut reader).await.unwrap(), &second));
    assert!(found(&mut reader).await.expect("it was asked").failure().is_some());
    assert!(found(&mut reader).await.is_none());
    assert!(Arc::ptr_eq(&found(&mut signatures.find(&repository, digest, deadline())).await.unwrap(), &second));
}

/// Who waits for something, how, and for how long.
type Waits = fn(Arc<Scene>, Digest, Duration) -> tokio::task::JoinHandle<bool>;

#[tokio::test(start_paused = true)]
async fn a_look_up_has_a_time_of_its_own_whoever_is_the_first_to_ask() {
    fn for_a_manifest(scene: Arc<Scene>, _: Digest, time: Duration) -> tokio::task::JoinHandle<bool> {
        let image = Reference::for_image(WEB).unwrap();
        tokio::spawn(async move { scene.gate.engine.resolve.resolve(&image, Instant::now() + time).await.is_ok() })
    }
    fn for_signatures(scene: Arc<Scene>, digest: Digest, time: Duration) -> tokio::task::JoinHandle<bool> {
        let repository = Reference::for_image(WEB).unwrap().repository().clone();
        tokio::spawn(async move {
            let mut snapshots = scene.signatures.find(&repository, digest, Instant::now() + time);
            let found = complete(&mut snapshots).await.unwrap().found;
            found.failure().is_none() && found.signatures.len() == 1
        })
    }
    fn for_a_decision(scene: Arc<Scene>, digest: Digest, time: Duration) -> tokio::task::JoinHandle<bool> {
        tokio::spawn(async move {
            let text = format!("{WEB}@{digest}");
            scene.decide_within(&text, time).await.verdict.is_ok()
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
        let (scene, key) = cached_with(|choices| choices.times = times);
        let scene = Arc::new(scene);
        let digest = scene.world.image(WEB, "one");
        scene.world.sign(&key, digest, WEB);
        scene.world.close();
        let short = Duration::from_secs(1);
        let hasty: Vec<_> = (0..10).map(|_| waits(scene.clone(), digest, short)).collect();
        scene.world.until_asked(expected.manifests, expected.signatures).await;
        let patient: Vec<_> = (0..10).map(|_| waits(scene.clone(), digest, Duration::from_secs(8))).collect();
        for hasty in hasty {
            assert!(!hasty.await.unwrap(), "{what}: nothing is there yet");
        }
        pass(4).await;
        scene.world.open();
        for patient in patient {
            assert!(patient.await.unwrap(), "{what}: it waits as long as it said");
        }
        assert_eq!(scene.world.asked(), expected, "{what}: nothing is asked twice");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_began_that_left_is_there_for_the_next() {
    let (scene, key) = cached();
    let scene = Arc::new(scene);
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&key, digest, WEB);
    scene.world.close();
    let text = format!("{WEB}@{digest}");
    let hasty = scene.decide_within(&text, Duration::from_secs(1)).await;
    assert_eq!(said(&hasty), "deadline-exceeded");
    assert_eq!(scene.world.asked(), asked(1, 1));
    scene.world.open();
    assert_eq!(said(&scene.decide_within(&text, Duration::from_secs(1)).await), "verified");
    assert_eq!(scene.world.asked(), asked(1, 1), "the look-ups went on");
}

#[tokio::test(start_paused = true)]
async fn another_s_short_time_is_not_this_one_s_whichever_source_it_was_too_short_for() {
    struct FailsThenHangs(Arc<World>);
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
    let world = World::new();
    let digest = world.image(WEB, "one");
    world.sign(&Key::new("acme"), digest, WEB);
    world.close();
    let inner = Arc::new(FailsThenHangs(world.clone()));
    let signatures = Arc::new(CachedSignatures::new(inner, TIMES, Arc::new(Metrics::new())));
    let find = |time: Duration| {
        let signatures = signatures.clone();
        let repository = Reference::for_image(WEB).unwrap().repository().clone();
        let deadline = Instant::now() + time;
        tokio::spawn(async move { complete(&mut signatures.find(&repository, digest, deadline)).await.unwrap().found })
    };
    let hasty = find(Duration::from_secs(1));
    world.until_asked(0, 1).await;
    let patient = find(Duration::from_secs(8));
    assert!(hasty.await.unwrap().signatures.is_empty());
    world.until_asked(0, 2).await;
    world.open();
    assert_eq!(patient.await.unwrap().signatures.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_did_not_suffice_is_asked_for_again_after_ten_seconds() {
    let (scene, key) = cached();
    let digest = scene.world.image(WEB, "one");
    for signed_by_another in [false, true] {
        if signed_by_another {
            scene.world.sign(&Key::new("other"), digest, WEB);
            pass(10).await;
        }
        let refused = if signed_by_another { "untrusted-key" } else { "unsigned" };
        let before = scene.world.asked().signatures;
        assert_eq!(said(&scene.decide(WEB).await), refused);
        pass(9).await;
        assert_eq!(said(&scene.decide(WEB).await), refused);
        assert_eq!(scene.world.asked().signatures, before + 1);
    }
    scene.world.sign(&key, digest, WEB);
    assert_eq!(said(&scene.decide(WEB).await), "untrusted-key");
    pass(1).await;
    assert_eq!(said(&scene.decide(WEB).await), "verified");
}

#[tokio::test(start_paused = true)]
async fn signatures_that_suffice_for_one_rule_and_not_for_another_are_asked_for_again_at_once_and_then_soon() {
    let (a, b) = (Key::new("a"), Key::new("b"));
    let policy =
        with_namespace(layer(vec![(ACME, None, signed_by(&a))]), "billing", layer(vec![(ACME, None, signed_by(&b))]));
    let scene = Scene::cached(policy);
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&a, digest, WEB);
    let billing = Some("billing");
    assert_eq!(said(&scene.decide(WEB).await), "verified");
    pass(20).await;
    assert_eq!(said(&scene.decide_in(billing, WEB).await), "untrusted-key");
    assert_eq!(scene.world.asked(), asked(1, 2), "the list was of some time ago");
    scene.world.sign(&b, digest, WEB);
    pass(9).await;
    assert_eq!(said(&scene.decide_in(billing, WEB).await), "untrusted-key");
    pass(1).await;
    assert_eq!(said(&scene.decide_in(billing, WEB).await), "verified");
    assert_eq!(scene.world.asked().signatures, 3);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_signatures_do_not_suffice_for_shortens_nothing_for_another() {
    let (scene, key) = cached();
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&key, digest, WEB);
    let (by_digest, other_tag) = (format!("{WEB}@{digest}"), "registry.example.com/acme/web:2");
    assert_eq!(scene.world.image(other_tag, "one"), digest);
    assert_eq!(said(&scene.decide_run(&by_digest).await), "verified");
    pass(5).await;
    // Anybody who may create a pod can ask this.
    assert_eq!(said(&scene.decide(other_tag).await), "wrong-identity");
    let before = scene.world.asked();
    assert_eq!(before.signatures, 1);
    for _ in 0..5 {
        pass(100).await;
        // Another question than the first: what it rests on is the list of signatures.
        let key_of_its_own = format!("registry.example.com/acme/web:{}@{digest}", scene.world.asked().manifests);
        assert_eq!(said(&scene.decide_run(&key_of_its_own).await), "verified");
        assert_eq!(said(&scene.decide_run(&by_digest).await), "verified");
    }
    assert_eq!(scene.world.asked(), before);
}

#[tokio::test]
async fn failures_are_never_kept() {
    let (scene, key) = cached();
    scene.world.registry_fails(Some(unavailable()));
    assert_eq!(said(&scene.decide(WEB).await), "registry-unavailable");
    scene.world.registry_fails(None);
    assert_eq!(said(&scene.decide(WEB).await), "manifest-unknown");
    let digest = scene.world.image(WEB, "one");
    scene.world.source_fails(Some(unavailable()));
    assert_eq!(said(&scene.decide(WEB).await), "registry-unavailable");
    scene.world.sign(&key, digest, WEB);
    scene.world.source_fails(None);
    assert_eq!(said(&scene.decide(WEB).await), "verified");
}

#[tokio::test(start_paused = true)]
async fn what_was_proven_beside_a_failed_source_is_kept_for_ten_seconds() {
    let (scene, key) = cached();
    let digest = scene.world.image(WEB, "one");
    let text = format!("{WEB}@{digest}");
    scene.world.sign(&key, digest, WEB);
    scene.world.source_fails(Some(unavailable()));
    assert_eq!(said(&scene.decide(&text).await), "verified");
    pass(9).await;
    assert_eq!(said(&scene.decide(&text).await), "verified");
    assert_eq!(scene.world.asked(), asked(1, 1));
    pass(1).await;
    assert_eq!(said(&scene.decide(&text).await), "verified");
    assert_eq!(scene.world.asked(), asked(1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_does_not_take_the_proof_from_another() {
    struct OneHangs(Arc<World>);
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
    let (scene, key) = cached();
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&key, digest, WEB);
    for seconds in [8, 4, 1] {
        for caching in [true, false] {
            let mut signatures: Arc<dyn FindSignatures> = Arc::new(OneHangs(scene.world.clone()));
            if caching {
                let times = CacheTimes { lookup: Duration::from_secs(2), ..TIMES };
                let times = if seconds == 1 { times } else { TIMES };
                signatures = Arc::new(CachedSignatures::new(signatures, times, scene.metrics.clone()));
            }
            let settings = scene.gate.engine.settings.clone();
            let world = scene.world.clone();
            let gate = Gate::new(settings, scene.policy.clone(), world, signatures, scene.metrics.clone());
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

/// Two sources: the world, and one that is late and has another signature of each image, if any.
struct OneIsLate {
    world: Arc<World>,
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
            let found = match step? {
                Some(found) => found,
                None => {
                    let found = self.world.find_signatures(digest, deadline).await;
                    if !found.signatures.is_empty() {
                        let partial = SignatureSnapshot::partial(with(&found, Err(timed_out())));
                        return Some((partial, Some(Some(found))));
                    }
                    found
                }
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
fn asking(scene: &Scene, sources: Arc<OneIsLate>, caching: bool) -> Arc<Gate> {
    let mut signatures: Arc<dyn FindSignatures> = sources;
    if caching {
        signatures = Arc::new(CachedSignatures::new(signatures, TIMES, scene.metrics.clone()));
    }
    let (settings, world) = (scene.gate.engine.settings.clone(), scene.world.clone());
    Arc::new(Gate::new(settings, scene.policy.clone(), world, signatures, scene.metrics.clone()))
}

#[tokio::test(start_paused = true)]
async fn a_late_source_is_not_waited_for_where_what_another_has_is_proof() {
    for caching in [true, false] {
        let (scene, key) = cached();
        let digest = scene.world.image(WEB, "one");
        scene.world.sign(&key, digest, WEB);
        let sources =
            OneIsLate { world: scene.world.clone(), late: Mutex::default(), answers: watch::Sender::new(false) };
        let gate = asking(&scene, Arc::new(sources), caching);
        let scene = Arc::new(Scene { gate, ..scene });
        let began = Instant::now();
        let reviews = [(); 3].map(|()| {
            let scene = scene.clone();
            tokio::spawn(async move { said(&scene.decide(WEB).await) })
        });
        for review in reviews {
            assert_eq!(review.await.unwrap(), "verified");
        }
        let other = format!("{WEB}@{digest}");
        assert_eq!(said(&scene.decide(&other).await), "verified", "another question about the same signatures");
        assert!(Instant::now() < began + TIMES.lookup, "cached: {caching}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_source_is_waited_for_where_what_another_has_does_not_suffice() {
    for caching in [true, false] {
        let (scene, key) = cached();
        let digest = scene.world.image(WEB, "one");
        scene.world.sign(&Key::new("other"), digest, WEB);
        let late = untrusted(key.sign(&payload(WEB, &digest.to_string()), at(SIGNED_AT)));
        let answers = watch::Sender::new(false);
        let sources =
            Arc::new(OneIsLate { world: scene.world.clone(), late: Mutex::new(Some(late)), answers: answers.clone() });
        let gate = asking(&scene, sources, caching);
        let scene = Arc::new(Scene { gate, ..scene });
        assert_eq!(said(&scene.decide(WEB).await), "deadline-exceeded", "not that the other key is untrusted");
        let review = tokio::spawn({
            let scene = scene.clone();
            async move { said(&scene.decide(WEB).await) }
        });
        scene.world.until_asked(1, 2).await;
        answers.send_replace(true);
        assert_eq!(review.await.unwrap(), "verified", "cached: {caching}");
    }
}

#[tokio::test]
async fn a_verdict_ends_with_its_signature_whatever_is_kept() {
    let key = Key::new("acme");
    let max_age = Some(Duration::from_hours(40 * 24));
    let action = signed_lately(&key, Platforms::default(), max_age);
    let scene = Scene::cached(cluster(layer(vec![(ACME, None, action)])));
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&key, digest, WEB);
    let last = at("2026-06-10T11:59:59Z");
    let over = at("2026-06-10T12:00:00Z");
    assert_eq!(said(&scene.decide_at(None, WEB, false, last).await), "verified");
    assert_eq!(said(&scene.decide_at(None, WEB, false, last).await), "verified");
    assert_eq!(said(&scene.decide_at(None, WEB, false, over).await), "too-old");
    assert_eq!(scene.world.asked(), asked(1, 1));
}

#[tokio::test]
async fn a_key_that_is_removed_from_the_policy_refuses_its_images_at_once() {
    let (scene, key) = cached();
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&key, digest, WEB);
    assert_eq!(said(&scene.decide(WEB).await), "verified");
    assert_eq!(scene.policy.replace(cluster(layer(vec![(ACME, None, signed_by(&Key::new("next")))]))), 2);
    assert_eq!(said(&scene.decide(WEB).await), "untrusted-key");
    assert_eq!(scene.world.asked(), asked(1, 1), "what the registry said is still known");
    assert_eq!(scene.policy.replace(cluster(layer(vec![(ACME, None, signed_by(&key))]))), 3);
    assert_eq!(said(&scene.decide(WEB).await), "verified");
}

#[tokio::test]
async fn a_policy_that_comes_into_force_during_a_review_holds_for_it() {
    let (scene, key) = cached();
    let scene = Arc::new(scene);
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&key, digest, WEB);
    scene.world.close();
    let review = tokio::spawn({
        let scene = scene.clone();
        async move { said(&scene.decide(WEB).await) }
    });
    scene.world.until_asked(1, 0).await;
    scene.policy.replace(cluster(layer(vec![(ACME, None, deny())])));
    scene.world.open();
    assert_eq!(review.await.unwrap(), "denied-by-policy");
}

#[tokio::test]
async fn one_who_goes_away_takes_nothing_from_the_others() {
    let (scene, key) = cached();
    let scene = Arc::new(scene);
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&key, digest, WEB);
    scene.world.close();
    let review = || {
        let scene = scene.clone();
        tokio::spawn(async move { said(&scene.decide(WEB).await) })
    };
    let first = review();
    scene.world.until_asked(1, 0).await;
    let second = review();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    scene.world.open();
    assert_eq!(second.await.unwrap(), "verified");
    assert_eq!(scene.world.asked(), asked(1, 1));
}

#[tokio::test(start_paused = true)]
async fn one_whose_time_is_over_takes_nothing_from_the_others() {
    let (scene, key) = cached();
    let scene = Arc::new(scene);
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&key, digest, WEB);
    scene.world.close();
    let hasty = tokio::spawn({
        let scene = scene.clone();
        async move {
            let text = format!("{WEB}@{digest}");
            let images = [ImageUse { text: &text, runs_as_written: true }];
            let deadline = Instant::now() + Duration::from_millis(100);
            let decisions = scene
                .gate
                .decide(&Admission { namespace: None, images: &images, now: at(NOW), deadline, is_final: true })
                .await
                .unwrap();
            said(&decisions[0])
        }
    });
    scene.world.until_asked(1, 1).await;
    let patient = tokio::spawn({
        let scene = scene.clone();
        async move { said(&scene.decide_run(&format!("{WEB}@{digest}")).await) }
    });
    assert_eq!(hasty.await.unwrap(), "deadline-exceeded");
    scene.world.open();
    assert_eq!(patient.await.unwrap(), "verified");
    assert_eq!(scene.world.asked(), asked(1, 1), "the requests that the hasty one began are those of the patient one");
}

#[tokio::test]
async fn a_task_that_panics_refuses_and_blocks_nothing() {
    struct Panics(std::sync::atomic::AtomicBool, Arc<World>);
    #[async_trait]
    impl ResolveDigest for Panics {
        async fn resolve(&self, image: &Reference, deadline: Instant) -> Result<Arc<HashedManifest>, LookupError> {
            assert!(self.0.swap(true, std::sync::atomic::Ordering::Relaxed), "the first one panics");
            self.1.resolve(image, deadline).await
        }
    }
    let world = World::new();
    let digest = world.image(WEB, "one");
    let resolve = CachedResolve::new(Arc::new(Panics(false.into(), world)), TIMES, Arc::new(Metrics::new()));
    let image = Reference::for_image(WEB).unwrap();
    let deadline = Instant::now() + TEST_TIMEOUT;
    assert!(matches!(resolve.resolve(&image, deadline).await, Err(LookupError::Unavailable { .. })));
    assert_eq!(resolve.resolve(&image, deadline).await.unwrap().digest(), digest);
}

#[tokio::test]
async fn an_answer_for_one_reference_is_none_for_another() {
    let (scene, key) = cached();
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&key, digest, WEB);
    assert_eq!(said(&scene.decide(WEB).await), "verified");
    let other_tag = "registry.example.com/acme/web:2";
    let other_repository = "registry.example.com/acme/other:1";
    assert_eq!(scene.world.image(other_tag, "one"), digest);
    assert_eq!(scene.world.image(other_repository, "one"), digest);
    assert_eq!(said(&scene.decide(other_tag).await), "wrong-identity");
    assert_eq!(said(&scene.decide(other_repository).await), "wrong-identity");
    assert_eq!(said(&scene.decide(&format!("{other_repository}@{digest}")).await), "wrong-identity");
    assert_eq!(said(&scene.decide(WEB).await), "verified");
}

#[tokio::test]
async fn exemptions_and_modes_are_decided_anew_whatever_is_kept() {
    let key = Key::new("acme");
    let scene = Scene::cached(cluster(exempting(layer(vec![(ACME, None, signed_by(&key))]), ACME, &["billing"])));
    scene.world.image(WEB, "one");
    for _ in 0..2 {
        assert_eq!(said(&scene.decide_in(Some("billing"), WEB).await), "exempted(unsigned)");
        assert_eq!(said(&scene.decide_in(Some("web"), WEB).await), "unsigned");
    }
    assert_eq!(scene.world.asked(), asked(1, 1));
}

fn for_an_hour(choices: &mut Choices) {
    choices.settings.last_known_good = Duration::from_hours(1);
}

#[tokio::test(start_paused = true)]
async fn last_known_good_admits_what_was_verified_while_the_registry_is_down() {
    let (scene, key) = cached_with(for_an_hour);
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&key, digest, WEB);
    assert_eq!(said(&scene.decide(WEB).await), "verified");
    scene.world.registry_fails(Some(unavailable()));
    pass(1800).await;
    let decision = scene.decide(WEB).await;
    assert_eq!((said(&decision), pinned(&decision)), ("verified".to_owned(), format!("{WEB}@{digest}")));
    // Another reference was never verified.
    assert_eq!(said(&scene.decide("registry.example.com/acme/web:2").await), "registry-unavailable");
    pass(1800).await;
    assert_eq!(said(&scene.decide(WEB).await), "registry-unavailable");
}

#[tokio::test(start_paused = true)]
async fn last_known_good_is_off_unless_asked_for() {
    let (scene, key) = cached();
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&key, digest, WEB);
    assert_eq!(said(&scene.decide(WEB).await), "verified");
    scene.world.registry_fails(Some(unavailable()));
    pass(60).await;
    assert_eq!(said(&scene.decide(WEB).await), "registry-unavailable");
}

#[tokio::test(start_paused = true)]
async fn last_known_good_is_for_a_registry_that_is_down_and_no_other_answer() {
    let (scene, key) = cached_with(for_an_hour);
    let first = scene.world.image(WEB, "one");
    scene.world.sign(&key, first, WEB);
    assert_eq!(said(&scene.decide(WEB).await), "verified");
    pass(600).await;
    let (registry, url): (Box<str>, Box<str>) = ("registry.example.com".into(), "x".into());
    scene.world.registry_fails(Some(LookupError::ManifestUnknown { registry, url }));
    assert_eq!(said(&scene.decide(WEB).await), "manifest-unknown");
    scene.world.registry_fails(None);
    // The tag moved, and only the signatures of the new image can't be had: the old proof is of another digest.
    scene.world.image(WEB, "two");
    scene.world.source_fails(Some(unavailable()));
    assert_eq!(said(&scene.decide(WEB).await), "registry-unavailable");
    // Moved back, it is of this one.
    scene.world.image(WEB, "one");
    scene.world.unsign(first);
    pass(30).await;
    assert_eq!(said(&scene.decide(WEB).await), "verified");
    // Known to be unsigned, it is good no more.
    scene.world.source_fails(None);
    assert_eq!(said(&scene.decide(WEB).await), "unsigned");
    scene.world.registry_fails(Some(unavailable()));
    pass(60).await;
    assert_eq!(said(&scene.decide(WEB).await), "registry-unavailable");
}

#[tokio::test(start_paused = true)]
async fn last_known_good_is_good_under_this_policy_and_until_the_proof_ends() {
    let key = Key::new("acme");
    let rules = || {
        let max_age = Some(Duration::from_hours(40 * 24));
        cluster(layer(vec![(ACME, None, signed_lately(&key, Platforms::default(), max_age))]))
    };
    let scene = Scene::with(rules(), |choices| {
        choices.times = Some(TIMES);
        for_an_hour(choices);
    });
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&key, digest, WEB);
    assert_eq!(said(&scene.decide(WEB).await), "verified");
    scene.world.registry_fails(Some(unavailable()));
    pass(30).await;
    assert_eq!(said(&scene.decide(WEB).await), "verified");
    let over = at("2026-06-10T12:00:01Z");
    assert_eq!(said(&scene.decide_at(None, WEB, false, over).await), "registry-unavailable");
    scene.policy.replace(rules());
    assert_eq!(said(&scene.decide(WEB).await), "registry-unavailable");
}

#[tokio::test]
async fn metrics_tell_hits_and_entries_of_each_cache() {
    let (scene, key) = cached();
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&key, digest, WEB);
    scene.decide(WEB).await;
    scene.decide(WEB).await;
    let metrics = scene.metrics();
    for line in [
        r#"sealgate_cache_requests_total{cache="tag",result="miss"} 1"#,
        r#"sealgate_cache_requests_total{cache="tag",result="hit"} 1"#,
        r#"sealgate_cache_requests_total{cache="verdict",result="miss"} 1"#,
        r#"sealgate_cache_requests_total{cache="verdict",result="hit"} 1"#,
        r#"sealgate_cache_requests_total{cache="signatures",result="miss"} 1"#,
        r#"sealgate_cache_entries{cache="tag"} 1"#,
        r#"sealgate_cache_entries{cache="manifest"} 1"#,
        r#"sealgate_cache_entries{cache="signatures"} 1"#,
        r#"sealgate_cache_entries{cache="verdict"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is missing in:\n{metrics}");
    }
}
