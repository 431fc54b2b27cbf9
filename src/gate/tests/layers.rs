//! The cluster's layer and a namespace's.

use proptest::prelude::*;

use super::*;

const ACME: &str = "registry.example.com/acme";
const HERE: Option<&str> = Some("billing");

/// The keys of both layers, the signatures by `signers`, and what comes of it.
async fn with(cluster: Action, namespace: Action, signers: &[&Key]) -> (String, Decision) {
    let policy = with_namespace(layer(vec![(ACME, None, cluster)]), "billing", layer(vec![(ACME, None, namespace)]));
    let scene = Scene::cached(policy);
    let digest = scene.world.image(WEB, "one");
    for key in signers {
        scene.world.sign(key, digest, WEB);
    }
    let decision = scene.decide_in(HERE, WEB).await;
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
async fn what_is_not_pinned_in_one_layer_and_not_signed_in_the_other_is_refused_for_the_latter() {
    let (a, b) = (Key::new("a"), Key::new("b"));
    for (cluster, namespace) in [(&a, &b), (&b, &a)] {
        let layers = [cluster, namespace].map(|key| layer(vec![(ACME, None, signed_by(key))]));
        let [cluster, namespace] = layers;
        let scene = Scene::new(with_namespace(cluster, "billing", namespace));
        let digest = scene.world.image(WEB, "one");
        scene.world.sign(&a, digest, WEB);
        let decision = scene.decide_at(HERE, WEB, true, at(NOW)).await;
        assert_eq!(said(&decision), "untrusted-key", "trying again would not help");
    }
}

#[tokio::test]
async fn a_namespace_layer_holds_for_its_namespace_and_its_scopes() {
    let key = Key::new("a");
    let policy =
        with_namespace(layer(vec![("*", None, allow())]), "billing", layer(vec![(ACME, None, signed_by(&key))]));
    let scene = Scene::new(policy);
    scene.world.image(WEB, "one");
    assert_eq!(said(&scene.decide_in(HERE, WEB).await), "unsigned");
    assert_eq!(said(&scene.decide_in(Some("other"), WEB).await), "allowed_by_rule");
    assert_eq!(said(&scene.decide_in(None, WEB).await), "allowed_by_rule");
    assert_eq!(said(&scene.decide_in(HERE, "nginx").await), "allowed_by_rule");
}

#[tokio::test]
async fn where_the_cluster_has_no_rule_a_namespaces_is_not_enough() {
    let scene = Scene::new(with_namespace(Layer::default(), "billing", layer(vec![(ACME, None, allow())])));
    assert_eq!(said(&scene.decide_in(HERE, WEB).await), "no-policy");
}

#[tokio::test]
async fn what_the_policy_alone_refuses_asks_no_registry_for_the_other_layer() {
    let key = Key::new("a");
    for (cluster, namespace) in [(signed_by(&key), deny()), (deny(), signed_by(&key))] {
        let policy =
            with_namespace(layer(vec![(ACME, None, cluster)]), "billing", layer(vec![(ACME, None, namespace)]));
        let scene = Scene::new(policy);
        assert_eq!(said(&scene.decide_in(HERE, WEB).await), "denied-by-policy");
        assert_eq!(scene.world.asked(), Asked::default());
    }
}

#[tokio::test]
async fn both_layers_share_one_resolution_of_the_tag() {
    let (a, b) = (Key::new("a"), Key::new("b"));
    let policy =
        with_namespace(layer(vec![(ACME, None, signed_by(&a))]), "billing", layer(vec![(ACME, None, signed_by(&b))]));
    let scene = Scene::new(policy);
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&a, digest, WEB);
    scene.world.sign(&b, digest, WEB);
    assert_eq!(said(&scene.decide_in(HERE, WEB).await), "verified");
    assert_eq!(scene.world.asked().manifests, 1);
}

