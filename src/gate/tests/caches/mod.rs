//! The caches: entries, their lifetimes, and answers that are never kept.

mod callers;
mod last_known_good;
mod late_sources;
mod lifetimes;
mod verdicts;

use super::*;

const ACME: &str = "registry.example.com/acme";

fn cached() -> (Scenario, Key) {
    cached_with(|_| {})
}

fn cached_with(choose: impl FnOnce(&mut Choices)) -> (Scenario, Key) {
    let key = Key::new("acme");
    let policy = cluster(layer(vec![(ACME, None, signed_by(&key))]));
    let scenario = Scenario::with(policy, |choices| {
        choices.times = Some(TIMES);
        choose(choices);
    });
    (scenario, key)
}

fn asked(manifests: usize, signatures: usize) -> RequestCounts {
    RequestCounts { manifests, signatures }
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test]
async fn metrics_tell_hits_and_entries_of_each_cache() {
    let (scenario, key) = cached();
    let digest = scenario.registry.image(WEB, "one");
    scenario.registry.sign(&key, digest, WEB);
    scenario.decide(WEB).await;
    scenario.decide(WEB).await;
    let metrics = scenario.metrics();
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
