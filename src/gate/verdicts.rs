//! What the requirements of rules say of digests, kept as long as the reason for it holds.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use moka::sync::Cache;
use tokio::time::{Instant, timeout_at};

use crate::image::{Digest, Reference};
use crate::operations::{CacheResult, Metrics};
use crate::policy::{Action, Dialect, Platforms, Requirements, Rule};
use crate::signature::verify::Examination;
use crate::verdict::{LookupError, Refusal};

use super::cache::{Flights, Landed, Lifetime, until_stale};
use super::prove::{Proven, Prover};
use super::{FindSignatures, HashedManifest, ResolveDigest, Settings};

/// The name of the cache in metrics.
const CACHE: &str = "verdict";
/// Bytes that kept verdicts take, roughly.
const CAPACITY: u64 = 32 << 20;
/// Images whose last good verdict is kept for when their registry is down.
const KNOWN_GOOD_IMAGES: u64 = 10_000;
/// What look-ups leave of the time for examining what they found, at the most.
pub(super) const EXAMINING: Duration = Duration::from_millis(500);

/// What is asked of a digest: everything but time that the answer depends on.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) generation: u64,
    /// Known by its address: no two rules of a policy are one, whatever their names and layers, and while it stands here no
    /// other can get its address.
    pub(super) rule: Arc<Rule>,
    pub(super) platforms: Platforms,
    pub(super) image: Reference,
}

/// The times of one admission.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    /// The time that it is now.
    pub(super) now: Timestamp,
    pub(super) started: Instant,
    /// When look-ups must have ended.
    pub(super) lookups: Instant,
    /// When the answer must be there.
    pub(super) deadline: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    asked: Asked,
    digest: Digest,
}

#[derive(Clone, Debug)]
struct Kept {
    examination: Arc<Examination>,
    until: Instant,
}

#[derive(Clone, Debug)]
struct KnownGood {
    digest: Digest,
    examination: Arc<Examination>,
    until: Instant,
}

/// Examines, and keeps what came of it.
pub(super) struct Verdicts {
    shared: Arc<Shared>,
    flights: Flights<Key, Arc<Examination>>,
}

struct Shared {
    prover: Prover,
    kept: Cache<Key, Kept>,
    /// The last digest that was verified for a question. Nothing where the configuration wants none of it.
    known_good: Option<(Duration, Cache<Asked, KnownGood>)>,
    metrics: Arc<Metrics>,
}

impl Asked {
    /// Nothing, if the rule requires no signatures.
    pub(super) fn new(generation: u64, rule: &Arc<Rule>, dialect: Dialect, image: &Reference) -> Option<Self> {
        let Action::Require(requirements) = &rule.action else { return None };
        let platforms = match dialect {
            Dialect::Sealgate => requirements.platforms,
            // containers/image looks only at the instance that it is about to run; whichever that is, it is checked here.
            Dialect::PolicyJson => Platforms::Each,
        };
        Some(Self { generation, rule: Arc::clone(rule), platforms, image: image.clone() })
    }

    pub(super) fn requirements(&self) -> Option<&Requirements> {
        match &self.rule.action {
            Action::Require(requirements) => Some(requirements),
            Action::Allow { .. } | Action::Deny { .. } => None,
        }
    }
}

impl PartialEq for Asked {
    fn eq(&self, other: &Self) -> bool {
        let Self { generation, rule, platforms, image } = self;
        *generation == other.generation
            && Arc::ptr_eq(rule, &other.rule)
            && *platforms == other.platforms
            && *image == other.image
    }
}

impl Eq for Asked {}

impl Hash for Asked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.generation.hash(state);
        Arc::as_ptr(&self.rule).hash(state);
        self.image.hash(state);
    }
}

impl Lifetime for Kept {
    fn until(&self) -> Instant {
        self.until
    }
}

impl Lifetime for KnownGood {
    fn until(&self) -> Instant {
        self.until
    }
}

/// Whether what was proven still is.
fn holds(examination: &Examination, now: Timestamp) -> bool {
    match &examination.result {
        Ok(proof) => proof.valid_until().is_none_or(|end| now < end),
        Err(_) => true,
    }
}

/// Whether the registry is down, for all that can be seen from here.
fn is_down(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Lookup(error) if error.is_outage())
}

fn timed_out(examination: &Examination) -> bool {
    matches!(&examination.result, Err(Refusal::Lookup(error)) if error.is_out_of_time())
}

impl Verdicts {
    pub(super) fn new(
        settings: &Settings,
        resolve: Arc<dyn ResolveDigest>,
        signatures: Arc<dyn FindSignatures>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let kept = Cache::builder()
            .max_capacity(CAPACITY)
            .weigher(|key: &Key, kept: &Kept| weight(&key.asked, &kept.examination))
            .expire_after(until_stale())
            .build();
        let known_good = (!settings.last_known_good.is_zero()).then(|| {
            let known = Cache::builder().max_capacity(KNOWN_GOOD_IMAGES).expire_after(until_stale()).build();
            (settings.last_known_good, known)
        });
        let prover = Prover { resolve, signatures, tries: settings.signatures_per_image };
        Self { shared: Arc::new(Shared { prover, kept, known_good, metrics }), flights: Flights::new() }
    }

