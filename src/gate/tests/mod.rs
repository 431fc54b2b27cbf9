//! The gate with a registry made up for the test: it can count, hang, fail, lie and change its mind. Signatures are real.

mod caches;
mod costs;
mod decisions;
mod digests;
mod indexes;
mod layers;

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use sequoia_openpgp::types::HashAlgorithm;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::cache::{CacheTimes, CachedResolve, CachedSignatures};
use super::*;
use crate::image::{Descriptor, Digest, HashedManifest, Manifest, Reference, Repository, Scope};
use crate::policy::{
    Action, Dialect, Exemption, Identity, Layer, Mode, Platforms, Policy, Requirement, Requirements, Rule,
};
use crate::refusal::LookupError;
use crate::signature::UntrustedSignature;
use crate::signature::testing::{Key, at, payload, untrusted};
use crate::telemetry::Metrics;
use crate::verification::{AskedSource, FoundSignatures};

pub(super) const NOW: &str = "2026-06-01T12:00:00Z";
const SIGNED_AT: &str = "2026-05-01T12:00:00Z";
pub(super) const WEB: &str = "registry.example.com/acme/web:1";

/// The time that a test waits for what must come, before it fails.
pub(super) const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A registry and its signatures.
pub(super) struct FakeRegistry {
    state: Mutex<State>,
    open: watch::Sender<bool>,
    asked: watch::Sender<RequestCounts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestCounts {
    pub(super) manifests: usize,
    pub(super) signatures: usize,
}

#[derive(Default)]
struct State {
    tags: HashMap<Reference, Digest>,
    manifests: HashMap<Digest, Manifest>,
    /// The digests of the same bytes by the other algorithm.
    other_digests: HashMap<Digest, Digest>,
    signatures: HashMap<Digest, Vec<UntrustedSignature>>,
    registry_down: Option<LookupError>,
    source_down: Option<LookupError>,
    lie: Option<Digest>,
}

pub(super) fn unavailable() -> LookupError {
    LookupError::Unavailable {
        registry: "registry.example.com".into(),
        url: "https://registry.example.com/v2/".into(),
        cause: "connection refused".into(),
        retry_after: None,
    }
}

fn timed_out() -> LookupError {
    let after = Duration::from_secs(1);
    LookupError::TimedOut {
        registry: "registry.example.com".into(),
        url: "https://registry.example.com/".into(),
        after,
    }
}

impl FakeRegistry {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            open: watch::Sender::new(true),
            asked: watch::Sender::new(RequestCounts::default()),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// From here on every request hangs.
    pub(super) fn close(&self) {
        self.open.send_replace(false);
    }

    pub(super) fn open(&self) {
        self.open.send_replace(true);
    }

    pub(super) fn asked(&self) -> RequestCounts {
        *self.asked.borrow()
    }

    /// Waits until so many requests came in.
    pub(super) async fn until_asked(&self, manifests: usize, signatures: usize) {
        let mut asked = self.asked.subscribe();
        let there = |asked: &RequestCounts| asked.manifests >= manifests && asked.signatures >= signatures;
        tokio::time::timeout(TEST_TIMEOUT, asked.wait_for(there)).await.expect("so much is asked").unwrap();
    }

    /// Makes an image, and lets the tag point to it.
    pub(super) fn image(&self, tag: &str, content: &str) -> Digest {
        self.manifest(tag, content, Manifest::Image)
    }

    pub(super) fn manifest(&self, tag: &str, content: &str, manifest: Manifest) -> Digest {
        let digest = Digest::sha256(content.as_bytes());
        let mut state = self.state();
        state.tags.insert(Reference::for_image(tag).unwrap(), digest);
        state.manifests.insert(digest, manifest.clone());
        let other = sha512(content);
        state.manifests.insert(other, manifest);
        state.other_digests.extend([(digest, other), (other, digest)]);
        digest
    }

    /// Makes an image that no tag points to.
    pub(super) fn untagged(&self, content: &str) -> Digest {
        let digest = Digest::sha256(content.as_bytes());
        self.state().manifests.insert(digest, Manifest::Image);
        digest
    }

    pub(super) fn forget(&self, digest: Digest) {
        self.state().manifests.remove(&digest);
    }

