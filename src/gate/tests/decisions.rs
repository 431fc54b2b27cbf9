//! One layer: rules, modes, exemptions, pins, references, time.

use super::*;

const ACME: &str = "registry.example.com/acme";

#[tokio::test]
async fn a_signed_image_is_verified_and_pinned_to_the_digest_that_was_verified() {
    let key = Key::new("acme");
    let scenario = Scenario::new(cluster(layer(vec![(ACME, None, signed_by(&key))])));
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    let decision = scenario.decide("Registry.Example.com:443/acme/web:1").await;
    assert_eq!(said(&decision), "verified", "{decision:?}");
    assert_eq!(pinned(&decision), format!("{WEB}@{digest}"));
    assert_eq!(decision.rule.unwrap().as_str(), "test/registry.example.com/acme");
    assert_eq!(decision.examinations.len(), 1);
    assert_eq!(scenario.registry.asked(), RequestCounts { manifests: 1, signatures: 1 });
}

#[tokio::test]
async fn what_is_asked_for_by_digest_is_what_is_verified() {
    let key = Key::new("acme");
    let scenario = Scenario::new(cluster(layer(vec![(ACME, None, signed_by(&key))])));
    let (signed, other) = (scenario.registry.image(WEB, "one"), scenario.registry.untagged("two"));
    scenario.registry.sign(&key, signed, WEB);
    assert_eq!(said(&scenario.decide(&format!("{WEB}@{signed}")).await), "verified");
    // The tag is only claimed.
    assert_eq!(said(&scenario.decide(&format!("{WEB}@{other}")).await), "unsigned");
    scenario.registry.lies(other);
    assert_eq!(said(&scenario.decide(&format!("{WEB}@{signed}")).await), "registry-misbehaved");
}

#[tokio::test]
async fn tag_moved_between_two_requests_pins_what_was_verified() {
    let key = Key::new("acme");
    let scenario = Scenario::new(cluster(layer(vec![(ACME, None, signed_by(&key))])));
    let first = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, first, WEB);
    let decision = scenario.decide(WEB).await;
    let second = scenario.registry.image(WEB, "two");
    assert_eq!(pinned(&decision), format!("{WEB}@{first}"));
    assert_eq!(said(&scenario.decide_run(&pinned(&decision)).await), "verified");
    assert_eq!(said(&scenario.decide(WEB).await), "unsigned");
    assert_eq!(said(&scenario.decide(&format!("{WEB}@{second}")).await), "unsigned");
}

#[tokio::test]
async fn each_mode_does_what_it_says() {
    let key = Key::new("acme");
    for (mode, expected) in
        [(Mode::Enforce, "unsigned"), (Mode::Warn, "not_enforced(unsigned)"), (Mode::Audit, "not_enforced(unsigned)")]
    {
        let by_rule = Scenario::new(cluster(layer(vec![(ACME, Some(mode), signed_by(&key))])));
        let by_default =
            Scenario::with(cluster(layer(vec![(ACME, None, signed_by(&key))])), |choices| choices.settings.mode = mode);
        for scenario in [by_rule, by_default] {
            scenario.registry.image(WEB, "one");
            let decision = scenario.decide(WEB).await;
            assert_eq!(said(&decision), expected, "{mode}");
            assert_eq!(decision.mode, mode);
            assert_eq!(pinned(&decision), "", "what is not verified passes as it is");
            assert_eq!(decision.rule.unwrap().as_str(), "test/registry.example.com/acme");
        }
    }
}

#[tokio::test]
async fn what_verifies_is_pinned_in_every_mode() {
    let key = Key::new("acme");
    for mode in [Mode::Enforce, Mode::Warn, Mode::Audit] {
        let scenario = Scenario::new(cluster(layer(vec![(ACME, Some(mode), signed_by(&key))])));
        let digest = scenario.registry.image(WEB, "one");
        scenario.registry.sign(&key, digest, WEB);
        let decision = scenario.decide(WEB).await;
        assert_eq!((said(&decision), pinned(&decision)), ("verified".to_owned(), format!("{WEB}@{digest}")));
    }
}

