//! The cache of examinations by digest and requirements, each kept as long as the reason for it holds.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use moka::sync::Cache;
use tokio::time::{Instant, timeout_at};

use crate::image::{Digest, HashedManifest};
use crate::refusal::{LookupError, Refusal};
use crate::verification::Examination;

use super::cache::{Expires, stale_expiry};
use super::{
    applied_rule::AppliedRule,
    deadline::{Deadlines, ExaminationBounds},
    examine::{Examiner, FreshExamination},
    ports::{CacheResult, FindSignatures, GateMetrics, ResolveDigest},
    progress::Progress,
    settings::Settings,
    workers::Workers,
};
use crate::single_flight::{Completed, SingleFlight, Unwanted};

/// The name of the cache in metrics.
const CACHE: &str = "verdict";
/// Bytes that kept verdicts take, roughly.
const CAPACITY: u64 = 32 << 20;
/// Images whose last good verdict is kept for when their registry is down.
const KNOWN_GOOD_IMAGES: u64 = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ExaminationKey {
    applied: AppliedRule,
    digest: Digest,
}

#[derive(Clone, Debug)]
struct CachedVerdict {
    examination: Arc<Examination>,
    until: Instant,
}

#[derive(Clone, Debug)]
struct KnownGoodVerdict {
    digest: Digest,
    examination: Arc<Examination>,
    until: Instant,
}

/// Examines, and keeps what came of it.
pub(super) struct VerdictCache {
    shared: Arc<VerdictCacheState>,
    /// The examinations that are running.
    flights: SingleFlight<ExaminationKey, Arc<Examination>>,
    /// Those of what is there by now, for callers that can't wait for the end of the former.
    so_far: SingleFlight<ExaminationKey, (Arc<Examination>, bool)>,
}

struct VerdictCacheState {
    examiner: Examiner,
    /// The time that an examination has for look-ups, whichever review waits for it.
    lookup: Duration,
    /// The progress of running examinations.
    progress: Mutex<HashMap<ExaminationKey, Arc<Progress>>>,
    kept: Cache<ExaminationKey, CachedVerdict>,
    /// The last digest that was verified for a question. Nothing where the configuration wants none of it.
    known_good: Option<(Duration, Cache<AppliedRule, KnownGoodVerdict>)>,
    metrics: Arc<dyn GateMetrics>,
}

impl Expires for CachedVerdict {
    fn expires_at(&self) -> Instant {
        self.until
    }
}

impl Expires for KnownGoodVerdict {
    fn expires_at(&self) -> Instant {
        self.until
    }
}

/// Returns whether the proof still holds.
fn holds(examination: &Examination, now: Timestamp) -> bool {
    match &examination.result {
        Ok(proof) => proof.valid_until().is_none_or(|end| now < end),
        Err(_) => true,
    }
}

/// Returns whether the registry seems to be down.
fn is_down(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Lookup(error) if error.is_outage())
}

/// Returns whether it ended for a reason of the caller that began it, such as its time, and not of the image.
fn is_of_its_caller(examination: &Examination) -> bool {
    match &examination.result {
        Err(Refusal::Lookup(error)) => error.is_out_of_time(),
        Err(refusal) => matches!(refusal, Refusal::ReviewTooCostly),
        Ok(_) => false,
    }
}

/// Forgets what an examination has learned when it ends, however it does.
struct ProgressGuard<'a> {
    shared: &'a VerdictCacheState,
    key: ExaminationKey,
    progress: Arc<Progress>,
}

impl Drop for ProgressGuard<'_> {
    fn drop(&mut self) {
        let mut all = self.shared.progress();
        // Another may run in the place of a cancelled one.
        if all.get(&self.key).is_some_and(|progress| Arc::ptr_eq(progress, &self.progress)) {
            all.remove(&self.key);
        }
    }
}

