//! The cluster's layer and a namespace's.

use proptest::prelude::*;

use super::*;

const ACME: &str = "registry.example.com/acme";
const HERE: Option<&str> = Some("billing");

/// The keys of both layers, the signatures by `signers`, and what comes of it.
async fn with(cluster: Action, namespace: Action, signers: &[&Key]) -> (String, Decision) {
    let policy = with_namespace(layer(vec![(ACME, None, cluster)]), "billing", layer(vec![(ACME, None, namespace)]));
    let scenario = Scenario::cached(policy);
    let digest = scenario.registry.image(WEB, "one");
    for key in signers {
        scenario.registry.sign(key, digest, WEB);
    }
    let decision = scenario.decide_in(HERE, WEB).await;
    (said(&decision), decision)
}

#[tokio::test]
async fn both_layers_must_let_it_run() {
    let (a, b) = (Key::new("a"), Key::new("b"));
    for (cluster, namespace, signers, expected) in [
        (signed_by(&a), signed_by(&b), vec![&a, &b], "verified"),
        (signed_by(&a), signed_by(&b), vec![&a], "untrusted-key"),
        (signed_by(&a), signed_by(&b), vec![&b], "untrusted-key"),
        (signed_by(&a), signed_by(&b), vec![], "unsigned"),
        (signed_by(&a), allow(), vec![&a], "verified"),
        (signed_by(&a), allow(), vec![], "unsigned"),
        (signed_by(&a), deny(), vec![&a], "denied-by-policy"),
        (allow(), signed_by(&b), vec![&b], "verified"),
        (allow(), signed_by(&b), vec![], "unsigned"),
        (allow(), allow(), vec![], "allowed_by_rule"),
        (allow(), deny(), vec![], "denied-by-policy"),
        (deny(), allow(), vec![], "denied-by-policy"),
        (deny(), signed_by(&b), vec![&b], "denied-by-policy"),
    ] {
        let (said, decision) = with(cluster.clone(), namespace.clone(), &signers).await;
        assert_eq!(said, expected, "{cluster:?} {namespace:?}");
        let proven =
            usize::from(matches!(cluster, Action::Require(_))) + usize::from(matches!(namespace, Action::Require(_)));
        if expected == "verified" {
            assert_eq!(decision.examinations.len(), proven, "one a layer that requires signatures");
            assert!(pinned(&decision).contains("@sha256:"));
        }
    }
}

#[tokio::test]
async fn an_image_that_is_unpinned_and_unsigned_is_refused_as_unsigned() {
    let (a, b) = (Key::new("a"), Key::new("b"));
    for (cluster, namespace) in [(&a, &b), (&b, &a)] {
        let layers = [cluster, namespace].map(|key| layer(vec![(ACME, None, signed_by(key))]));
        let [cluster, namespace] = layers;
        let scenario = Scenario::new(with_namespace(cluster, "billing", namespace));
        let digest = scenario.registry.image(WEB, "one");
        scenario.registry.sign(&a, digest, WEB);
        let decision = scenario.decide_at(HERE, WEB, true, at(NOW)).await;
        assert_eq!(said(&decision), "untrusted-key", "trying again would not help");
    }
}

#[tokio::test]
async fn a_namespace_layer_holds_for_its_namespace_and_its_scopes() {
    let key = Key::new("a");
    let policy =
        with_namespace(layer(vec![("*", None, allow())]), "billing", layer(vec![(ACME, None, signed_by(&key))]));
    let scenario = Scenario::new(policy);
    scenario.registry.image(WEB, "one");
    assert_eq!(said(&scenario.decide_in(HERE, WEB).await), "unsigned");
    assert_eq!(said(&scenario.decide_in(Some("other"), WEB).await), "allowed_by_rule");
    assert_eq!(said(&scenario.decide_in(None, WEB).await), "allowed_by_rule");
    assert_eq!(said(&scenario.decide_in(HERE, "nginx").await), "allowed_by_rule");
}

