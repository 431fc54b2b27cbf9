//! The budgets of verification, of a question and of a review.

use super::*;
use crate::refusal::refusal_of_index;

const ACME: &str = "registry.example.com/acme";
const GOOD: &str = "registry.example.com/acme/good:1";

/// With a hundred forgeries beside the good signature of each of these digests.
fn forged(key: &Key, registry: &FakeRegistry, digests: &[Digest]) {
    for digest in digests {
        registry.forge(key, *digest, WEB, 100);
        registry.sign(key, *digest, WEB);
    }
}

#[tokio::test]
async fn what_a_review_spent_is_no_other_reviews_matter_and_nothing_of_it_is_kept() {
    let key = Key::new("acme");
    for review in [5_000, 1_000_000] {
        let scenario = Scenario::with(cluster(layer(vec![(ACME, None, signed_by(&key))])), |choices| {
            choices.times = Some(TIMES);
            choices.settings.signatures_per_image = 256;
            choices.settings.budgets.review = review;
        });
        let dear = scenario.registry.image(WEB, "dear");
        forged(&key, &scenario.registry, &[dear]);
        let good = scenario.registry.image(GOOD, "good");
        scenario.registry.sign(&key, good, GOOD);
        let expected = if review == 5_000 { "overloaded" } else { "verified" };
        for _ in 0..2 {
            let decision = scenario.decide(WEB).await;
            assert_eq!(said(&decision), expected, "of {review}");
        }
        let entries = format!(r#"sealgate_cache_entries{{cache="verdict"}} {}"#, u8::from(review != 5_000));
        assert!(expected == "overloaded" || scenario.metrics().contains(&entries), "{}", scenario.metrics());
        assert!(expected == "verified" || !scenario.metrics().contains(r#"sealgate_cache_entries{cache="verdict"} 1"#));
        assert_eq!(said(&scenario.decide(GOOD).await), "verified", "a review of its own has a budget of its own");
    }
}

#[tokio::test]
async fn images_of_one_review_share_its_budget() {
    let key = Key::new("acme");
    let scenario = Scenario::with(cluster(layer(vec![(ACME, None, signed_by(&key))])), |choices| {
        choices.settings.signatures_per_image = 256;
        // More than one of them costs.
        choices.settings.budgets.review = 50_000;
    });
    let texts: Vec<_> = (0..8).map(|number| format!("registry.example.com/acme/web:{number}")).collect();
    for text in &texts {
        let digest = scenario.registry.image(text, text);
        scenario.registry.forge(&key, digest, text, 100);
        scenario.registry.sign(&key, digest, text);
    }
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let all: Vec<_> = scenario.decide_all(&texts).await.iter().map(said).collect();
    assert!(all.iter().any(|said| said == "overloaded"), "{all:?}");
    assert!(all.iter().all(|said| said == "overloaded" || said == "verified"), "{all:?}");
    for text in texts {
        assert_eq!(said(&scenario.decide(text).await), "verified");
    }
}

#[tokio::test]
async fn all_manifests_of_an_index_share_the_budget_of_their_question() {
    let key = Key::new("acme");
    // Between what two manifests cost and what three do: about 37,000 each.
    for (manifests, expected) in [(2, "verified"), (3, "too-many-signatures"), (6, "too-many-signatures")] {
        let scenario = Scenario::with(cluster(layer(vec![(ACME, None, signed(&key, Platforms::Each))])), |choices| {
            choices.times = Some(TIMES);
            choices.settings.signatures_per_image = 256;
            choices.settings.budgets.question = 90_000;
        });
        let digests: Vec<_> =
            (0..manifests).map(|number| scenario.registry.untagged(&format!("entry {number}"))).collect();
        forged(&key, &scenario.registry, &digests);
        let entries = digests.iter().map(|digest| entry(*digest, "linux/amd64")).collect();
        scenario.registry.manifest(WEB, "index", Manifest::Index(entries));
        assert_eq!(said(&scenario.decide(WEB).await), expected, "{manifests} manifests");
        let asked = scenario.registry.asked();
        assert_eq!(said(&scenario.decide(WEB).await), expected, "and that is kept, whoever asks");
        assert_eq!(scenario.registry.asked(), asked);
    }
}

#[test]
fn of_an_index_for_which_the_review_had_too_little_left_nothing_is_said_for_good() {
    let definite =
        || Refusal::DeniedByPolicy { rule: RuleId::new("test", "rule"), reason: "a signature says no".into() };
    for (own, each) in [(definite(), Refusal::ReviewTooCostly), (Refusal::ReviewTooCostly, definite())] {
        for some_are_proven in [false, true] {
            let shown = refusal_of_index(own.clone(), each.clone(), some_are_proven);
            assert!(matches!(shown, Refusal::ReviewTooCostly), "{own} {each}: {shown}");
        }
    }
}