#[tokio::test]
async fn where_no_rule_covers_an_image_the_configured_mode_holds() {
    for (mode, expected) in [(Mode::Enforce, "no-policy"), (Mode::Warn, "not_enforced(no-policy)")] {
        let scenario =
            Scenario::with(cluster(layer(vec![(ACME, None, allow())])), |choices| choices.settings.mode = mode);
        let decision = scenario.decide("other.example.com/x").await;
        assert_eq!((said(&decision).as_str(), pinned(&decision).as_str()), (expected, ""));
        assert_eq!(scenario.registry.asked(), RequestCounts::default());
    }
}

#[tokio::test]
async fn what_a_rule_allows_or_denies_needs_no_registry() {
    let scenario =
        Scenario::new(cluster(layer(vec![("docker.io/library", None, allow()), ("docker.io", None, deny())])));
    let allowed = scenario.decide("nginx").await;
    assert_eq!(said(&allowed), "allowed_by_rule");
    assert_eq!(pinned(&allowed), "docker.io/library/nginx:latest", "under its canonical name");
    let digest = Digest::sha256(b"x");
    assert_eq!(pinned(&scenario.decide(&format!("nginx@{digest}")).await), format!("docker.io/library/nginx@{digest}"));
    assert_eq!(said(&scenario.decide("acme/web:1").await), "denied-by-policy");
    assert_eq!(scenario.registry.asked(), RequestCounts::default());
}

#[tokio::test]
async fn what_runs_as_written_must_name_the_verified_digest() {
    let key = Key::new("acme");
    let rules = || cluster(layer(vec![(ACME, None, signed_by(&key))]));
    let scenario = Scenario::new(rules());
    let digest = scenario.registry.image(WEB, "one");
    assert_eq!(said(&scenario.decide_run(WEB).await), "unsigned", "that says more than that it is not pinned");
    scenario.registry.sign(&key, digest, WEB);
    let decision = scenario.decide_run(WEB).await;
    assert_eq!(said(&decision), "not-pinned");
    assert_eq!(
        denial(&decision),
        format!(
            "it is not pinned to the digest that rule test/{ACME} verified. \
             Create the pod again: the mutating webhook writes it so. If that does not help, it is not registered, or \
             something takes away what it wrote; write {WEB}@{digest}"
        )
    );
    assert_eq!(said(&scenario.decide_run(&format!("{WEB}@{digest}")).await), "verified");

    let scenario = Scenario::with(rules(), |choices| choices.settings.pin_required = false);
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    assert_eq!(said(&scenario.decide_run(WEB).await), "verified");

    let scenario = Scenario::with(rules(), |choices| choices.settings.mode = Mode::Warn);
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    let decision = scenario.decide_run(WEB).await;
    assert_eq!(said(&decision), "not_enforced(not-pinned)");
    assert!(matches!(decision.verdict, Ok(Verdict::NotEnforced { digest: Some(proven), .. }) if proven == digest));
}

#[tokio::test]
async fn what_is_allowed_for_its_registry_must_name_it_to_run() {
    let key = Key::new("acme");
    let rules = || vec![("docker.io", None, allow()), ("docker.io/acme", None, signed_by(&key))];
    let scenario = Scenario::new(cluster(layer(rules())));
    let digest = scenario.registry.image("acme/web:1", "one");
    scenario.registry.sign(&key, digest, "docker.io/acme/web:1");
    for short in ["nginx", "nginx:1.2", "library/nginx", &format!("nginx@{digest}")] {
        assert_eq!(
            said(&scenario.decide(short).await),
            "allowed_by_rule",
            "{short}: it is written anew, or a template"
        );
        let decision = scenario.decide_run(short).await;
        assert_eq!(said(&decision), "not-pinned", "{short}");
        let message = decision.verdict.unwrap_err().next_step(&decision.image.unwrap().to_string());
        assert!(message.contains("write docker.io/library/nginx"), "{message}");
    }
    for whole in ["docker.io/nginx", "docker.io/library/nginx:latest", "Index.Docker.io/library/nginx"] {
        assert_eq!(said(&scenario.decide_run(whole).await), "allowed_by_rule", "{whole}");
    }
    // A digest that is proven is the same image wherever it comes from.
    assert_eq!(said(&scenario.decide_run(&format!("acme/web:1@{digest}")).await), "verified");

    for mode in [Mode::Warn, Mode::Audit] {
        let scenario = Scenario::with(cluster(layer(rules())), |choices| choices.settings.mode = mode);
        assert_eq!(said(&scenario.decide_run("nginx").await), "allowed_by_rule", "{mode}");
    }
    let scenario = Scenario::with(cluster(layer(rules())), |choices| choices.settings.pin_required = false);
    assert_eq!(said(&scenario.decide_run("nginx").await), "allowed_by_rule");
}