#[tokio::test]
async fn where_the_cluster_has_no_rule_a_namespaces_is_not_enough() {
    let scenario = Scenario::new(with_namespace(Layer::default(), "billing", layer(vec![(ACME, None, allow())])));
    assert_eq!(said(&scenario.decide_in(HERE, WEB).await), "no-policy");
}

#[tokio::test]
async fn what_the_policy_alone_refuses_asks_no_registry_for_the_other_layer() {
    let key = Key::new("a");
    for (cluster, namespace) in [(signed_by(&key), deny()), (deny(), signed_by(&key))] {
        let policy =
            with_namespace(layer(vec![(ACME, None, cluster)]), "billing", layer(vec![(ACME, None, namespace)]));
        let scenario = Scenario::new(policy);
        assert_eq!(said(&scenario.decide_in(HERE, WEB).await), "denied-by-policy");
        assert_eq!(scenario.registry.asked(), RequestCounts::default());
    }
}

#[tokio::test]
async fn both_layers_share_one_resolution_of_the_tag() {
    let (a, b) = (Key::new("a"), Key::new("b"));
    let policy =
        with_namespace(layer(vec![(ACME, None, signed_by(&a))]), "billing", layer(vec![(ACME, None, signed_by(&b))]));
    let scenario = Scenario::new(policy);
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&a, digest, WEB);
    scenario.registry.sign(&b, digest, WEB);
    assert_eq!(said(&scenario.decide_in(HERE, WEB).await), "verified");
    assert_eq!(scenario.registry.asked().manifests, 1);
}

#[tokio::test]
async fn an_exemption_lifts_its_own_layers_refusal_and_no_others() {
    let (a, b) = (Key::new("a"), Key::new("b"));
    let rules = |key: &Key| layer(vec![(ACME, None, signed_by(key))]);
    // The namespace exempts; the cluster refuses all the same.
    let scenario = Scenario::new(with_namespace(rules(&a), "billing", exempting(rules(&b), ACME, &[])));
    let digest = scenario.registry.image(WEB, "one");
    assert_eq!(said(&scenario.decide_in(HERE, WEB).await), "unsigned");
    scenario.registry.sign(&a, digest, WEB);
    let decision = scenario.decide_in(HERE, WEB).await;
    assert_eq!(said(&decision), "exempted(untrusted-key)");
    assert_eq!(pinned(&decision), format!("{WEB}@{digest}"), "the cluster's layer verified it");
    // And the other way round.
    let scenario = Scenario::new(with_namespace(exempting(rules(&a), ACME, &[]), "billing", rules(&b)));
    let digest = scenario.registry.image(WEB, "one");
    assert_eq!(said(&scenario.decide_in(HERE, WEB).await), "unsigned");
    scenario.registry.sign(&b, digest, WEB);
    assert_eq!(said(&scenario.decide_in(HERE, WEB).await), "exempted(untrusted-key)");
}

#[tokio::test]
async fn what_is_not_enforced_is_seen_although_another_layer_proves_something() {
    let (a, b) = (Key::new("a"), Key::new("b"));
    let policy = with_namespace(
        layer(vec![(ACME, None, signed_by(&a))]),
        "billing",
        layer(vec![(ACME, Some(Mode::Warn), signed_by(&b))]),
    );
    let scenario = Scenario::new(policy);
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&a, digest, WEB);
    let decision = scenario.decide_in(HERE, WEB).await;
    assert_eq!(said(&decision), "not_enforced(untrusted-key)");
    assert_eq!(decision.mode, Mode::Warn);
    assert_eq!(pinned(&decision), format!("{WEB}@{digest}"));
    assert!(matches!(decision.verdict, Ok(Verdict::NotEnforced { digest: Some(proven), .. }) if proven == digest));
}

