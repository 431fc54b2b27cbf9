//! Rules for single digests: a manifest has one of each algorithm, and falls under the rules of both.

use proptest::prelude::*;

use super::*;

const WEB_REPOSITORY: &str = "registry.example.com/acme/web";
const HERE: Option<&str> = Some("billing");

fn sha256(content: &str) -> String {
    format!("{WEB_REPOSITORY}@{}", Digest::sha256(content.as_bytes()))
}

fn sha512_name(content: &str) -> String {
    format!("{WEB_REPOSITORY}@{}", sha512(content))
}

fn scenario(policy: Policy) -> Scenario {
    let scenario = Scenario::cached(policy);
    scenario.registry.image(WEB, "one");
    scenario
}

#[tokio::test]
async fn a_digest_that_is_denied_is_denied_by_each_name_of_its_manifest() {
    let (short, long) = (sha256("one"), sha512_name("one"));
    let (other, other_long) = (sha256("other"), sha512_name("other"));
    for (scope, image, expected) in [
        (&*short, &*long, "denied-by-policy"),
        (&short, &short, "denied-by-policy"),
        (&short, WEB, "denied-by-policy"),
        (&long, &short, "denied-by-policy"),
        (&long, &long, "denied-by-policy"),
        (&long, WEB, "denied-by-policy"),
        (&other, &long, "allowed_by_rule"),
        (&other_long, &short, "allowed_by_rule"),
        (&other_long, WEB, "allowed_by_rule"),
    ] {
        let rules = vec![(WEB_REPOSITORY, None, allow()), (scope, None, deny())];
        let in_cluster = scenario(cluster(layer(rules)));
        let everything = layer(vec![(WEB_REPOSITORY, None, allow())]);
        let in_namespace = scenario(with_namespace(everything, "billing", layer(vec![(scope, None, deny())])));
        for scenario in [in_cluster, in_namespace] {
            let decision = scenario.decide_in(HERE, image).await;
            assert_eq!(said(&decision), expected, "{scope} {image}");
            if expected == "denied-by-policy" {
                assert_eq!(decision.rule.unwrap().as_str(), format!("test/{scope}"));
            }
        }
    }
}

#[tokio::test]
async fn signatures_that_one_name_of_a_manifest_requires_are_required_of_each() {
    let key = Key::new("a");
    for (scope, image) in [(sha256("one"), sha512_name("one")), (sha512_name("one"), sha256("one"))] {
        let rules = || layer(vec![(WEB_REPOSITORY, None, allow()), (&*scope, None, signed_by(&key))]);
        let scenario = scenario(cluster(rules()));
        assert_eq!(said(&scenario.decide(&image).await), "unsigned");
        // By the tag as well.
        let tagged = Scenario::cached(cluster(rules()));
        tagged.registry.image(WEB, "one");
        assert_eq!(said(&tagged.decide(WEB).await), "unsigned");
        tagged.registry.sign(&key, Digest::sha256(b"one"), WEB);
        let signed = Scenario::cached(cluster(rules()));
        let digest = signed.registry.image(WEB, "one");
        signed.registry.sign(&key, digest, WEB);
        let decision = signed.decide(WEB).await;
        assert_eq!(said(&decision), "verified", "{scope}");
        assert_eq!(pinned(&decision), format!("{WEB}@{digest}"));
    }
}

#[tokio::test]
async fn an_unreadable_manifest_is_refused_where_its_other_digest_may_be_denied() {
    let (short, other) = (sha256("one"), sha512_name("other"));
    let long = sha512_name("one");
    for (scope, mode, action, image, expected) in [
        (&*short, None, deny(), &*long, "registry-unavailable"),
        (&short, Some(Mode::Audit), deny(), &long, "not_enforced(registry-unavailable)"),
        (&other, None, deny(), &short, "registry-unavailable"),
        // Nothing of what may be learned would refuse it.
        (&short, None, allow(), &long, "allowed_by_rule"),
        // Of one algorithm, other digests are other manifests.
        (&other, None, deny(), &long, "allowed_by_rule"),
    ] {
        let scenario = scenario(cluster(layer(vec![(WEB_REPOSITORY, None, allow()), (scope, mode, action)])));
        scenario.registry.registry_fails(Some(unavailable()));
        let decision = scenario.decide(image).await;
        assert_eq!(said(&decision), expected, "{scope} {mode:?} {image}");
        assert_eq!(scenario.registry.asked().manifests > 0, expected != "allowed_by_rule");
    }
}