impl VerdictCache {
    pub(super) fn new(
        settings: &Settings,
        resolve: Arc<dyn ResolveDigest>,
        signatures: Arc<dyn FindSignatures>,
        metrics: Arc<dyn GateMetrics>,
    ) -> Self {
        let kept = Cache::builder()
            .max_capacity(CAPACITY)
            .weigher(|key: &ExaminationKey, kept: &CachedVerdict| weight(&key.applied, &kept.examination))
            .expire_after(stale_expiry())
            .build();
        let known_good = (!settings.last_known_good.is_zero()).then(|| {
            let known = Cache::builder().max_capacity(KNOWN_GOOD_IMAGES).expire_after(stale_expiry()).build();
            (settings.last_known_good, known)
        });
        let examiner = Examiner {
            resolve,
            signatures,
            workers: Workers::new(),
            tries: settings.signatures_per_image,
            budget: settings.budgets.question,
        };
        let progress = Mutex::default();
        Self {
            shared: Arc::new(VerdictCacheState {
                examiner,
                lookup: settings.lookup,
                progress,
                kept,
                known_good,
                metrics,
            }),
            flights: SingleFlight::new(Unwanted::IsCancelled),
            so_far: SingleFlight::new(Unwanted::IsCancelled),
        }
    }

    /// Returns the examination of the image `digest` by the requirements. `manifest` is its manifest, where that is known
    /// already.
    ///
    /// An examination has a time of its own ([`Settings::lookup`]); a caller that has less takes what is there by then, if that
    /// is proof. One that no caller waits for any more is cancelled; the look-ups that it began go on, and are kept.
    pub(super) async fn examine(
        &self,
        applied: AppliedRule,
        digest: Digest,
        manifest: Option<&Arc<HashedManifest>>,
        deadlines: &Deadlines,
    ) -> Arc<Examination> {
        let key = ExaminationKey { applied, digest };
        if let Some(examination) = self.shared.look_up(&key, deadlines.now) {
            self.shared.metrics.cache_request(CACHE, CacheResult::Hit);
            return examination;
        }
        self.shared.metrics.cache_request(CACHE, CacheResult::Miss);
        loop {
            let start = || {
                let shared = Arc::clone(&self.shared);
                let (key, manifest) = (key.clone(), manifest.cloned());
                let bounds = deadlines.of_examination(self.shared.lookup);
                async move { shared.examine_anew(key, manifest, bounds).await }
            };
            let mut joined = pin!(self.flights.join(&key, start));
            let mut is_refused = false;
            let landed = if let Ok(landed) = timeout_at(deadlines.lookups, &mut joined).await {
                Some(landed)
            } else {
                if let Some((examination, refused)) = self.examine_so_far(&key, deadlines).await {
                    if examination.result.is_ok() && holds(&examination, deadlines.now) {
                        return examination;
                    }
                    is_refused = refused;
                }
                timeout_at(deadlines.deadline, joined).await.ok()
            };
            let repository = key.applied.image.repository();
            let Some(Completed { answer, started }) = landed else {
                let after = deadlines.deadline.saturating_duration_since(deadlines.started);
                let slow = Refusal::Lookup(LookupError::timed_out(repository, after));
                // A complete list of signatures that does not suffice says that the image is good no more.
                let known = if is_refused {
                    None
                } else {
                    self.last_known_good(&key.applied, Some(digest), &slow, deadlines.now)
                };
                return known.unwrap_or_else(|| Arc::new(Examination::refused(deadlines.exceeded())));
            };
            let Some(examination) = answer else {
                let lost_error = LookupError::without_answer(repository, "the examination ended without an answer");
                return Arc::new(Examination::refused(lost_error.into()));
            };
            // Another's time, another's clock and what another spent are not this admission's.
            if !started && (is_of_its_caller(&examination) || !holds(&examination, deadlines.now)) {
                continue;
            }
            return match &examination.result {
                Err(refusal) if is_down(refusal) => {
                    self.last_known_good(&key.applied, Some(digest), refusal, deadlines.now).unwrap_or(examination)
                }
                _ => examination,
            };
        }
    }