#[tokio::test]
async fn a_refusal_that_waiting_cannot_help_goes_before_one_that_it_can() {
    let (a, b) = (Key::new("a"), Key::new("b"));
    let digest = Digest::sha256(b"one");
    // Only the namespace's layer has to know the digest.
    let scope = format!("registry.example.com/acme/web@{digest}");
    let policy = with_namespace(
        layer(vec![(ACME, None, signed_by(&a))]),
        "billing",
        layer(vec![(ACME, None, deny()), (scope.as_str(), None, signed_by(&b))]),
    );
    let scenario = Scenario::new(policy);
    scenario.registry.registry_fails(Some(unavailable()));
    assert_eq!(said(&scenario.decide_in(HERE, WEB).await), "registry-unavailable");
    let other = format!("registry.example.com/acme/web@{}", Digest::sha256(b"other"));
    assert_eq!(said(&scenario.decide_in(HERE, &other).await), "denied-by-policy");
}

#[tokio::test]
async fn a_refusal_that_waiting_cannot_help_goes_first_from_whichever_layer_it_is() {
    let key = Key::new("a");
    let good = of(Digest::sha256(b"good"));
    let required = || layer(vec![(ACME, None, signed_by(&key))]);
    let denied = || layer(vec![(ACME, None, allow()), (good.as_str(), None, deny())]);
    for (in_cluster, in_namespace) in [(required(), denied()), (denied(), required())] {
        let scenario = Scenario::new(with_namespace(in_cluster, "billing", in_namespace));
        scenario.registry.image(WEB, "good");
        scenario.registry.source_fails(Some(unavailable()));
        assert_eq!(said(&scenario.decide_in(HERE, WEB).await), "denied-by-policy");
    }
}

/// The scope of one digest of [`WEB`]'s repository.
fn of(digest: Digest) -> String {
    format!("registry.example.com/acme/web@{digest}")
}

#[tokio::test]
async fn a_tag_is_pinned_before_it_can_move_to_a_digest_that_a_namespace_denies() {
    let bad = Digest::sha256(b"bad");
    let scope = of(bad);
    for (mode, unpinned) in [
        (None, "not-pinned"),
        (Some(Mode::Warn), "not_enforced(not-pinned)"),
        (Some(Mode::Audit), "not_enforced(not-pinned)"),
    ] {
        let policy = with_namespace(
            layer(vec![("registry.example.com", None, allow())]),
            "billing",
            layer(vec![(scope.as_str(), mode, deny())]),
        );
        let scenario = Scenario::new(policy);
        let good = scenario.registry.image(WEB, "good");
        let mutation = scenario.decide_in(HERE, WEB).await;
        assert_eq!(said(&mutation), "allowed_by_rule");
        assert_eq!(pinned(&mutation), format!("{WEB}@{good}"));
        let validation = scenario.decide_run_in(HERE, WEB).await;
        assert_eq!(said(&validation), unpinned);
        let text = format!("{:?}", validation.verdict);
        assert!(text.contains(&format!("test/{scope}")), "it names the rule that may refuse: {text}");
        assert_eq!(said(&scenario.decide_run_in(HERE, &pinned(&mutation)).await), "allowed_by_rule");
        assert_eq!(said(&scenario.decide_run(WEB).await), "allowed_by_rule", "elsewhere it needs no pin");
        scenario.registry.image(WEB, "bad");
        let refused = if mode.is_none() { "denied-by-policy" } else { "not_enforced(denied-by-policy)" };
        assert_eq!(said(&scenario.decide_run_in(HERE, WEB).await), refused);
    }
}

#[tokio::test]
async fn a_namespace_that_only_allows_a_digest_asks_no_pin_of_another() {
    let scope = of(Digest::sha256(b"other"));
    let policy = with_namespace(
        layer(vec![("registry.example.com", None, allow())]),
        "billing",
        layer(vec![(scope.as_str(), None, allow())]),
    );
    let scenario = Scenario::new(policy);
    scenario.registry.image(WEB, "good");
    assert_eq!(said(&scenario.decide_run_in(HERE, WEB).await), "allowed_by_rule");
}

