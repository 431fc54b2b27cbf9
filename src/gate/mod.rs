//! The gate: decides about all images of a review, side by side.
//!
//! It owns the traits that it needs ([`ResolveDigest`], [`FindSignatures`]); `registry` and `signature_sources` implement them,
//! [`cache`] wraps them, `startup` puts them together.

mod admission;
mod applied_rule;
pub mod cache;
mod current;
pub(crate) mod deadline;
mod decide;
mod decision_context;
mod examine;
mod index;
mod layer;
mod limits;
mod ports;
mod progress;
mod restrict;
mod rule_match;
mod settings;
#[cfg(test)]
mod tests;
mod verdict;
mod verdict_cache;
mod workers;

use std::{collections::HashMap, sync::Arc};

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use self::{
    decision_context::Engine,
    limits::{MAX_CONCURRENT_IMAGES, MAX_LOGGED_TEXT},
    verdict_cache::VerdictCache,
    workers::CpuBudget,
};

pub use admission::{Admission, Decision, ImageUse};
pub use current::{CurrentPolicy, LoadedPolicy};
pub use limits::CpuBudgets;
pub use ports::{
    CacheResult, FindSignatures, GateMetrics, Lease, ResolveDigest, SignatureSnapshot, SignatureSnapshots,
};
pub use settings::Settings;
pub use verdict::Verdict;

use crate::policy::RuleId;
use crate::refusal::Refusal;

/// The engine.
pub struct Gate {
    engine: Engine,
    policy: Arc<CurrentPolicy>,
    metrics: Arc<dyn GateMetrics>,
}

impl Gate {
    /// Puts the engine together. Look-ups run on the tokio runtime in which this is called, so that they go on where the
    /// caller's own (a worker's) ends; outside of one, on the caller's.
    pub fn new(
        settings: Settings,
        policy: Arc<CurrentPolicy>,
        resolve: Arc<dyn ResolveDigest>,
        signatures: Arc<dyn FindSignatures>,
        metrics: Arc<dyn GateMetrics>,
    ) -> Self {
        let verdicts = VerdictCache::new(&settings, Arc::clone(&resolve), signatures, Arc::clone(&metrics));
        Self { engine: Engine { settings, resolve, verdicts }, policy, metrics }
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
        let (found, limit) = (admission.images.len(), self.engine.settings.images_per_review);
        if found > limit {
            return self.refuse_all(admission, Refusal::TooManyImages { found, limit });
        }
        let (different, places) = different(admission.images);
        let budget = CpuBudget::new(self.engine.settings.budgets.review);
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
            self.record_decision(admission, image.text, decision);
        }
        if different.len() == places.len() {
            return Ok(decisions);
        }
        Ok(places.into_iter().map(|place| decisions[place].clone()).collect())
    }

    /// Refuses the review as a whole, in the strictest mode that could hold for any of its images.
    fn refuse_all(&self, admission: &Admission<'_>, refusal: Refusal) -> Result<Vec<Decision>, Refusal> {
        let decision = decide::without_reference(&self.engine, &self.policy.get(), admission, refusal);
        self.record_decision(admission, "(all)", &decision);
        match decision.verdict {
            Err(refusal) => Err(refusal),
            Ok(_) => Ok(vec![decision; admission.images.len()]),
        }
    }

    async fn decide_different(
        &self,
        policy: &LoadedPolicy,
        admission: &Admission<'_>,
        budget: &Arc<CpuBudget>,
        images: &[ImageUse<'_>],
    ) -> Vec<Decision> {
        if let [image] = images {
            return vec![decide::decide(&self.engine, policy, admission, budget, *image).await];
        }
        // Made before the first await: a closure that lives across it would keep this future from being Send.
        let deciding: Vec<_> = images
            .iter()
            .enumerate()
            .map(|(place, image)| async move {
                (place, decide::decide(&self.engine, policy, admission, budget, *image).await)
            })
            .collect();
        let mut decisions: Vec<(usize, Decision)> =
            stream::iter(deciding).buffer_unordered(MAX_CONCURRENT_IMAGES).collect().await;
        decisions.sort_unstable_by_key(|(place, _)| *place);
        decisions.into_iter().map(|(_, decision)| decision).collect()
    }

    /// Counts a final decision, and logs it where the image would not run by itself.
    fn record_decision(&self, admission: &Admission<'_>, text: &str, decision: &Decision) {
        let rule = decision.rule.as_ref().map_or("", RuleId::as_str);
        let (label, refusal) = match &decision.verdict {
            Ok(verdict) => (verdict.label(), verdict.refusal()),
            Err(refusal) => ("refused", Some(refusal)),
        };
        let code = refusal.map_or("", |refusal| refusal.code().as_str());
        if admission.is_final {
            self.metrics.image_decided(label, code, rule, decision.mode.as_str());
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
            None => text.chars().take(MAX_LOGGED_TEXT).collect::<String>().escape_debug().to_string(),
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
