//! The gate: decides about all images of a review, side by side.
//!
//! It owns the traits that it needs; `registry` and `signatures` implement them, [`cache`] wraps them, `startup` puts
//! them together.

pub mod cache;
mod current;
mod decide;
mod examine;
mod index;
mod layer;
mod progress;
#[cfg(test)]
mod tests;
mod verdict;
mod verdict_cache;
mod workers;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use tokio::time::Instant;

use self::{verdict_cache::Verdicts, workers::Budget};

pub use current::{CurrentPolicy, LoadedPolicy};
pub(crate) use index::refusal_of_index;
pub use verdict::Verdict;
pub use workers::Budgets;

use crate::image::{Digest, HashedManifest, Reference, Repository};
use crate::policy::{Mode, RuleId};
use crate::refusal::{LookupError, Refusal};
use crate::telemetry::Metrics;
use crate::verification::{Examination, FoundSignatures};

/// Resolves references: a tag to its digest, and either to the manifest.
#[async_trait]
pub trait ResolveDigest: Send + Sync {
    /// Fetches the manifest that the reference names. With a digest, that is what is asked for, and what the answer has.
    ///
    /// # Errors
    /// [`LookupError`], at the deadline at the latest.
    async fn resolve(&self, image: &Reference, deadline: Instant) -> Result<Arc<HashedManifest>, LookupError>;
}

/// Is told what some sources found while others have not answered yet, each time that there is more.
pub type Early<'a> = &'a (dyn Fn(Arc<FoundSignatures>) + Send + Sync);

/// Finds the signatures of an image.
#[async_trait]
pub trait FindSignatures: Send + Sync {
    /// Asks every source that is configured for the repository, side by side. What failed stands in the answer, beside what
    /// was found.
    async fn find(&self, repository: &Repository, digest: Digest, deadline: Instant) -> Arc<FoundSignatures>;

    /// Like [`FindSignatures::find`]. Where some sources have signatures and others have not answered, `early` is told what is
    /// there, with those others among the failures: a caller that can't wait, or not for long, can verify that.
    async fn find_early(
        &self,
        repository: &Repository,
        digest: Digest,
        deadline: Instant,
        _early: Early<'_>,
    ) -> Arc<FoundSignatures> {
        self.find(repository, digest, deadline).await
    }

    /// Finds what is there now, where `found`, which this gave for this digest, did not suffice and is not of just now.
    /// Nothing, if there is nothing newer to be had.
    async fn find_newer(
        &self,
        _repository: &Repository,
        _digest: Digest,
        _found: &Arc<FoundSignatures>,
        _deadline: Instant,
    ) -> Option<Arc<FoundSignatures>> {
        None
    }

    /// Until when a conclusion from `found`, which this gave for this digest, may be kept: that it suffices, or that it does
    /// not. Nothing: not at all, as where there is no cache.
    fn keep_until(
        &self,
        _repository: &Repository,
        _digest: Digest,
        _found: &Arc<FoundSignatures>,
        _sufficed: bool,
    ) -> Option<Instant> {
        None
    }
}

/// How the gate decides, whatever the policy says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The mode of rules that have none, and where no rule covers an image.
    pub mode: Mode,
    /// Whether a pod must name the digest of an image that must be signed.
    pub pin_required: bool,
    /// The most images of one review, identical ones too.
    pub images_per_review: usize,
    /// The most signatures tried for one image.
    pub signatures_per_image: usize,
    /// What verification may spend.
    pub budgets: Budgets,
    /// The time that the look-ups of one examination have, whoever waits for it.
    pub lookup: Duration,
    /// How long the verdict about a verified digest is kept for when its registry is down. Zero: not at all.
    pub last_known_good: Duration,
}

/// What is asked: may these images run there?
#[derive(Clone, Debug)]
pub struct Admission<'a> {
    /// The namespace; nothing for what has none.
    pub namespace: Option<&'a str>,
    /// The images.
    pub images: &'a [ImageUse<'a>],
    /// The time that it is now.
    pub now: Timestamp,
    /// When an answer must be there.
    pub deadline: Instant,
    /// Whether this decides: it is logged and counted then. A mutation asks about the same images before, maybe several
    /// times, and about placeholders that never run.
    pub is_final: bool,
}

/// One image in an object under review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageUse<'a> {
    /// As it stands there.
    pub text: &'a str,
    /// Whether it will run as it stands there (a pod, on validation), so that it must be pinned where its rule requires
    /// signatures.
    pub runs_as_written: bool,
}

/// What is decided about one image.
#[derive(Clone, Debug)]
pub struct Decision {
    /// May it run?
    pub verdict: Result<Verdict, Refusal>,
    /// The canonical reference; nothing if it is none.
    pub image: Option<Reference>,
    /// The rule that decided, where one did.
    pub rule: Option<RuleId>,
    /// The mode of that rule.
    pub mode: Mode,
    /// What a mutation writes in its place: the canonical name, with the digest where one was verified.
    pub pinned: Option<Reference>,
    /// What was seen on the way, one a layer that required signatures.
    pub examinations: Vec<Arc<Examination>>,
}

/// Images of one review that are decided side by side.
const SIDE_BY_SIDE: usize = 32;

/// The engine.
pub struct Gate {
    settings: Settings,
    policy: Arc<CurrentPolicy>,
    resolve: Arc<dyn ResolveDigest>,
    verdicts: Verdicts,
    metrics: Arc<Metrics>,
}