#[tokio::test]
async fn what_a_namespace_allows_for_the_digest_of_a_tag_is_pinned() {
    let good = Digest::sha256(b"good");
    let scope = of(good);
    let everything = layer(vec![("registry.example.com", None, allow())]);
    let scenario = Scenario::new(with_namespace(everything, "billing", layer(vec![(scope.as_str(), None, allow())])));
    scenario.registry.image(WEB, "good");
    assert_eq!(pinned(&scenario.decide_in(HERE, WEB).await), format!("{WEB}@{good}"));
}

#[tokio::test]
async fn what_may_refuse_the_next_digest_in_a_stricter_mode_says_so_in_that_mode() {
    let good = of(Digest::sha256(b"good"));
    let rules = vec![(ACME, Some(Mode::Warn), deny()), (good.as_str(), Some(Mode::Audit), allow())];
    let scenario = Scenario::new(cluster(layer(rules)));
    scenario.registry.image(WEB, "good");
    let decision = scenario.decide_run(WEB).await;
    assert_eq!((said(&decision).as_str(), decision.mode), ("not_enforced(not-pinned)", Mode::Warn));
}

#[tokio::test]
async fn a_rule_for_a_digest_in_warn_mode_opens_no_way_around_an_enforced_one() {
    let key = Key::new("a");
    let (good, bad) = (of(Digest::sha256(b"good")), of(Digest::sha256(b"bad")));
    let warn = Some(Mode::Warn);
    for (rules, mutated, validated) in [
        // Not signed, and that is not enforced; but the next digest is denied.
        (vec![(ACME, warn, signed_by(&key)), (bad.as_str(), None, deny())], "not_enforced(unsigned)", "not-pinned"),
        // Allowed under warn; the next digest falls under an enforced rule, or under none.
        (vec![(ACME, None, deny()), (good.as_str(), warn, allow())], "allowed_by_rule", "not-pinned"),
        (vec![(good.as_str(), warn, allow())], "allowed_by_rule", "not-pinned"),
        // No rule is enforced.
        (
            vec![(ACME, warn, signed_by(&key)), (bad.as_str(), warn, deny())],
            "not_enforced(unsigned)",
            "not_enforced(unsigned)",
        ),
    ] {
        let scenario = Scenario::new(cluster(layer(rules)));
        let digest = scenario.registry.image(WEB, "good");
        let mutation = scenario.decide(WEB).await;
        assert_eq!(said(&mutation), mutated);
        let validation = scenario.decide_run(WEB).await;
        assert_eq!(said(&validation), validated);
        let expected = if validated == "not-pinned" { format!("{WEB}@{digest}") } else { String::new() };
        assert_eq!(pinned(&mutation), expected);
        assert_eq!(said(&scenario.decide_run(&format!("{WEB}@{digest}")).await), mutated);
    }
}

#[tokio::test]
async fn an_unresolved_tag_that_may_have_no_rule_falls_under_the_default_mode_too() {
    let good = of(Digest::sha256(b"good"));
    let scenario = Scenario::new(cluster(layer(vec![(good.as_str(), Some(Mode::Warn), allow())])));
    scenario.registry.registry_fails(Some(unavailable()));
    assert_eq!(said(&scenario.decide(WEB).await), "registry-unavailable");
}