    pub(super) fn sign(&self, key: &Key, digest: Digest, reference: &str) {
        self.sign_at(key, digest, reference, SIGNED_AT);
    }

    pub(super) fn sign_at(&self, key: &Key, digest: Digest, reference: &str, when: &str) {
        let content = key.sign(&payload(reference, &digest.to_string()), at(when));
        self.state().signatures.entry(digest).or_default().push(untrusted(content));
    }

    /// Adds signatures that are whole but for the signature itself.
    pub(super) fn forge(&self, key: &Key, digest: Digest, reference: &str, count: u8) {
        let payload = payload(reference, &digest.to_string());
        let plain = key.sign_with(&payload, at(SIGNED_AT), HashAlgorithm::SHA256, None, |builder| builder);
        let forged = (1..=count).map(|number| {
            let mut message = plain.clone();
            *message.last_mut().unwrap() ^= number;
            untrusted(message)
        });
        self.state().signatures.entry(digest).or_default().extend(forged);
    }

    pub(super) fn unsign(&self, digest: Digest) {
        self.state().signatures.remove(&digest);
    }

    pub(super) fn registry_fails(&self, error: Option<LookupError>) {
        self.state().registry_down = error;
    }

    pub(super) fn source_fails(&self, error: Option<LookupError>) {
        self.state().source_down = error;
    }

    /// Every request for a manifest is answered with this one.
    pub(super) fn lies(&self, digest: Digest) {
        self.state().lie = Some(digest);
    }

    async fn opened(&self, deadline: Instant) -> bool {
        let mut open = self.open.subscribe();
        timeout_at(deadline, open.wait_for(|open| *open)).await.is_ok()
    }
}

#[async_trait]
impl ResolveDigest for FakeRegistry {
    async fn resolve(&self, image: &Reference, deadline: Instant) -> Result<Arc<HashedManifest>, LookupError> {
        self.asked.send_modify(|asked| asked.manifests += 1);
        if !self.opened(deadline).await {
            return Err(timed_out());
        }
        let state = self.state();
        if let Some(error) = &state.registry_down {
            return Err(error.clone());
        }
        let digest = state.lie.or(image.digest().copied()).or_else(|| state.tags.get(image).copied());
        let unknown = || LookupError::ManifestUnknown { registry: "registry.example.com".into(), url: "x".into() };
        let digest = digest.ok_or_else(unknown)?;
        let manifest = state.manifests.get(&digest).cloned().ok_or_else(unknown)?;
        Ok(Arc::new(match state.other_digests.get(&digest) {
            Some(other) => HashedManifest::made_up_with(digest, *other, manifest),
            None => HashedManifest::made_up(digest, manifest),
        }))
    }
}

impl FakeRegistry {
    async fn find_signatures(&self, digest: Digest, deadline: Instant) -> FoundSignatures {
        self.asked.send_modify(|asked| asked.signatures += 1);
        let opened = self.opened(deadline).await;
        let state = self.state();
        let mut found = FoundSignatures::default();
        if opened {
            found.signatures = state.signatures.get(&digest).cloned().unwrap_or_default();
            let outcome = Ok(found.signatures.len());
            found.asked.push(AskedSource { url: "https://registry.example.com/extensions".into(), outcome });
        }
        let failure = if opened { state.source_down.clone() } else { Some(timed_out()) };
        if let Some(error) = failure {
            found.asked.push(AskedSource { url: "https://www.example.com/signatures".into(), outcome: Err(error) });
        }
        found
    }
}

impl FindSignatures for FakeRegistry {
    fn find<'a>(&'a self, _: &'a Repository, digest: Digest, deadline: Instant) -> SignatureSnapshots<'a> {
        once(async move { SignatureSnapshot::complete(self.find_signatures(digest, deadline).await) })
    }
}

/// Makes a stream of one snapshot.
pub(super) fn once<'a>(snapshot: impl Future<Output = SignatureSnapshot> + Send + 'a) -> SignatureSnapshots<'a> {
    stream::once(snapshot).boxed()
}

/// Reads on to the next complete snapshot.
pub(super) async fn complete(snapshots: &mut SignatureSnapshots<'_>) -> Option<SignatureSnapshot> {
    loop {
        let snapshot = snapshots.next().await?;
        if snapshot.is_complete {
            return Some(snapshot);
        }
    }
}