#[tokio::test]
async fn an_exemption_lifts_its_own_layers_refusal_and_no_others() {
    let (a, b) = (Key::new("a"), Key::new("b"));
    let rules = |key: &Key| layer(vec![(ACME, None, signed_by(key))]);
    // The namespace exempts; the cluster refuses all the same.
    let scene = Scene::new(with_namespace(rules(&a), "billing", exempting(rules(&b), ACME, &[])));
    let digest = scene.world.image(WEB, "one");
    assert_eq!(said(&scene.decide_in(HERE, WEB).await), "unsigned");
    scene.world.sign(&a, digest, WEB);
    let decision = scene.decide_in(HERE, WEB).await;
    assert_eq!(said(&decision), "exempted(untrusted-key)");
    assert_eq!(pinned(&decision), format!("{WEB}@{digest}"), "the cluster's layer verified it");
    // And the other way round.
    let scene = Scene::new(with_namespace(exempting(rules(&a), ACME, &[]), "billing", rules(&b)));
    let digest = scene.world.image(WEB, "one");
    assert_eq!(said(&scene.decide_in(HERE, WEB).await), "unsigned");
    scene.world.sign(&b, digest, WEB);
    assert_eq!(said(&scene.decide_in(HERE, WEB).await), "exempted(untrusted-key)");
}

#[tokio::test]
async fn what_is_not_enforced_is_seen_although_another_layer_proves_something() {
    let (a, b) = (Key::new("a"), Key::new("b"));
    let policy = with_namespace(
        layer(vec![(ACME, None, signed_by(&a))]),
        "billing",
        layer(vec![(ACME, Some(Mode::Warn), signed_by(&b))]),
    );
    let scene = Scene::new(policy);
    let digest = scene.world.image(WEB, "one");
    scene.world.sign(&a, digest, WEB);
    let decision = scene.decide_in(HERE, WEB).await;
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
    let scene = Scene::new(policy);
    scene.world.registry_fails(Some(unavailable()));
    assert_eq!(said(&scene.decide_in(HERE, WEB).await), "registry-unavailable");
    let other = format!("registry.example.com/acme/web@{}", Digest::sha256(b"other"));
    assert_eq!(said(&scene.decide_in(HERE, &other).await), "denied-by-policy");
}

/// The scope of one digest of [`WEB`]'s repository.
fn of(digest: Digest) -> String {
    format!("registry.example.com/acme/web@{digest}")
}

#[tokio::test]
async fn a_tag_that_no_rule_of_a_namespace_is_about_is_pinned_before_it_can_move_to_a_digest_that_one_denies() {
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
        let scene = Scene::new(policy);
        let good = scene.world.image(WEB, "good");
        let mutation = scene.decide_in(HERE, WEB).await;
        assert_eq!(said(&mutation), "allowed_by_rule");
        assert_eq!(pinned(&mutation), format!("{WEB}@{good}"));
        let validation = scene.decide_run_in(HERE, WEB).await;
        assert_eq!(said(&validation), unpinned);
        let text = format!("{:?}", validation.verdict);
        assert!(text.contains(&format!("test/{scope}")), "it names the rule that may refuse: {text}");
        assert_eq!(said(&scene.decide_run_in(HERE, &pinned(&mutation)).await), "allowed_by_rule");
        assert_eq!(said(&scene.decide_run(WEB).await), "allowed_by_rule", "elsewhere it needs no pin");
        scene.world.image(WEB, "bad");
        let refused = if mode.is_none() { "denied-by-policy" } else { "not_enforced(denied-by-policy)" };
        assert_eq!(said(&scene.decide_run_in(HERE, WEB).await), refused);
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
    let scene = Scene::new(policy);
    scene.world.image(WEB, "good");
    assert_eq!(said(&scene.decide_run_in(HERE, WEB).await), "allowed_by_rule");
}

#[tokio::test]
async fn what_is_not_enforced_for_a_tags_digest_does_not_open_a_way_around_what_is_for_the_next() {
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
        let scene = Scene::new(cluster(layer(rules)));
        let digest = scene.world.image(WEB, "good");
        let mutation = scene.decide(WEB).await;
        assert_eq!(said(&mutation), mutated);
        let validation = scene.decide_run(WEB).await;
        assert_eq!(said(&validation), validated);
        let expected = if validated == "not-pinned" { format!("{WEB}@{digest}") } else { String::new() };
        assert_eq!(pinned(&mutation), expected);
        assert_eq!(said(&scene.decide_run(&format!("{WEB}@{digest}")).await), mutated);
    }
}