#[tokio::test]
async fn of_two_layers_that_refuse_the_one_that_says_more_is_named() {
    let (a, b) = (Key::new("a"), Key::new("b"));
    let (warn, audit) = (Some(Mode::Warn), Some(Mode::Audit));
    let cluster_scope = "registry.example.com";
    for ((cluster_mode, cluster), (mode, namespace), expected, of_cluster) in [
        ((None, deny()), (None, deny()), "denied-by-policy", true),
        ((None, allow()), (None, allow()), "allowed_by_rule", true),
        ((warn, deny()), (warn, deny()), "not_enforced(denied-by-policy)", true),
        ((audit, deny()), (audit, deny()), "not_enforced(denied-by-policy)", true),
        // A person is told of a warning alone.
        ((audit, deny()), (warn, deny()), "not_enforced(denied-by-policy)", false),
        ((warn, deny()), (audit, deny()), "not_enforced(denied-by-policy)", true),
        ((None, allow()), (audit, deny()), "not_enforced(denied-by-policy)", false),
        ((None, signed_by(&a)), (None, signed_by(&b)), "verified", true),
        ((None, allow()), (None, signed_by(&b)), "verified", false),
        ((None, signed_by(&a)), (None, allow()), "verified", true),
    ] {
        let case = format!("{cluster_mode:?} {cluster:?} {mode:?} {namespace:?}");
        let scenario = Scenario::new(with_namespace(
            layer(vec![(cluster_scope, cluster_mode, cluster)]),
            "billing",
            layer(vec![(ACME, mode, namespace)]),
        ));
        let digest = scenario.registry.image(WEB, "one");
        for key in [&a, &b] {
            scenario.registry.sign(key, digest, WEB);
        }
        let decision = scenario.decide_in(HERE, WEB).await;
        assert_eq!(said(&decision), expected, "{case}");
        let scope = if of_cluster { cluster_scope } else { ACME };
        assert_eq!(decision.rule.unwrap().as_str(), format!("test/{scope}"), "{case}");
    }
}

#[tokio::test]
async fn a_layer_asks_for_the_registrys_name_whatever_the_other_layer_says() {
    let key = Key::new("a");
    let other = "docker.io/other";
    let cluster_layers = [
        ("allowed", layer(vec![("docker.io", None, allow())])),
        ("denied and exempted", exempting(layer(vec![("docker.io", None, deny())]), "docker.io/library", &[])),
        ("without a rule and exempted", exempting(layer(vec![(other, None, deny())]), "docker.io", &[])),
    ];
    let namespace_layers = [
        ("none", None),
        ("denied, audit", Some(layer(vec![("docker.io", Some(Mode::Audit), deny())]))),
        ("denied, warn", Some(layer(vec![("docker.io", Some(Mode::Warn), deny())]))),
        ("unsigned, warn", Some(layer(vec![("docker.io", Some(Mode::Warn), signed_by(&key))]))),
        ("allowed, warn", Some(layer(vec![("docker.io", Some(Mode::Warn), allow())]))),
        ("allowed", Some(layer(vec![("docker.io", None, allow())]))),
        ("denied and exempted", Some(exempting(layer(vec![("docker.io", None, deny())]), "docker.io", &[]))),
        (
            "denied under audit and exempted",
            Some(exempting(layer(vec![("docker.io", Some(Mode::Audit), deny())]), "docker.io", &[])),
        ),
        ("about something else", Some(layer(vec![(other, None, deny())]))),
    ];
    let digest = Digest::sha256(b"one");
    for (cluster_is, cluster_layer) in &cluster_layers {
        for (namespace_is, namespace_layer) in &namespace_layers {
            let policy = match namespace_layer {
                Some(layer) => with_namespace(cluster_layer.clone(), "billing", layer.clone()),
                None => cluster(cluster_layer.clone()),
            };
            let scenario = Scenario::new(policy);
            scenario.registry.image("docker.io/library/nginx", "one");
            for (short, whole) in [
                ("nginx".to_owned(), "docker.io/library/nginx:latest".to_owned()),
                (format!("nginx@{digest}"), format!("docker.io/library/nginx@{digest}")),
            ] {
                let case = format!("{short}: cluster {cluster_is}, namespace {namespace_is}");
                assert_eq!(said(&scenario.decide_run_in(HERE, &short).await), "not-pinned", "{case}");
                let mutation = scenario.decide_in(HERE, &short).await;
                assert_eq!(pinned(&mutation), whole, "{case}: {:?}", mutation.verdict);
                let validation = scenario.decide_run_in(HERE, &whole).await;
                assert!(validation.verdict.is_ok(), "{case}: {:?}", validation.verdict);
            }
        }
    }
}