    /// What the requirements say of the image `digest`. `manifest` is what it is, where that is known already.
    pub(super) async fn examine(
        &self,
        asked: Asked,
        digest: Digest,
        manifest: Option<&Arc<HashedManifest>>,
        until: Until,
    ) -> Arc<Examination> {
        let key = Key { asked, digest };
        if let Some(examination) = self.shared.look_up(&key, until.now) {
            self.shared.metrics.cache_request(CACHE, CacheResult::Hit);
            return examination;
        }
        self.shared.metrics.cache_request(CACHE, CacheResult::Miss);
        let refusal = loop {
            let start = || {
                let shared = Arc::clone(&self.shared);
                let (key, manifest) = (key.clone(), manifest.cloned());
                async move { shared.examine_anew(key, manifest, until).await }
            };
            let Ok(Landed { answer, started }) = timeout_at(until.deadline, self.flights.join(&key, start)).await
            else {
                break until.exceeded();
            };
            let Some(examination) = answer else {
                let repository = key.asked.image.repository();
                break Refusal::Lookup(LookupError::Unavailable {
                    registry: repository.host().into(),
                    url: repository.as_str().into(),
                    cause: "the examination ended without an answer".into(),
                    retry_after: None,
                });
            };
            // Another's deadline and another's clock are not this admission's.
            if !started && (timed_out(&examination) || !holds(&examination, until.now)) {
                continue;
            }
            match &examination.result {
                Err(refusal) if is_down(refusal) => {
                    return self.last_known_good(&key.asked, Some(digest), refusal, until.now).unwrap_or(examination);
                }
                _ => return examination,
            }
        };
        Arc::new(unexamined(refusal))
    }

    /// What was proven of the image before its registry went down, if `refusal` says that it is down, the configuration
    /// wants this, and the proof still holds. Without a digest (a tag could not be resolved), it is about the digest that
    /// was proven last.
    pub(super) fn last_known_good(
        &self,
        asked: &Asked,
        digest: Option<Digest>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Option<Arc<Examination>> {
        if !is_down(refusal) {
            return None;
        }
        let (_, known) = self.shared.known_good.as_ref()?;
        let KnownGood { digest: known_digest, examination, until } = known.get(asked)?;
        let good =
            digest.is_none_or(|digest| digest == known_digest) && Instant::now() < until && holds(&examination, now);
        if !good {
            return None;
        }
        tracing::warn!(
            image = %asked.image, digest = %known_digest, reason = %refusal,
            "registry is down: admitted as verified before"
        );
        Some(examination)
    }
}

impl Shared {
    fn look_up(&self, key: &Key, now: Timestamp) -> Option<Arc<Examination>> {
        let Kept { examination, until } = self.kept.get(key)?;
        (Instant::now() < until && holds(&examination, now)).then_some(examination)
    }

    async fn examine_anew(&self, key: Key, manifest: Option<Arc<HashedManifest>>, until: Until) -> Arc<Examination> {
        // Another flight may have ended between the look-up and this one's start.
        if let Some(examination) = self.look_up(&key, until.now) {
            return examination;
        }
        let Proven { examination, keep_until } = self.prover.examine(&key.asked, key.digest, manifest, until).await;
        let examination = Arc::new(examination);
        self.remember(&key, &examination);
        if let Some(until) = keep_until
            && Instant::now() < until
        {
            self.kept.insert(key, Kept { examination: Arc::clone(&examination), until });
            self.kept.run_pending_tasks();
            self.metrics.cache_entries(CACHE, self.kept.entry_count());
        }
        examination
    }

    /// Takes note of what is known to be good, and of what no longer is.
    fn remember(&self, key: &Key, examination: &Arc<Examination>) {
        let Some((lifetime, known)) = &self.known_good else { return };
        match &examination.result {
            Ok(_) => {
                let until = Instant::now() + *lifetime;
                let examination = Arc::clone(examination);
                known.insert(key.asked.clone(), KnownGood { digest: key.digest, examination, until });
            }
            Err(Refusal::Lookup(_) | Refusal::DeadlineExceeded { .. }) => {}
            Err(_) => known.invalidate(&key.asked),
        }
    }
}

/// A refusal before anything was seen.
pub(super) fn unexamined(refusal: Refusal) -> Examination {
    Examination { result: Err(refusal), signatures: Vec::new(), asked: Vec::new() }
}

/// Bytes that an examination takes, roughly. What is said of one list of signatures shares the names and keys of the signers;
/// an index has a list for each of its manifests.
fn weight(asked: &Asked, examination: &Examination) -> u32 {
    let signers = asked.requirements().into_iter().flat_map(|requirements| &requirements.all);
    let keys: usize = signers.flat_map(|one| &one.signed_by).map(|signer| 64 + 64 * signer.certificates.len()).sum();
    let bytes = 1024 + 512 * examination.signatures.len() + (256 + keys) * examination.asked.len();
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