impl Gate {
    /// Puts the engine together. Look-ups run on the tokio runtime in which this is called, so that they go on where the
    /// caller's own (a worker's) ends; outside of one, on the caller's.
    pub fn new(
        settings: Settings,
        policy: Arc<CurrentPolicy>,
        resolve: Arc<dyn ResolveDigest>,
        signatures: Arc<dyn FindSignatures>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let verdicts = Verdicts::new(&settings, Arc::clone(&resolve), signatures, Arc::clone(&metrics));
        Self { settings, policy, resolve, verdicts, metrics }
    }

    /// Decides about every image, in the order in which they were given. Always answers by the deadline: what is not known
    /// then is refused as `deadline-exceeded`, and the answers that were ready are kept.
    ///
    /// Dropping the future is safe: what it waits for goes on for the others who wait for it.
    ///
    /// # Errors
    /// [`Refusal::TooManyImages`] and [`Refusal::PolicyUnavailable`], of all of them together.
    pub async fn decide(&self, admission: &Admission<'_>) -> Result<Vec<Decision>, Refusal> {
        // Counted before anything is kept of them: many reviews may wait at once, each with all of its images.
        let (found, limit) = (admission.images.len(), self.settings.images_per_review);
        if found > limit {
            return self.refuse_all(admission, Refusal::TooManyImages { found, limit });
        }
        let (different, places) = different(admission.images);
        let budget = Budget::new(self.settings.budgets.review);
        let decisions = loop {
            // Before caches are asked: what they know is known by the same policy.
            if let Err(refusal) = self.policy.check_fresh(Instant::now()) {
                return self.refuse_all(admission, refusal);
            }
            let policy = self.policy.get();
            let decisions = self.decide_different(&policy, admission, &budget, &different).await;
            // A policy that came into force meanwhile takes effect at once: a key may have been removed.
            if self.policy.generation() == policy.generation {
                break decisions;
            }
        };
        for (image, decision) in different.iter().zip(&decisions) {
            self.tell(admission, image.text, decision);
        }
        if different.len() == places.len() {
            return Ok(decisions);
        }
        Ok(places.into_iter().map(|place| decisions[place].clone()).collect())
    }

    /// Refuses the review as a whole, in the strictest mode that could hold for any of its images.
    fn refuse_all(&self, admission: &Admission<'_>, refusal: Refusal) -> Result<Vec<Decision>, Refusal> {
        let decision = decide::without_reference(self, &self.policy.get(), admission, refusal);
        self.tell(admission, "(all)", &decision);
        match decision.verdict {
            Err(refusal) => Err(refusal),
            Ok(_) => Ok(vec![decision; admission.images.len()]),
        }
    }

    async fn decide_different(
        &self,
        policy: &LoadedPolicy,
        admission: &Admission<'_>,
        budget: &Arc<Budget>,
        images: &[ImageUse<'_>],
    ) -> Vec<Decision> {
        if let [image] = images {
            return vec![decide::decide(self, policy, admission, budget, *image).await];
        }
        // Made before the first await: a closure that lives across it would keep this future from being Send.
        let deciding: Vec<_> = images
            .iter()
            .enumerate()
            .map(|(place, image)| async move { (place, decide::decide(self, policy, admission, budget, *image).await) })
            .collect();
        let mut decisions: Vec<(usize, Decision)> =
            stream::iter(deciding).buffer_unordered(SIDE_BY_SIDE).collect().await;
        decisions.sort_unstable_by_key(|(place, _)| *place);
        decisions.into_iter().map(|(_, decision)| decision).collect()
    }

    /// Counts a final decision, and logs it where the image would not run by itself.
    fn tell(&self, admission: &Admission<'_>, text: &str, decision: &Decision) {
        let rule = decision.rule.as_ref().map_or("", RuleId::as_str);
        let (label, refusal) = match &decision.verdict {
            Ok(verdict) => (verdict.label(), verdict.refusal()),
            Err(refusal) => ("refused", Some(refusal)),
        };
        let code = refusal.map_or("", |refusal| refusal.code().as_str());
        if admission.is_final {
            self.metrics.image(label, code, rule, decision.mode.as_str());
            if let Ok(Verdict::Exempted { exemption, .. }) = &decision.verdict {
                self.metrics.exemption_used(exemption.id.as_str());
            }
        }
        let Some(refusal) = refusal else { return };
        let namespace = admission.namespace.unwrap_or("");
        let mode = decision.mode.as_str();
        // What is no reference can be any text: escaped, and no longer than a reference.
        let image = match &decision.image {
            Some(image) => image.to_string(),
            None => text.chars().take(LONGEST_LOGGED).collect::<String>().escape_debug().to_string(),
        };
        match &decision.verdict {
            _ if !admission.is_final => {
                tracing::debug!(%image, namespace, code, rule, mode, reason = %refusal, facts = %refusal.facts(), "image would not run by itself");
            }
            Err(_) => {
                tracing::warn!(%image, namespace, code, rule, mode, reason = %refusal, facts = %refusal.facts(), "image refused");
            }
            Ok(verdict) => {
                tracing::info!(%image, namespace, code, rule, mode, reason = %refusal, facts = %refusal.facts(), verdict = verdict.label(), "image runs all the same");
            }
        }
    }
}

/// Characters of a text that is no reference, in the log.
const LONGEST_LOGGED: usize = 512;

/// The different images, and for each one given its place among them.
fn different<'a>(images: &[ImageUse<'a>]) -> (Vec<ImageUse<'a>>, Vec<usize>) {
    if let [image] = images {
        return (vec![*image], vec![0]);
    }
    let mut different = Vec::with_capacity(images.len());
    let mut known = HashMap::with_capacity(images.len());
    let places = images
        .iter()
        .map(|image| {
            *known.entry(*image).or_insert_with(|| {
                different.push(*image);
                different.len() - 1
            })
        })
        .collect();
    (different, places)
}