#[tokio::test]
async fn a_namespace_asks_for_a_registry_that_its_own_rule_allows() {
    let scenario = Scenario::new(with_namespace(
        layer(vec![("docker.io", Some(Mode::Warn), allow())]),
        "billing",
        layer(vec![("docker.io", None, allow())]),
    ));
    assert_eq!(said(&scenario.decide_run("nginx").await), "allowed_by_rule");
    let refusal = scenario.decide_run_in(HERE, "nginx").await.verdict.unwrap_err();
    assert!(matches!(&refusal, Refusal::NotPinned { digest: None, .. }), "{refusal}");
}

#[tokio::test]
async fn an_exemption_under_which_a_short_name_does_not_run_is_named() {
    let scenario = Scenario::new(cluster(exempting(layer(vec![("docker.io", None, deny())]), "docker.io", &[])));
    let refusal = scenario.decide_run("nginx").await.verdict.unwrap_err();
    assert_eq!(refusal.facts()["exemption"], "test/legacy");
    let text = format!("{refusal}. {}", refusal.next_step("docker.io/library/nginx:latest"));
    assert!(text.starts_with("its registry is not written, ") && text.contains("exemption test/legacy"), "{text}");
    assert!(text.ends_with("write docker.io/library/nginx:latest"), "{text}");
    assert!(!scenario.metrics().contains("sealgate_exemptions_used_total{"), "it lifted nothing");
}

#[tokio::test]
async fn a_missing_registry_is_the_last_thing_that_a_refusal_tells() {
    let scenario = Scenario::new(with_namespace(
        layer(vec![("docker.io", None, allow())]),
        "billing",
        layer(vec![("docker.io/library", None, signed_by(&Key::new("a")))]),
    ));
    scenario.registry.registry_fails(Some(unavailable()));
    assert_eq!(said(&scenario.decide_run_in(HERE, "nginx").await), "registry-unavailable", "a mutation would not help");
}

/// A rule, without its keys: those are of the layer.
#[derive(Clone, Copy, Debug)]
enum Says {
    Require,
    Allow,
    Deny,
}

/// A layer, without its keys.
#[derive(Clone, Debug)]
struct Outline {
    rules: Vec<(usize, Option<Mode>, Says)>,
    exempt: Option<usize>,
    dialect: Dialect,
}

/// `DIGEST` stands for the scope of the image's own digest, `OTHER` for that of another one.
const SCOPES: [&str; 6] = ["*", "docker.io", "docker.io/library", "docker.io/library/web", "DIGEST", "OTHER"];
const FULL_NAME: &str = "docker.io/library/web:1";

fn some_mode() -> impl Strategy<Value = Option<Mode>> {
    prop_oneof![Just(None), Just(Some(Mode::Enforce)), Just(Some(Mode::Warn)), Just(Some(Mode::Audit))]
}

fn outline(dialects: bool) -> impl Strategy<Value = Outline> {
    let says = prop_oneof![Just(Says::Require), Just(Says::Allow), Just(Says::Deny)];
    let rules = proptest::collection::vec((0..SCOPES.len(), some_mode(), says), 0..5);
    // An exemption for everything is none that a policy can have.
    let exempt = proptest::option::weighted(0.4, 1..SCOPES.len());
    let dialect =
        any::<bool>().prop_map(move |other| if other && dialects { Dialect::PolicyJson } else { Dialect::Sealgate });
    (rules, exempt, dialect).prop_map(|(rules, exempt, dialect)| Outline { rules, exempt, dialect })
}