#[tokio::test]
async fn a_manifest_that_was_not_asked_for_says_nothing_of_its_digests() {
    let policy = || cluster(layer(vec![(WEB_REPOSITORY, None, allow()), (&*sha256("one"), None, deny())]));
    for scenario in [Scenario::new(policy()), Scenario::cached(policy())] {
        scenario.registry.image(WEB, "one");
        let lie = scenario.registry.image("registry.example.com/acme/web:2", "two");
        scenario.registry.lies(lie);
        assert_eq!(said(&scenario.decide(&sha512_name("one")).await), "registry-misbehaved");
    }
}

#[tokio::test]
async fn policy_json_compares_a_digest_with_the_name_as_it_was_asked_for() {
    let rules = || policy_json(vec![(WEB_REPOSITORY, None, allow()), (&*sha256("one"), None, deny())]);
    assert_eq!(said(&scenario(cluster(rules())).decide(&sha512_name("one")).await), "allowed_by_rule");
    assert_eq!(said(&scenario(cluster(rules())).decide(&sha256("one")).await), "denied-by-policy");
}

type Outline = Vec<(usize, Option<Mode>, u8)>;

fn outline() -> impl Strategy<Value = Outline> {
    let mode = prop::option::of(prop::sample::select(vec![Mode::Enforce, Mode::Warn, Mode::Audit]));
    prop::collection::vec((0usize..5, mode, 0u8..3), 0..5)
}

/// A layer of the outline's rules; without those whose scope `leave_out` names.
fn build(outline: &Outline, key: &Key, leave_out: impl Fn(&str) -> bool) -> Layer {
    let scopes = [WEB_REPOSITORY.to_owned(), sha256("one"), sha512_name("one"), sha256("other"), sha512_name("other")];
    let mut seen = std::collections::HashSet::new();
    let rules = outline.iter().filter(|(place, ..)| seen.insert(*place) && !leave_out(&scopes[*place]));
    let action = |says: u8| match says {
        0 => allow(),
        1 => deny(),
        _ => signed_by(key),
    };
    layer(rules.map(|(place, mode, says)| (&*scopes[*place], *mode, action(*says))).collect())
}

/// Returns whether the outline enforces a denial of this scope.
fn denies(outline: &Outline, place: usize) -> bool {
    let rule = outline.iter().find(|(of, ..)| *of == place);
    rule.is_some_and(|(_, mode, says)| *says == 1 && matches!(mode, None | Some(Mode::Enforce)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// A rule for another digest of the same manifest only ever refuses more; and a denial holds by whichever name.
    #[test]
    fn the_other_name_of_a_manifest_never_loosens_anything(
        cluster_outline in outline(),
        namespace_outline in outline(),
        by_sha512: bool,
        signed: bool,
        runs: bool,
        down: bool,
    ) {
        static KEY: std::sync::LazyLock<Key> = std::sync::LazyLock::new(|| Key::new("a"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (own, other) = if by_sha512 { ("sha512", "@sha256") } else { ("sha256", "@sha512") };
            let all = |_: &str| false;
            let without_other = |scope: &str| scope.contains(other);
            let policy = |leave_out: &dyn Fn(&str) -> bool| {
                let namespace = build(&namespace_outline, &KEY, leave_out);
                with_namespace(build(&cluster_outline, &KEY, leave_out), "billing", namespace)
            };
            let (both, alone) = (scenario(policy(&all)), scenario(policy(&without_other)));
            for scenario in [&both, &alone] {
                if signed {
                    scenario.registry.sign(&KEY, Digest::sha256(b"one"), WEB);
                    scenario.registry.sign(&KEY, sha512("one"), WEB);
                }
                if down {
                    scenario.registry.registry_fails(Some(unavailable()));
                }
            }
            let image = if by_sha512 { sha512_name("one") } else { sha256("one") };
            let by_both = both.decide_at(HERE, &image, runs, at(NOW)).await;
            let by_own = alone.decide_at(HERE, &image, runs, at(NOW)).await;
            if by_own.verdict.is_err() {
                assert!(by_both.verdict.is_err(), "by {own}: {by_own:?} {by_both:?}");
            }
            let denied = [&cluster_outline, &namespace_outline].iter().any(|outline| denies(outline, 1) || denies(outline, 2));
            for image in [sha256("one"), sha512_name("one"), WEB.to_owned()] {
                let decision = both.decide_at(HERE, &image, runs, at(NOW)).await;
                assert!(!denied || decision.verdict.is_err(), "{image}: {decision:?}");
            }
        });
    }
}