/// A gate in its registry.
pub(super) struct Scenario {
    pub(super) registry: Arc<FakeRegistry>,
    pub(super) policy: Arc<CurrentPolicy>,
    pub(super) gate: Arc<Gate>,
    /// The finder of the gate's signatures.
    pub(super) signatures: Arc<dyn FindSignatures>,
    pub(super) metrics: Arc<Metrics>,
}

pub(super) struct Choices {
    pub(super) settings: Settings,
    pub(super) times: Option<CacheTimes>,
    pub(super) policy_max_stale: Option<Duration>,
}

pub(super) const TIMES: CacheTimes =
    CacheTimes { tag: Duration::from_secs(30), signatures: Duration::from_mins(10), lookup: Duration::from_secs(6) };

impl Scenario {
    /// Without caches.
    pub(super) fn new(policy: Policy) -> Self {
        Self::with(policy, |_| {})
    }

    pub(super) fn cached(policy: Policy) -> Self {
        Self::with(policy, |choices| choices.times = Some(TIMES))
    }

    pub(super) fn with(policy: Policy, choose: impl FnOnce(&mut Choices)) -> Self {
        let settings = Settings {
            mode: Mode::Enforce,
            pin_required: true,
            images_per_review: 16,
            signatures_per_image: 64,
            budgets: CpuBudgets::default(),
            lookup: TIMES.lookup,
            last_known_good: Duration::ZERO,
        };
        let mut choices = Choices { settings, times: None, policy_max_stale: None };
        choose(&mut choices);
        let Choices { settings, times, policy_max_stale } = choices;
        let (registry, metrics) = (FakeRegistry::new(), Arc::new(Metrics::new()));
        let policy = Arc::new(CurrentPolicy::with_max_stale(policy, policy_max_stale, Instant::now()));
        let mut resolve: Arc<dyn ResolveDigest> = registry.clone();
        let mut signatures: Arc<dyn FindSignatures> = registry.clone();
        if let Some(times) = times {
            resolve = Arc::new(CachedResolve::new(resolve, times, metrics.clone()));
            signatures = Arc::new(CachedSignatures::new(signatures, times, metrics.clone()));
        }
        let gate = Gate::new(settings, policy.clone(), resolve, signatures.clone(), metrics.clone());
        Self { registry, policy, gate: Arc::new(gate), signatures, metrics }
    }

    /// Decides about an image in a template.
    pub(super) async fn decide(&self, text: &str) -> Decision {
        self.decide_in(None, text).await
    }

    pub(super) async fn decide_in(&self, namespace: Option<&str>, text: &str) -> Decision {
        self.decide_at(namespace, text, false, at(NOW)).await
    }

    /// Decides about an image that will run as it is written.
    pub(super) async fn decide_run(&self, text: &str) -> Decision {
        self.decide_run_in(None, text).await
    }

    pub(super) async fn decide_run_in(&self, namespace: Option<&str>, text: &str) -> Decision {
        self.decide_at(namespace, text, true, at(NOW)).await
    }

    pub(super) async fn decide_at(&self, namespace: Option<&str>, text: &str, runs: bool, now: Timestamp) -> Decision {
        let images = [ImageUse { text, runs_as_written: runs }];
        let deadline = Instant::now() + Duration::from_secs(8);
        let mut decisions =
            self.gate.decide(&Admission { namespace, images: &images, now, deadline, is_final: true }).await.unwrap();
        assert_eq!(decisions.len(), 1);
        decisions.remove(0)
    }

    /// Decides about an image in a template within that time.
    pub(super) async fn decide_within(&self, text: &str, time: Duration) -> Decision {
        let images = [ImageUse { text, runs_as_written: false }];
        let deadline = Instant::now() + time;
        let admission = Admission { namespace: None, images: &images, now: at(NOW), deadline, is_final: true };
        self.gate.decide(&admission).await.unwrap().remove(0)
    }

    pub(super) async fn decide_all(&self, texts: &[&str]) -> Vec<Decision> {
        self.try_decide_all(texts).await.unwrap()
    }

