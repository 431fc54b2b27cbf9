//! The gate as `sealgate serve` puts it together, with a real registry, and signatures by gpg in a lookaside folder.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sealgate::{
    files::{PolicyFiles, load_configuration},
    gate::{Admission, CurrentPolicy, Decision, Gate, ImageUse},
    image::Digest,
    startup::engine,
    telemetry::Metrics,
};
use tokio::time::Instant;

use super::{
    registry::logged,
    support::{DockerRegistry, Gpg, Scratch},
};

struct Scenario {
    registry: DockerRegistry,
    gpg: Gpg,
    key: String,
    folder: Scratch,
    policy: Arc<CurrentPolicy>,
    gate: Gate,
}

impl Scenario {
    fn new() -> Self {
        let (registry, gpg, folder) = (DockerRegistry::start(), Gpg::new(), Scratch::new());
        let key = gpg.generate("acme");
        folder.write("policies/acme.asc", gpg.export(&key));
        let host = registry.host().to_owned();
        let lookaside = format!("file://{}", folder.path().join("signatures").display());
        let configuration = folder.write(
            "sealgate.yaml",
            format!(
                "apiVersion: sealgate.dev/v1\nkind: Configuration\npolicies: policies\nregistries:\n- scope: \"{host}\"\n  \
                 insecure: true\n  signatures:\n  - lookaside: {{url: \"{lookaside}\"}}\n"
            ),
        );
        let configuration = load_configuration(&configuration).expect("the configuration is good");
        folder.write("policies/policy.yaml", policy(&host, "acme.asc"));
        let policy = Arc::new(CurrentPolicy::new(load(&folder)));
        let gate = engine(&configuration, Arc::clone(&policy), None, Arc::new(Metrics::new())).expect("an engine");
        Self { registry, gpg, key, folder, policy, gate }
    }

    /// Signs as skopeo does, and lays the signature where a lookaside has it.
    fn sign(&self, key: &str, digest: &Digest, reference: &str) {
        let signature = self.gpg.sign_image(key, digest, reference);
        let repository = reference.split_once('/').expect("a host").1.split(':').next().expect("a name");
        let hex = digest.hex();
        self.folder.write(&format!("signatures/{repository}@sha256={hex}/signature-1"), signature);
    }

    async fn decide(&self, text: &str) -> Decision {
        let images = [ImageUse { text, runs_as_written: false }];
        let (now, deadline) = (Timestamp::now(), Instant::now() + Duration::from_mins(1));
        let admission = Admission { namespace: None, images: &images, now, deadline, is_final: true };
        self.gate.decide(&admission).await.expect("one image is not too many").remove(0)
    }
}

fn policy(host: &str, key: &str) -> String {
    format!(
        "apiVersion: sealgate.dev/v1\nkind: ClusterSealPolicy\nmetadata:\n  name: test\nspec:\n  keys:\n    acme: {{file: \
         {key}}}\n  rules:\n  - name: acme\n    images: [\"{host}/acme\"]\n    require:\n    - signedBy: [acme]\n"
    )
}

fn load(folder: &Scratch) -> sealgate::policy::Policy {
    let path = folder.path().join("policies");
    PolicyFiles { path, accept_anything_by_default: false, pin_required: true }.load().expect("the policy is good")
}

fn said(decision: &Decision) -> String {
    match &decision.verdict {
        Ok(verdict) => verdict.label().to_owned(),
        Err(refusal) => refusal.code().to_string(),
    }
}

#[tokio::test]
async fn a_signature_by_gpg_lets_an_image_of_a_real_registry_in_and_pins_it() {
    let scenario = Scenario::new();
    let image = scenario.registry.push("acme/web", "1", "one").await;
    let reference = format!("{}/acme/web:1", scenario.registry.host());
    scenario.sign(&scenario.key, &image.digest, &reference);
    let decision = scenario.decide(&reference).await;
    assert_eq!(said(&decision), "verified", "{decision:?}");
    assert_eq!(decision.pinned.expect("it is pinned").to_string(), format!("{reference}@{}", image.digest));
    assert_eq!(said(&scenario.decide(&reference).await), "verified");
    assert_eq!(logged(&scenario.registry, "/manifests/", 1), 1, "known");
}

#[tokio::test]
async fn unsigned_by_another_key_and_for_another_name_are_refused_each_with_its_code() {
    let scenario = Scenario::new();
    let host = scenario.registry.host();
    let other = scenario.gpg.generate("other");
    for (name, expected) in [("unsigned", "unsigned"), ("foreign", "untrusted-key"), ("renamed", "wrong-identity")] {
        let image = scenario.registry.push(&format!("acme/{name}"), "1", name).await;
        let reference = format!("{host}/acme/{name}:1");
        match name {
            "foreign" => scenario.sign(&other, &image.digest, &reference),
            "renamed" => {
                let signature = scenario.gpg.sign_image(&scenario.key, &image.digest, &format!("{host}/acme/{name}:2"));
                let hex = image.digest.hex();
                scenario.folder.write(&format!("signatures/acme/{name}@sha256={hex}/signature-1"), signature);
            }
            _ => {}
        }
        assert_eq!(said(&scenario.decide(&reference).await), expected);
    }
}

#[tokio::test]
async fn an_index_is_proven_by_a_signature_for_each_of_its_manifests() {
    let scenario = Scenario::new();
    let amd64 = scenario.registry.push("acme/many", "amd64", "one").await;
    let arm64 = scenario.registry.push("acme/many", "arm64", "two").await;
    let index = scenario.registry.push_index("acme/many", "1", &[(&amd64, "amd64"), (&arm64, "arm64")]).await;
    let reference = format!("{}/acme/many:1", scenario.registry.host());
    scenario.sign(&scenario.key, &amd64.digest, &reference);
    scenario.sign(&scenario.key, &arm64.digest, &reference);
    let decision = scenario.decide(&reference).await;
    assert_eq!(said(&decision), "verified", "{decision:?}");
    assert_eq!(decision.pinned.expect("it is pinned").digest(), Some(&index.digest));
}

#[tokio::test]
async fn a_key_that_left_the_policy_lets_nothing_in_any_more() {
    let scenario = Scenario::new();
    let image = scenario.registry.push("acme/web", "1", "one").await;
    let reference = format!("{}/acme/web:1", scenario.registry.host());
    scenario.sign(&scenario.key, &image.digest, &reference);
    assert_eq!(said(&scenario.decide(&reference).await), "verified");
    let next = scenario.gpg.generate("next");
    scenario.folder.write("policies/acme.asc", scenario.gpg.export(&next));
    scenario.policy.replace(load(&scenario.folder));
    assert_eq!(said(&scenario.decide(&reference).await), "untrusted-key");
}

#[tokio::test]
async fn a_registry_that_is_gone_refuses_what_was_not_known_and_not_what_was() {
    let mut scenario = Scenario::new();
    let image = scenario.registry.push("acme/web", "1", "one").await;
    let reference = format!("{}/acme/web:1", scenario.registry.host());
    scenario.sign(&scenario.key, &image.digest, &reference);
    assert_eq!(said(&scenario.decide(&reference).await), "verified");
    let new = format!("{}/acme/web:2", scenario.registry.host());
    scenario.registry.stop();
    assert_eq!(said(&scenario.decide(&reference).await), "verified");
    assert_eq!(said(&scenario.decide(&new).await), "registry-unavailable");
}