fn build(outline: &Outline, key: &Key, digest: Digest) -> Layer {
    let scope = |place: usize| match SCOPES[place] {
        "DIGEST" => format!("docker.io/library/web@{digest}"),
        "OTHER" => format!("docker.io/library/web@{}", Digest::sha256(b"other")),
        scope => scope.to_owned(),
    };
    let mut seen = std::collections::HashSet::new();
    let rules = outline.rules.iter().filter(|(place, ..)| seen.insert(*place));
    let rules: Vec<_> = rules.map(|(place, mode, says)| (scope(*place), *mode, *says)).collect();
    let rules = rules.iter().map(|(scope, mode, says)| {
        let action = match says {
            Says::Require => signed_by(key),
            Says::Allow => allow(),
            Says::Deny => deny(),
        };
        (scope.as_str(), *mode, action)
    });
    let layer = Layer { dialect: outline.dialect, ..layer(rules.collect()) };
    match outline.exempt {
        Some(place) => exempting(layer, &scope(place), &[]),
        None => layer,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_namespace_layer_never_lets_run_what_the_clusters_refuses(
        cluster_outline in outline(true),
        namespace_outline in outline(false),
        default_mode in some_mode(),
        signed_for_cluster: bool,
        signed_for_namespace: bool,
        short: bool,
        by_digest: bool,
        down: bool,
    ) {
        static KEYS: std::sync::LazyLock<(Key, Key)> = std::sync::LazyLock::new(|| (Key::new("a"), Key::new("b")));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (a, b) = &*KEYS;
            let digest = Digest::sha256(b"one");
            let cluster_layer = build(&cluster_outline, a, digest);
            let namespace_layer = build(&namespace_outline, b, digest);
            let choose = |choices: &mut Choices| {
                choices.times = Some(TIMES);
                choices.settings.mode = default_mode.unwrap_or(Mode::Enforce);
            };
            let alone = Scenario::with(cluster(cluster_layer.clone()), choose);
            let both = Scenario::with(with_namespace(cluster_layer, "billing", namespace_layer), choose);
            let name = if short { "web:1" } else { FULL_NAME };
            let text = if by_digest { format!("{name}@{digest}") } else { name.to_owned() };
            for scenario in [&alone, &both] {
                assert_eq!(scenario.registry.image(FULL_NAME, "one"), digest);
                for (signed, key) in [(signed_for_cluster, a), (signed_for_namespace, b)] {
                    if signed {
                        scenario.registry.sign(key, digest, FULL_NAME);
                    }
                }
                if down {
                    scenario.registry.registry_fails(Some(unavailable()));
                }
            }
            for runs in [false, true] {
                let by_cluster = alone.decide_at(HERE, &text, runs, at(NOW)).await;
                let by_both = both.decide_at(HERE, &text, runs, at(NOW)).await;
                if by_cluster.verdict.is_err() {
                    assert!(by_both.verdict.is_err(), "{by_cluster:?} {by_both:?}");
                }
                // What both prove says so only if the cluster's layer proves it, or asks for no proof.
                if let Ok(Verdict::Verified(_)) = by_both.verdict {
                    assert!(
                        matches!(by_cluster.verdict, Ok(Verdict::Verified(_) | Verdict::AllowedByRule { .. })),
                        "{by_cluster:?}"
                    );
                }
            }
            // What a mutation lets pass is, as it writes it, not refused for how it is written.
            for scenario in [&alone, &both] {
                let mutation = scenario.decide_at(HERE, &text, false, at(NOW)).await;
                if mutation.verdict.is_ok() {
                    let written = mutation.pinned.as_ref().map_or_else(|| text.clone(), ToString::to_string);
                    let validation = scenario.decide_at(HERE, &written, true, at(NOW)).await;
                    assert_ne!(said(&validation), "not-pinned", "{written}: {mutation:?} {validation:?}");
                }
            }
        });
    }
}
