//! Image indexes: which signatures count, and what is never left out.

use super::*;

const ACME: &str = "registry.example.com/acme";

struct Index {
    scenario: Scenario,
    key: Key,
    digest: Digest,
    entries: [Digest; 2],
}

/// An index of two platforms and an attestation.
fn index(platforms: Platforms, caching: bool) -> Index {
    index_under(platforms, caching, layer)
}

type MakeLayer = fn(Vec<(&str, Option<Mode>, Action)>) -> Layer;

fn index_under(platforms: Platforms, caching: bool, make: MakeLayer) -> Index {
    let key = Key::new("acme");
    let policy = cluster(make(vec![(ACME, None, signed(&key, platforms))]));
    let scenario = if caching { Scenario::cached(policy) } else { Scenario::new(policy) };
    let entries = [scenario.registry.untagged("amd64"), scenario.registry.untagged("arm64")];
    let about = scenario.registry.untagged("attestation");
    let list = vec![entry(entries[0], "linux/amd64"), entry(entries[1], "linux/arm64"), attestation(about)];
    let digest = scenario.registry.manifest(WEB, "index", Manifest::Index(list));
    Index { scenario, key, digest, entries }
}

impl Index {
    fn sign(&self, digest: Digest) -> &Self {
        self.scenario.registry.sign(&self.key, digest, WEB);
        self
    }

    fn sign_each(&self) -> &Self {
        self.sign(self.entries[0]).sign(self.entries[1])
    }

    async fn said(&self) -> String {
        said(&self.scenario.decide(WEB).await)
    }
}

#[tokio::test]
async fn a_refused_index_names_the_manifest_that_is_short_of_a_signature() {
    for platforms in [Platforms::IndexOrEach, Platforms::Each] {
        let case = index(platforms, false);
        case.sign(case.entries[0]);
        let refusal = case.scenario.decide(WEB).await.verdict.unwrap_err();
        assert!(
            matches!(&refusal, Refusal::Unsigned(wanted) if wanted.manifest.as_deref() == Some(&case.entries[1])),
            "{refusal}"
        );
    }
    let bare = index(Platforms::IndexOrEach, false);
    let refusal = bare.scenario.decide(WEB).await.verdict.unwrap_err();
    assert!(matches!(&refusal, Refusal::Unsigned(wanted) if wanted.manifest.is_none()), "{refusal}");
}

#[tokio::test]
async fn an_index_is_proven_by_its_own_signature_or_by_that_of_each_manifest() {
    for (platforms, own, each) in [
        (Platforms::IndexOrEach, "verified", "verified"),
        (Platforms::Index, "verified", "unsigned"),
        (Platforms::Each, "unsigned", "verified"),
    ] {
        for caching in [false, true] {
            let index_signed = index(platforms, caching);
            index_signed.sign(index_signed.digest);
            assert_eq!(index_signed.said().await, own, "{platforms:?}");
            let each_signed = index(platforms, caching);
            each_signed.sign_each();
            assert_eq!(each_signed.said().await, each, "{platforms:?}");
            if each == "verified" {
                let decision = each_signed.scenario.decide(WEB).await;
                let pin = format!("{WEB}@{}", each_signed.digest);
                assert_eq!(pinned(&decision), pin, "the index, of which each node takes what it runs");
            }
        }
    }
}

#[tokio::test]
async fn for_policy_json_it_is_each_whatever_stands_there() {
    let case = index_under(Platforms::Index, false, policy_json);
    case.sign(case.digest);
    assert_eq!(case.said().await, "unsigned");
    case.sign_each();
    assert_eq!(case.said().await, "verified");
}

#[tokio::test]
async fn each_means_every_one() {
    let case = index(Platforms::IndexOrEach, false);
    case.sign(case.entries[1]);
    assert_eq!(case.said().await, "unsigned");
    let case = index(Platforms::IndexOrEach, false);
    case.sign(case.entries[0]);
    assert_eq!(case.said().await, "unsigned");
}

#[tokio::test]
async fn the_identity_of_an_entry_is_compared_with_what_was_asked_for() {
    let case = index(Platforms::Each, false);
    case.sign(case.entries[0]);
    case.scenario.registry.sign(&case.key, case.entries[1], "registry.example.com/acme/web:2");
    assert_eq!(case.said().await, "wrong-identity");
    let by_digest = format!("registry.example.com/acme/web@{}", case.digest);
    assert_eq!(said(&case.scenario.decide(&by_digest).await), "verified", "by digest, any tag of the repository");
}

#[tokio::test]
async fn a_signature_of_another_entry_is_none() {
    let case = index(Platforms::Each, false);
    case.sign(case.entries[0]);
    let content = case.key.sign(&payload(WEB, &case.entries[0].to_string()), at(SIGNED_AT));
    case.scenario.registry.state().signatures.insert(case.entries[1], vec![untrusted(content)]);
    assert_eq!(case.said().await, "wrong-digest");
}

#[tokio::test]
async fn an_entry_that_only_looks_like_an_attestation_is_not_left_out() {
    let case = index(Platforms::Each, false);
    case.sign_each();
    let other = case.scenario.registry.untagged("other");
    let list = vec![entry(case.entries[0], "linux/amd64"), entry(other, "unknown/unknown")];
    case.scenario.registry.manifest(WEB, "index 2", Manifest::Index(list));
    assert_eq!(case.said().await, "unsigned");
}

#[tokio::test]
async fn an_index_without_images_is_proven_by_nothing_but_its_own_signature() {
    for list in [vec![], vec![attestation(Digest::sha256(b"attestation"))]] {
        let case = index(Platforms::Each, false);
        case.scenario.registry.manifest(WEB, "empty", Manifest::Index(list));
        assert_ne!(case.said().await, "verified");
    }
}