#[tokio::test]
async fn where_a_tag_may_fall_under_no_rule_and_cannot_be_resolved_the_configurations_mode_counts_too() {
    let good = of(Digest::sha256(b"good"));
    let scene = Scene::new(cluster(layer(vec![(good.as_str(), Some(Mode::Warn), allow())])));
    scene.world.registry_fails(Some(unavailable()));
    assert_eq!(said(&scene.decide(WEB).await), "registry-unavailable");
}

/// A rule, without its keys: those are of the layer.
#[derive(Clone, Copy, Debug)]
enum Says {
    Require,
    Allow,
    Deny,
}

type Rules = Vec<(usize, Option<Mode>, Says)>;

const SCOPES: [&str; 5] = ["*", "registry.example.com", ACME, "registry.example.com/acme/web", "DIGEST"];

fn rules() -> impl Strategy<Value = Rules> {
    let mode = prop_oneof![Just(None), Just(Some(Mode::Enforce)), Just(Some(Mode::Warn)), Just(Some(Mode::Audit))];
    let says = prop_oneof![Just(Says::Require), Just(Says::Allow), Just(Says::Deny)];
    proptest::collection::vec((0..SCOPES.len(), mode, says), 0..5)
}

fn build(rules: &Rules, key: &Key, digest: Digest, exempt: bool) -> Layer {
    let scope = format!("registry.example.com/acme/web@{digest}");
    let mut seen = std::collections::HashSet::new();
    let rules = rules.iter().filter(|(place, ..)| seen.insert(*place)).map(|(place, mode, says)| {
        let action = match says {
            Says::Require => signed_by(key),
            Says::Allow => allow(),
            Says::Deny => deny(),
        };
        (if SCOPES[*place] == "DIGEST" { scope.as_str() } else { SCOPES[*place] }, *mode, action)
    });
    let layer = layer(rules.collect());
    if exempt { exempting(layer, ACME, &[]) } else { layer }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_namespace_layer_never_lets_run_what_the_clusters_refuses(
        cluster_rules in rules(),
        namespace_rules in rules(),
        signed_for_cluster: bool,
        signed_for_namespace: bool,
        exempt: bool,
        runs: bool,
        by_digest: bool,
        down: bool,
    ) {
        static KEYS: std::sync::LazyLock<(Key, Key)> = std::sync::LazyLock::new(|| (Key::new("a"), Key::new("b")));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (a, b) = &*KEYS;
            let digest = Digest::sha256(b"one");
            let cluster_layer = build(&cluster_rules, a, digest, false);
            let namespace_layer = build(&namespace_rules, b, digest, exempt);
            let alone = Scene::cached(cluster(cluster_layer.clone()));
            let both = Scene::cached(with_namespace(cluster_layer, "billing", namespace_layer));
            let text = if by_digest { format!("{WEB}@{digest}") } else { WEB.to_owned() };
            let mut decisions = Vec::new();
            for scene in [alone, both] {
                assert_eq!(scene.world.image(WEB, "one"), digest);
                for (signed, key) in [(signed_for_cluster, a), (signed_for_namespace, b)] {
                    if signed {
                        scene.world.sign(key, digest, WEB);
                    }
                }
                if down {
                    scene.world.registry_fails(Some(unavailable()));
                }
                decisions.push(scene.decide_at(HERE, &text, runs, at(NOW)).await);
            }
            if decisions[0].verdict.is_err() {
                assert!(decisions[1].verdict.is_err(), "{decisions:?}");
            }
            // What both prove says so only if the cluster's layer proves it, or asks for no proof.
            if let Ok(Verdict::Verified(_)) = decisions[1].verdict {
                assert!(matches!(decisions[0].verdict, Ok(Verdict::Verified(_) | Verdict::AllowedByRule { .. })));
            }
        });
    }
}