    /// Examines what a running examination has learned by now. Returns whether the image is known not to verify, too.
    async fn examine_so_far(&self, key: &ExaminationKey, deadlines: &Deadlines) -> Option<(Arc<Examination>, bool)> {
        let progress = self.shared.progress().get(key).cloned()?;
        let start = || {
            let Examiner { workers, tries, budget, .. } = &self.shared.examiner;
            let (resolve, signatures) = (Arc::clone(&progress), Arc::clone(&progress));
            let examiner = Examiner { resolve, signatures, workers: workers.clone(), tries: *tries, budget: *budget };
            let (key, bounds) = (key.clone(), deadlines.of_examination(Duration::ZERO));
            async move {
                let nothing_more = Progress::default();
                let FreshExamination { examination, is_refused, .. } =
                    examiner.examine(&key.applied, key.digest, None, bounds, &nothing_more).await;
                (Arc::new(examination), is_refused)
            }
        };
        timeout_at(deadlines.deadline, self.so_far.join(key, start)).await.ok()?.answer
    }

    /// Returns the proof of the image from before its registry went down, if `refusal` says that it is down, the
    /// configuration wants this, and the proof still holds. Without a digest (a tag could not be resolved), it is about
    /// the digest that was proven last.
    pub(super) fn last_known_good(
        &self,
        applied: &AppliedRule,
        digest: Option<Digest>,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Option<Arc<Examination>> {
        if !is_down(refusal) {
            return None;
        }
        let (_, known) = self.shared.known_good.as_ref()?;
        let KnownGoodVerdict { digest: known_digest, examination, until } = known.get(applied)?;
        let good =
            digest.is_none_or(|digest| digest == known_digest) && Instant::now() < until && holds(&examination, now);
        if !good {
            return None;
        }
        tracing::warn!(
            image = %applied.image, digest = %known_digest, reason = %refusal,
            "registry is down: admitted as verified before"
        );
        Some(examination)
    }
}

impl VerdictCacheState {
    fn look_up(&self, key: &ExaminationKey, now: Timestamp) -> Option<Arc<Examination>> {
        let CachedVerdict { examination, until } = self.kept.get(key)?;
        (Instant::now() < until && holds(&examination, now)).then_some(examination)
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, HashMap<ExaminationKey, Arc<Progress>>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn examine_anew(
        &self,
        key: ExaminationKey,
        manifest: Option<Arc<HashedManifest>>,
        bounds: ExaminationBounds,
    ) -> Arc<Examination> {
        // Another flight may have ended between the look-up and this one's start.
        if let Some(examination) = self.look_up(&key, bounds.now) {
            return examination;
        }
        let progress = Arc::new(Progress::default());
        self.progress().insert(key.clone(), Arc::clone(&progress));
        let _forget = ProgressGuard { shared: self, key: key.clone(), progress: Arc::clone(&progress) };
        let examined = self.examiner.examine(&key.applied, key.digest, manifest, bounds, &progress);
        let FreshExamination { examination, keep_until, is_refused } = examined.await;
        let examination = Arc::new(examination);
        self.remember(&key, &examination, is_refused);
        if let Some(until) = keep_until
            && Instant::now() < until
        {
            self.kept.insert(key, CachedVerdict { examination: Arc::clone(&examination), until });
            self.kept.run_pending_tasks();
            self.metrics.cache_entries(CACHE, self.kept.entry_count());
        }
        examination
    }

    /// Takes note of what is known to be good, and of what no longer is.
    fn remember(&self, key: &ExaminationKey, examination: &Arc<Examination>, is_refused: bool) {
        let Some((lifetime, known)) = &self.known_good else { return };
        match &examination.result {
            Ok(_) => {
                let until = Instant::now() + *lifetime;
                let examination = Arc::clone(examination);
                known.insert(key.applied.clone(), KnownGoodVerdict { digest: key.digest, examination, until });
            }
            Err(_) if is_refused => known.invalidate(&key.applied),
            Err(_) => {}
        }
    }
}

/// Bytes that an examination takes, roughly. What is said of one list of signatures shares the names and keys of the signers;
/// an index has a list for each of its manifests.
fn weight(applied: &AppliedRule, examination: &Examination) -> u32 {
    let signers = applied.requirements().into_iter().flat_map(|requirements| &requirements.all);
    let keys: usize = signers.flat_map(|one| &one.signed_by).map(|signer| 64 + 64 * signer.certificates.len()).sum();
    let bytes = 1024 + 512 * examination.signatures.len() + (256 + keys) * examination.asked.len();
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::tests::{NOW, Scenario, WEB, cluster, layer, signed_by};
    use crate::image::Reference;
    use crate::policy::{Action, Dialect};
    use crate::signature::testing::{Key, at, signer};
    use crate::verification::{AskedSource, ExaminedSignature};

    #[tokio::test]
    async fn what_an_examination_learned_is_forgotten_at_its_end() {
        let key = Key::new("acme");
        let scenario = Scenario::cached(cluster(layer(vec![("registry.example.com", None, signed_by(&key))])));
        let digest = scenario.registry.image(WEB, "one");
        scenario.registry.sign(&key, digest, WEB);
        assert!(scenario.decide(WEB).await.verdict.is_ok());
        assert!(scenario.gate.engine.verdicts.shared.progress().is_empty());
    }

    #[test]
    fn another_caller_asks_again_where_the_first_had_too_little_time_or_budget() {
        let repository = crate::image::Repository::parse("registry.example.com/acme/web").unwrap();
        let of = |refusal| is_of_its_caller(&Examination::refused(refusal));
        assert!(of(LookupError::timed_out(&repository, Duration::from_secs(1)).into()));
        assert!(of(Refusal::ReviewTooCostly));
        assert!(!of(LookupError::another_digest(&repository).into()));
        assert!(!of(Refusal::TooManySignatures));
        assert!(holds(&Examination::refused(Refusal::TooManySignatures), at(NOW)));
    }

    #[test]
    fn the_weight_of_a_verdict_grows_with_its_signatures_sources_and_keys() {
        let image = Reference::for_image(WEB).unwrap();
        let key = Key::new("acme");
        let of_two_certificates = signer("acme", &[key.public(), Key::new("other").public()]);
        let rule = |keys: usize| {
            let mut action = signed_by(&key);
            if let Action::Require(requirements) = &mut action {
                requirements.all[0].signed_by = vec![of_two_certificates.clone(); keys];
            }
            let layer = layer(vec![("registry.example.com", None, action)]);
            Arc::clone(layer.rules.get(&image).unwrap())
        };
        let signature = ExaminedSignature {
            place: 0,
            source: "https://registry.example.com/".into(),
            key: None,
            certificate: None,
            signer: None,
            signed_at: None,
            identity: None,
            digest: None,
            outcome: Err(Refusal::NoPolicy),
        };
        let source = AskedSource { url: "https://registry.example.com/".into(), outcome: Ok(1) };
        let weight = |keys: usize, signatures: usize, sources: usize| {
            let asked = AppliedRule::new(1, &rule(keys), Dialect::Sealgate, &image).unwrap();
            let examination = Examination {
                signatures: vec![signature.clone(); signatures],
                asked: vec![source.clone(); sources],
                ..Examination::refused(Refusal::NoPolicy)
            };
            u64::from(super::weight(&asked, &examination))
        };
        let (signature_bytes, source_bytes) = (size_of::<ExaminedSignature>() as u64, size_of::<AskedSource>() as u64);
        for (keys, signatures, sources) in [(1, 0, 0), (1, 1, 1), (2, 5, 3), (1, 1000, 128)] {
            let before = weight(keys, signatures, sources);
            assert!(weight(keys, signatures + 10, sources) >= before + 10 * signature_bytes, "{signatures}");
            assert!(weight(keys, signatures, sources + 10) >= before + 10 * source_bytes, "{sources}");
            // What is said of each list has the names of all signers.
            let more_keys = weight(keys + 10, signatures, sources);
            assert!(if sources == 0 { more_keys == before } else { more_keys > before }, "{keys}");
        }
        assert_eq!(weight(1, 0, 0), 1024, "an empty one is something, too");
        assert_eq!(weight(2, 5, 3), 1024 + 5 * 512 + 3 * (256 + 2 * (64 + 64 * 2)));
    }
}