    pub(super) async fn try_decide_all(&self, texts: &[&str]) -> Result<Vec<Decision>, Refusal> {
        let images: Vec<_> = texts.iter().map(|text| ImageUse { text, runs_as_written: false }).collect();
        let deadline = Instant::now() + Duration::from_secs(8);
        self.gate.decide(&Admission { namespace: None, images: &images, now: at(NOW), deadline, is_final: true }).await
    }

    pub(super) fn metrics(&self) -> String {
        String::from_utf8(self.metrics.text().unwrap()).unwrap()
    }
}

/// The digest of an image's manifest that few ask for it by.
pub(super) fn sha512(content: &str) -> Digest {
    Digest::of(crate::image::digest::Algorithm::Sha512, content.as_bytes())
}

/// `verified`, `allowed_by_rule` ..., or the code of the refusal; and the code of what is not enforced or exempted.
pub(super) fn said(decision: &Decision) -> String {
    match &decision.verdict {
        Ok(verdict) => match verdict.refusal() {
            Some(refusal) => format!("{}({})", verdict.label(), refusal.code()),
            None => verdict.label().to_owned(),
        },
        Err(refusal) => refusal.code().to_string(),
    }
}

pub(super) fn pinned(decision: &Decision) -> String {
    decision.pinned.as_ref().map_or_else(String::new, ToString::to_string)
}

/// Returns the words of a denial of [`WEB`], from its reason on.
pub(super) fn denial(decision: &Decision) -> String {
    match &decision.verdict {
        Ok(verdict) => panic!("it runs: {verdict:?}"),
        Err(refusal) => format!("{refusal}. {}", refusal.next_step(WEB)),
    }
}

/// A policy with one layer.
pub(super) fn cluster(layer: Layer) -> Policy {
    Policy { cluster: layer, ..Policy::default() }
}

pub(super) fn with_namespace(cluster: Layer, namespace: &str, layer: Layer) -> Policy {
    Policy { cluster, namespaces: BTreeMap::from([(namespace.into(), layer)]), ..Policy::default() }
}

/// Rules named after their scopes.
pub(super) fn layer(rules: Vec<(&str, Option<Mode>, Action)>) -> Layer {
    let mut layer = Layer::default();
    for (scope, mode, action) in rules {
        let rule = Rule { id: RuleId::new("test", scope), mode, action };
        layer.rules.insert(Scope::parse_with_tag(scope).unwrap(), Arc::new(rule)).unwrap();
    }
    layer
}

pub(super) fn policy_json(rules: Vec<(&str, Option<Mode>, Action)>) -> Layer {
    Layer { dialect: Dialect::PolicyJson, ..layer(rules) }
}

pub(super) fn exempting(mut layer: Layer, scope: &str, namespaces: &[&str]) -> Layer {
    let mut images = crate::image::ScopeMap::default();
    images.insert(Scope::parse(scope).unwrap(), ()).unwrap();
    layer.exemptions.push(Arc::new(Exemption {
        id: RuleId::new("test", "legacy"),
        images,
        namespaces: namespaces.iter().map(|name| (*name).into()).collect(),
        until: at("2026-07-01T00:00:00Z"),
        approved_by: "jane@example.com".into(),
        reason: "INC-1".into(),
    }));
    layer
}

pub(super) fn allow() -> Action {
    Action::Allow { reason: "known".into() }
}

pub(super) fn deny() -> Action {
    Action::Deny { reason: "never".into() }
}

pub(super) fn signed_by(key: &Key) -> Action {
    signed(key, Platforms::default())
}

pub(super) fn signed(key: &Key, platforms: Platforms) -> Action {
    signed_lately(key, platforms, None)
}

pub(super) fn signed_lately(key: &Key, platforms: Platforms, max_age: Option<Duration>) -> Action {
    let requirement = Requirement {
        signed_by: vec![key.signer("acme")],
        threshold: NonZeroUsize::MIN,
        identity: Identity::RepoDigestOrExact,
        max_age,
    };
    Action::Require(Requirements { all: vec![requirement], platforms })
}

pub(super) fn entry(digest: Digest, platform: &str) -> Descriptor {
    Descriptor { digest, platform: Some(platform.to_owned()), attestation: false }
}

pub(super) fn attestation(digest: Digest) -> Descriptor {
    Descriptor { digest, platform: Some("unknown/unknown".to_owned()), attestation: true }
}