#[tokio::test]
async fn what_another_layer_refuses_is_refused_for_that_and_not_for_a_missing_registry() {
    let policy = with_namespace(
        layer(vec![("docker.io", None, allow())]),
        "billing",
        layer(vec![("docker.io/acme", None, signed_by(&Key::new("acme")))]),
    );
    let scenario = Scenario::new(policy);
    scenario.registry.image("acme/web:1", "one");
    let decision = scenario.decide_at(Some("billing"), "acme/web:1", true, at(NOW)).await;
    assert_eq!(said(&decision), "unsigned", "the mutation left it as it is for that");
}

#[tokio::test]
async fn an_image_that_stands_there_twice_is_decided_once_and_answers_keep_their_order() {
    let key = Key::new("acme");
    let scenario = Scenario::new(cluster(layer(vec![(ACME, None, signed_by(&key)), ("docker.io", None, allow())])));
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    let decisions = scenario.decide_all(&[WEB, "NOT A REFERENCE", "nginx", WEB, "ghcr.io/x", WEB]).await;
    let all: Vec<_> = decisions.iter().map(said).collect();
    assert_eq!(all, ["verified", "invalid-reference", "allowed_by_rule", "verified", "no-policy", "verified"]);
    assert_eq!(scenario.registry.asked(), RequestCounts { manifests: 1, signatures: 1 });
    assert!(
        scenario
            .metrics()
            .contains(r#"code="",mode="enforce",rule="test/registry.example.com/acme",verdict="verified"} 1"#)
    );
}

#[tokio::test]
async fn more_images_than_are_looked_at_are_refused_all_of_them() {
    let scenario = Scenario::new(cluster(layer(vec![("docker.io", None, allow())])));
    let different: Vec<_> = (0..17).map(|number| format!("image-{number}")).collect();
    let different: Vec<_> = different.iter().map(String::as_str).collect();
    // The same often takes as much room as others do.
    for texts in [different.as_slice(), &["image-0"; 17]] {
        let refusal = scenario.try_decide_all(texts).await.unwrap_err();
        assert!(matches!(refusal, Refusal::TooManyImages { found: 17, limit: 16 }), "{refusal}");
        assert!(scenario.decide_all(&texts[1..]).await.iter().all(|decision| said(decision) == "allowed_by_rule"));
    }
    let refused = r#"sealgate_images_total{code="too-many-images",mode="enforce",rule="",verdict="refused"} 2"#;
    assert!(scenario.metrics().contains(refused), "once a review");

    let warn = |choices: &mut Choices| choices.settings.mode = Mode::Warn;
    let scenario = Scenario::with(cluster(layer(vec![("docker.io", None, allow())])), warn);
    let decisions = scenario.decide_all(&different).await;
    assert_eq!(decisions.len(), 17);
    assert!(decisions.iter().all(|decision| said(decision) == "not_enforced(too-many-images)"));
}

#[tokio::test(start_paused = true)]
async fn a_stale_policy_decides_nothing_until_it_is_confirmed_whatever_is_cached() {
    const LIMIT: Duration = Duration::from_mins(1);
    let key = Key::new("acme");
    let rules = || layer(vec![(ACME, None, signed_by(&key)), ("docker.io", None, allow())]);
    let limited = |choices: &mut Choices| {
        choices.times = Some(TIMES);
        choices.policy_max_stale = Some(LIMIT);
    };
    let scenario = Scenario::with(cluster(rules()), limited);
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    tokio::time::advance(LIMIT).await;
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    let asked = scenario.registry.asked();
    tokio::time::advance(Duration::from_nanos(1)).await;
    for texts in [&[WEB][..], &["nginx"], &[WEB, "nginx", "NOT A REFERENCE"]] {
        let refusal = scenario.try_decide_all(texts).await.unwrap_err();
        assert!(matches!(refusal, Refusal::PolicyUnavailable { limit: LIMIT }), "{refusal}");
        assert!(refusal.code().is_transient() && refusal.code().is_undecided());
    }
    assert_eq!(scenario.registry.asked(), asked, "nothing is looked up");
    let refused = r#"sealgate_images_total{code="policy-unavailable",mode="enforce",rule="",verdict="refused"} 3"#;
    assert!(scenario.metrics().contains(refused), "once a review");
    scenario.policy.confirm(Instant::now());
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    assert_eq!(said(&scenario.decide("nginx").await), "allowed_by_rule");

    // Without a limit, a lost volume stops nothing.
    let scenario = Scenario::with(cluster(rules()), |choices| choices.times = Some(TIMES));
    tokio::time::advance(LIMIT * 100_000).await;
    assert_eq!(said(&scenario.decide("nginx").await), "allowed_by_rule");
}

#[tokio::test(start_paused = true)]
async fn a_stale_policy_refuses_in_the_strictest_mode_and_no_exemption_lifts_it() {
    let limit = Duration::from_mins(1);
    for (default, rule, expected) in [
        (Mode::Enforce, Some(Mode::Audit), None),
        (Mode::Warn, Some(Mode::Enforce), None),
        (Mode::Warn, Some(Mode::Audit), Some(Mode::Warn)),
        (Mode::Audit, None, Some(Mode::Audit)),
    ] {
        let only = exempting(layer(vec![("docker.io", rule, allow())]), "docker.io/library/nginx", &["billing"]);
        let scenario = Scenario::with(cluster(only), |choices| {
            choices.settings.mode = default;
            choices.policy_max_stale = Some(limit);
        });
        tokio::time::advance(limit * 2).await;
        let images = ["nginx", "redis"].map(|text| ImageUse { text, runs_as_written: false });
        let deadline = Instant::now() + Duration::from_secs(8);
        let admission =
            Admission { namespace: Some("billing"), images: &images, now: at(NOW), deadline, is_final: false };
        match (scenario.gate.decide(&admission).await, expected) {
            (Err(Refusal::PolicyUnavailable { .. }), None) => {}
            (Ok(decisions), Some(mode)) => {
                for decision in &decisions {
                    assert_eq!((said(decision).as_str(), decision.mode), ("not_enforced(policy-unavailable)", mode));
                    assert_eq!(decision.pinned, None, "a mutation leaves it as it is");
                }
            }
            (decided, _) => panic!("{default} {rule:?}: {decided:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_reference_falls_under_the_strictest_mode_for_it_could_be_any_image() {
    let warn = |choices: &mut Choices| choices.settings.mode = Mode::Warn;
    let scenario = Scenario::with(cluster(layer(vec![(ACME, None, deny())])), warn);
    assert_eq!(said(&scenario.decide("x y").await), "not_enforced(invalid-reference)");
    let scenario = Scenario::with(cluster(layer(vec![(ACME, Some(Mode::Enforce), deny())])), warn);
    assert_eq!(said(&scenario.decide("x y").await), "invalid-reference");
    let strict = layer(vec![(ACME, Some(Mode::Enforce), deny())]);
    let scenario = Scenario::with(with_namespace(layer(vec![(ACME, None, deny())]), "billing", strict), warn);
    assert_eq!(said(&scenario.decide_in(Some("billing"), "").await), "invalid-reference");
    assert_eq!(said(&scenario.decide_in(Some("web"), "").await), "not_enforced(invalid-reference)");
}

#[tokio::test]
async fn an_exemption_lifts_a_refusal_there_and_then_only() {
    let key = Key::new("acme");
    let rules = || layer(vec![(ACME, None, signed_by(&key))]);
    let scenario = Scenario::new(cluster(exempting(rules(), "registry.example.com/acme/web", &["billing"])));
    scenario.registry.image(WEB, "one");
    let decision = scenario.decide_at(Some("billing"), WEB, true, at(NOW)).await;
    assert_eq!((said(&decision).as_str(), pinned(&decision).as_str()), ("exempted(unsigned)", WEB));
    assert!(scenario.metrics().contains(r#"sealgate_exemptions_used_total{exemption="test/legacy"} 1"#));
    assert_eq!(said(&scenario.decide_in(Some("web"), WEB).await), "unsigned");
    assert_eq!(said(&scenario.decide_in(None, WEB).await), "unsigned");
    let last = at("2026-06-30T23:59:59Z");
    assert_eq!(said(&scenario.decide_at(Some("billing"), WEB, true, last).await), "exempted(unsigned)");
    let over = at("2026-07-01T00:00:00Z");
    assert_eq!(said(&scenario.decide_at(Some("billing"), WEB, true, over).await), "unsigned");
    let other = "registry.example.com/acme/other:1";
    scenario.registry.image(other, "two");
    assert_eq!(said(&scenario.decide_in(Some("billing"), other).await), "unsigned");
}

#[tokio::test]
async fn what_verifies_needs_no_exemption() {
    let key = Key::new("acme");
    let rules = layer(vec![(ACME, None, signed_by(&key))]);
    let scenario = Scenario::new(cluster(exempting(rules, ACME, &[])));
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
    assert!(!scenario.metrics().contains("sealgate_exemptions_used_total{"));
}

#[tokio::test]
async fn an_exemption_for_a_digest_holds_for_that_digest_alone() {
    let key = Key::new("acme");
    let world_digest = Digest::sha256(b"one");
    let scope = format!("registry.example.com/acme/web@{world_digest}");
    let scenario = Scenario::new(cluster(exempting(layer(vec![(ACME, None, signed_by(&key))]), &scope, &[])));
    let digest = scenario.registry.image(WEB, "one");
    let decision = scenario.decide(WEB).await;
    assert_eq!(said(&decision), "exempted(unsigned)");
    assert_eq!(pinned(&decision), format!("{WEB}@{digest}"), "or the node might pull another");
    let unpinned = denial(&scenario.decide_run(WEB).await);
    assert!(unpinned.starts_with("it is not pinned to the digest that exemption test/legacy is for. "), "{unpinned}");
    assert!(unpinned.ends_with(&format!("; write {WEB}@{digest}")), "{unpinned}");
    assert_eq!(said(&scenario.decide_run(&pinned(&decision)).await), "exempted(unsigned)");
    scenario.registry.image(WEB, "two");
    assert_eq!(said(&scenario.decide(WEB).await), "unsigned");
}

#[tokio::test]
async fn what_a_rule_allows_needs_no_exemption_and_no_pin_for_one() {
    let key = Key::new("acme");
    let everything = exempting(
        layer(vec![(ACME, None, allow())]),
        &format!("registry.example.com/acme/web@{}", Digest::sha256(b"one")),
        &[],
    );
    let scenario = Scenario::new(with_namespace(everything, "billing", layer(vec![(ACME, None, signed_by(&key))])));
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    let unpinned = denial(&scenario.decide_run_in(Some("billing"), WEB).await);
    assert!(unpinned.starts_with("it is not pinned to the digest that rule "), "{unpinned}");
}

#[tokio::test]
async fn an_exemption_holds_while_the_registry_is_down() {
    let key = Key::new("acme");
    let scenario = Scenario::new(cluster(exempting(layer(vec![(ACME, None, signed_by(&key))]), ACME, &[])));
    scenario.registry.registry_fails(Some(unavailable()));
    assert_eq!(said(&scenario.decide_run(WEB).await), "exempted(registry-unavailable)");
}

#[tokio::test]
async fn a_tag_falls_under_the_rule_for_the_digest_that_it_names() {
    let key = Key::new("acme");
    let bad = Digest::sha256(b"bad");
    let scope = format!("registry.example.com/acme/web@{bad}");
    let rules = || vec![(ACME, None, allow()), (scope.as_str(), None, deny())];
    let scenario = Scenario::new(cluster(layer(rules())));
    let good = scenario.registry.image(WEB, "good");
    let decision = scenario.decide(WEB).await;
    assert_eq!(said(&decision), "allowed_by_rule");
    assert_eq!(pinned(&decision), format!("{WEB}@{good}"), "allowed because of its digest");
    let unpinned = denial(&scenario.decide_run(WEB).await);
    let expected = format!("it is not pinned to the digest for which rule test/{ACME} allows it. ");
    assert!(unpinned.starts_with(&expected), "{unpinned}");
    scenario.registry.image(WEB, "bad");
    assert_eq!(said(&scenario.decide(WEB).await), "denied-by-policy");
    // policy.json's scopes match what was asked for.
    let scenario = Scenario::new(cluster(policy_json(rules())));
    scenario.registry.image(WEB, "bad");
    assert_eq!(said(&scenario.decide_run(WEB).await), "allowed_by_rule");
    assert_eq!(said(&scenario.decide(&format!("{WEB}@{bad}")).await), "denied-by-policy");
    drop(key);
}

#[tokio::test]
async fn where_the_rule_cannot_be_learned_the_strictest_of_the_possible_modes_holds() {
    let scope = format!("registry.example.com/acme/web@{}", Digest::sha256(b"bad"));
    for (mode, expected) in [
        (Some(Mode::Enforce), "registry-unavailable"),
        (None, "not_enforced(registry-unavailable)"),
        (Some(Mode::Audit), "not_enforced(registry-unavailable)"),
    ] {
        let rules = vec![(ACME, None, allow()), (scope.as_str(), mode, deny())];
        let scenario = Scenario::with(cluster(layer(rules)), |choices| choices.settings.mode = Mode::Warn);
        scenario.registry.registry_fails(Some(unavailable()));
        assert_eq!(said(&scenario.decide(WEB).await), expected);
    }
}

#[tokio::test]
async fn a_good_signature_is_proof_whatever_fails_beside_it() {
    let key = Key::new("acme");
    let scenario = Scenario::new(cluster(layer(vec![(ACME, None, signed_by(&key))])));
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.source_fails(Some(unavailable()));
    assert_eq!(said(&scenario.decide(WEB).await), "registry-unavailable", "there may be one");
    scenario.registry.sign(&key, digest, WEB);
    assert_eq!(said(&scenario.decide(WEB).await), "verified");
}

#[tokio::test]
async fn each_failure_of_a_registry_refuses_with_its_code() {
    let key = Key::new("acme");
    let scenario = Scenario::new(cluster(layer(vec![(ACME, None, signed_by(&key))])));
    assert_eq!(said(&scenario.decide(WEB).await), "manifest-unknown");
    let (registry, url): (Box<str>, Box<str>) = ("registry.example.com".into(), "x".into());
    for (error, expected) in [
        (unavailable(), "registry-unavailable"),
        (timed_out(), "deadline-exceeded"),
        (
            LookupError::Unauthorized {
                registry: registry.clone(),
                url: url.clone(),
                status: 401,
                with_credentials: false,
                looked_in: None,
            },
            "registry-unauthorized",
        ),
        (LookupError::Misbehaved { registry, url: url.clone(), what: "endless body".into() }, "registry-misbehaved"),
        (
            LookupError::UnsupportedManifest { url, error: crate::image::ManifestError::SchemaOne },
            "unsupported-manifest",
        ),
    ] {
        scenario.registry.registry_fails(Some(error));
        assert_eq!(said(&scenario.decide(WEB).await), expected);
    }
}

thread_local! {
    /// The log lines of this test's thread.
    static LOGGED: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Writes to [`LOGGED`].
struct Logged;

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_has_the_facts_of_a_refusal() {
    let key = Key::new("acme");
    // For the whole process: tracing remembers for all threads whether anybody listens, and with a subscriber of this thread
    // alone another test may have it remember that nobody does.
    tracing_subscriber::fmt().with_ansi(false).with_writer(|| Logged).init();
    for mode in [Mode::Enforce, Mode::Warn] {
        let rules = cluster(layer(vec![(ACME, None, signed_by(&key))]));
        let scenario = Scenario::with(rules, |choices| choices.settings.mode = mode);
        let (registry, url) = ("registry.example.com".into(), "https://registry.example.com/v2/asked".into());
        scenario.registry.registry_fails(Some(LookupError::Misbehaved { registry, url, what: "endless body".into() }));
        scenario.decide(WEB).await;
        let line = String::from_utf8(LOGGED.take()).unwrap();
        for part in
            [WEB, "registry-misbehaved", r#""url":"https://registry.example.com/v2/asked""#, r#""why":"endless body""#]
        {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
        // What a mutation would refuse is refused, and logged, by the validation.
        let images = [ImageUse { text: WEB, runs_as_written: false }];
        let deadline = Instant::now() + Duration::from_secs(8);
        let mutation = Admission { namespace: None, images: &images, now: at(NOW), deadline, is_final: false };
        scenario.gate.decide(&mutation).await.unwrap();
        assert_eq!(String::from_utf8(LOGGED.take()).unwrap(), "");
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_there_is_an_answer_and_those_that_were_ready_are_kept() {
    let key = Key::new("acme");
    for times in [None, Some(TIMES)] {
        let rules = vec![
            (ACME, None, signed_by(&key)),
            ("warned.example.com", Some(Mode::Warn), signed_by(&key)),
            ("docker.io", None, allow()),
        ];
        let scenario = Scenario::with(cluster(layer(rules)), |choices| choices.times = times);
        scenario.registry.close();
        let began = Instant::now();
        let decisions = scenario.decide_all(&[WEB, "nginx", "warned.example.com/x", "ghcr.io/x"]).await;
        assert!(began.elapsed() <= Duration::from_secs(8), "{:?}", began.elapsed());
        let all: Vec<_> = decisions.iter().map(said).collect();
        assert_eq!(all, ["deadline-exceeded", "allowed_by_rule", "not_enforced(deadline-exceeded)", "no-policy"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_ignores_the_deadline_does_not_hold_up_the_answer() {
    struct Never;
    #[async_trait]
    impl ResolveDigest for Never {
        async fn resolve(&self, _: &Reference, _: Instant) -> Result<Arc<HashedManifest>, LookupError> {
            std::future::pending().await
        }
    }
    let key = Key::new("acme");
    let scenario = Scenario::new(cluster(layer(vec![(ACME, None, signed_by(&key))])));
    let settings = scenario.gate.engine.settings.clone();
    let gate = Gate::new(
        settings,
        scenario.policy.clone(),
        Arc::new(Never),
        scenario.registry.clone(),
        scenario.metrics.clone(),
    );
    let by_digest = format!("{WEB}@{}", Digest::sha256(b"one"));
    let images = [WEB, &by_digest].map(|text| ImageUse { text, runs_as_written: false });
    let deadline = Instant::now() + Duration::from_secs(8);
    let decisions = gate
        .decide(&Admission { namespace: None, images: &images, now: at(NOW), deadline, is_final: true })
        .await
        .unwrap();
    assert_eq!(Instant::now(), deadline);
    assert!(decisions.iter().all(|decision| said(decision) == "deadline-exceeded"));
}

#[tokio::test]
async fn manifest_and_signatures_of_a_known_digest_are_asked_for_side_by_side() {
    let key = Key::new("acme");
    let scenario = Arc::new(Scenario::new(cluster(layer(vec![(ACME, None, signed_by(&key))]))));
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    scenario.registry.close();
    let deciding = tokio::spawn({
        let scenario = scenario.clone();
        async move { scenario.decide(&format!("{WEB}@{digest}")).await }
    });
    scenario.registry.until_asked(1, 1).await;
    scenario.registry.open();
    assert_eq!(said(&deciding.await.unwrap()), "verified");
    assert_eq!(scenario.registry.asked(), RequestCounts { manifests: 1, signatures: 1 });
}