#[tokio::test]
async fn a_manifest_that_the_registry_does_not_have_is_not_left_out() {
    let case = index(Platforms::Each, false);
    case.sign_each();
    case.scenario.registry.forget(case.entries[1]);
    assert_eq!(case.said().await, "manifest-unknown");
}

#[tokio::test]
async fn nested_indexes_count_down_to_the_last_image() {
    let case = index(Platforms::Each, false);
    case.sign_each();
    let outer = vec![entry(case.entries[0], "linux/amd64"), entry(case.digest, "linux/arm64")];
    case.scenario.registry.manifest(WEB, "outer", Manifest::Index(outer.clone()));
    assert_eq!(case.said().await, "verified");
    case.scenario.registry.unsign(case.entries[1]);
    assert_eq!(case.said().await, "unsigned");
    // With `platforms: index or each`, a nested index may be signed itself.
    let case = index(Platforms::IndexOrEach, false);
    case.scenario.registry.manifest(WEB, "outer", Manifest::Index(outer));
    case.sign(case.entries[0]);
    assert_eq!(case.said().await, "unsigned");
    case.sign(case.digest);
    assert_eq!(case.said().await, "verified");
}

#[tokio::test]
async fn depth_and_number_are_bounded() {
    let case = index(Platforms::Each, false);
    case.sign_each();
    let mut inner = case.digest;
    for depth in 1..=3 {
        let list = vec![entry(inner, "linux/amd64")];
        inner = case.scenario.registry.manifest(WEB, &format!("outer {depth}"), Manifest::Index(list));
        assert_eq!(case.said().await, if depth < 3 { "verified" } else { "unsupported-manifest" });
    }
    let many: Vec<_> = (0..129_u32).map(|number| entry(Digest::sha256(&number.to_be_bytes()), "linux/amd64")).collect();
    case.scenario.registry.manifest(WEB, "many", Manifest::Index(many));
    let before = case.scenario.registry.asked();
    assert_eq!(case.said().await, "unsupported-manifest");
    assert_eq!(case.scenario.registry.asked().manifests, before.manifests + 1, "none of them is asked for");
    // So many are looked at. That the second one is missing shows that it was.
    let most: Vec<_> = (0..127_u32).map(|number| entry(Digest::sha256(&number.to_be_bytes()), "linux/amd64")).collect();
    let inner = case.digest;
    let with_first = |first: Digest| {
        let mut list = vec![entry(first, "linux/amd64")];
        list.extend(most.iter().cloned());
        Manifest::Index(list)
    };
    case.scenario.registry.manifest(WEB, "most", with_first(case.entries[0]));
    assert_eq!(case.said().await, "manifest-unknown");
    // Those of a nested index count, too.
    case.scenario.registry.manifest(WEB, "most and nested", with_first(inner));
    assert_eq!(case.said().await, "unsupported-manifest");
}

#[tokio::test]
async fn an_entry_that_stands_there_twice_is_asked_for_once() {
    let case = index(Platforms::Each, false);
    case.sign_each();
    let list = vec![entry(case.entries[0], "linux/amd64"), entry(case.entries[0], "linux/amd64/v2")];
    case.scenario.registry.manifest(WEB, "twice", Manifest::Index(list));
    assert_eq!(case.said().await, "verified");
    assert_eq!(case.scenario.registry.asked(), RequestCounts { manifests: 2, signatures: 1 });
}

#[tokio::test]
async fn an_index_that_is_not_signed_at_all_costs_its_own_requests_and_one_entrys() {
    let case = index(Platforms::IndexOrEach, false);
    assert_eq!(case.said().await, "unsigned");
    assert_eq!(case.scenario.registry.asked(), RequestCounts { manifests: 2, signatures: 2 });
    case.sign(case.digest);
    assert_eq!(case.said().await, "verified");
    assert_eq!(case.scenario.registry.asked(), RequestCounts { manifests: 3, signatures: 3 });
}

#[tokio::test]
async fn of_two_refusals_the_one_is_shown_that_says_more() {
    let case = index(Platforms::IndexOrEach, false);
    case.scenario.registry.sign(&Key::new("other"), case.entries[0], WEB);
    assert_eq!(case.said().await, "untrusted-key", "and not that the index is unsigned");
    case.scenario.registry.source_fails(Some(unavailable()));
    assert_eq!(case.said().await, "registry-unavailable");
    case.sign_each();
    assert_eq!(case.said().await, "verified", "whatever fails beside");
}

#[tokio::test]
async fn an_index_seen_again_asks_nothing() {
    let case = index(Platforms::Each, true);
    case.sign_each();
    assert_eq!(case.said().await, "verified");
    let asked = case.scenario.registry.asked();
    assert_eq!(asked, RequestCounts { manifests: 3, signatures: 2 });
    assert_eq!(case.said().await, "verified");
    assert_eq!(said(&case.scenario.decide_run(&format!("{WEB}@{}", case.digest)).await), "verified");
    assert_eq!(case.scenario.registry.asked(), asked);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_about_an_index_ends_with_the_first_of_its_lists() {
    let case = index(Platforms::Each, true);
    case.sign_each();
    for (place, older) in case.entries.into_iter().enumerate() {
        // The time of the lists of everything else is over by then.
        tokio::time::advance(TIMES.signatures).await;
        let alone = format!("registry.example.com/acme/web@{older}");
        assert_eq!(said(&case.scenario.decide_run(&alone).await), "verified");
        tokio::time::advance(Duration::from_mins(5)).await;
        assert_eq!(case.said().await, "verified");
        case.scenario.registry.unsign(older);
        tokio::time::advance(Duration::from_secs(299)).await;
        assert_eq!(case.said().await, "verified", "{place}");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(case.said().await, "unsigned", "{place}");
        case.sign(older);
    }
}
