//! The gate: decides about all images of a review, side by side.
//!
//! It owns the traits that it needs; `registry` and `signatures` implement them, [`cache`] wraps them, `startup` puts
//! them together.

pub mod cache;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::image::{Digest, Manifest, Reference, Repository};
use crate::operations::Metrics;
use crate::policy::{Mode, Policy, RuleId};
use crate::signature::{FoundSignatures, verify::Examination};
use crate::verdict::{LookupError, Refusal, Verdict};

/// What a reference names, learned from the bytes that a registry sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// Computed over the bytes, never taken from a header.
    pub digest: Digest,
    /// What those bytes are.
    pub manifest: Manifest,
}

/// Resolves references: a tag to its digest, and either to the manifest.
#[async_trait]
pub trait ResolveDigest: Send + Sync {
    /// Fetches the manifest that the reference names. With a digest, that is what is asked for, and what the answer has.
    ///
    /// # Errors
    /// [`LookupError`], at the deadline at the latest.
    async fn resolve(&self, image: &Reference, deadline: Instant) -> Result<Arc<ResolvedImage>, LookupError>;
}

/// Finds the signatures of an image.
#[async_trait]
pub trait FindSignatures: Send + Sync {
    /// Asks every source that is configured for the repository, side by side. What failed stands in the answer, beside what
    /// was found.
    async fn find(&self, repository: &Repository, digest: Digest, deadline: Instant) -> Arc<FoundSignatures>;

    /// Told when what was found did not lead to "allowed", so that a cache asks again soon.
    fn did_not_suffice(&self, _repository: &Repository, _digest: Digest) {}
}

/// The policy in force, replaced as a whole.
#[derive(Debug)]
pub struct CurrentPolicy(ArcSwap<LoadedPolicy>);

/// A policy and how many there were before it.
#[derive(Debug)]
pub struct LoadedPolicy {
    /// Counts from 1; no two policies of a process share one.
    pub generation: u64,
    /// The policy.
    pub policy: Policy,
}

impl CurrentPolicy {
    /// The first policy.
    pub fn new(policy: Policy) -> Self {
        Self(ArcSwap::from_pointee(LoadedPolicy { generation: 1, policy }))
    }

    /// The policy in force.
    pub fn get(&self) -> Arc<LoadedPolicy> {
        self.0.load_full()
    }

    /// Puts another in force, and gives back its generation.
    pub fn replace(&self, policy: Policy) -> u64 {
        let generation = self.0.load().generation + 1;
        self.0.store(Arc::new(LoadedPolicy { generation, policy }));
        generation
    }
}

/// How the gate decides, whatever the policy says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The mode of rules that have none, and where no rule covers an image.
    pub mode: Mode,
    /// Whether a pod must name the digest of an image that must be signed.
    pub pin_required: bool,
    /// The most images of one review.
    pub images_per_review: usize,
    /// The most signatures tried for one image.
    pub signatures_per_image: usize,
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

/// The engine.
pub struct Gate {
    settings: Settings,
    policy: Arc<CurrentPolicy>,
    resolve: Arc<dyn ResolveDigest>,
    signatures: Arc<dyn FindSignatures>,
    metrics: Arc<Metrics>,
}

impl Gate {
    /// Puts the engine together.
    pub fn new(
        settings: Settings,
        policy: Arc<CurrentPolicy>,
        resolve: Arc<dyn ResolveDigest>,
        signatures: Arc<dyn FindSignatures>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { settings, policy, resolve, signatures, metrics }
    }

    /// Decides about every image, in the order in which they were given. Always answers by the deadline.
    pub async fn decide(&self, admission: &Admission<'_>) -> Vec<Decision> {
        let _ = (admission, &self.settings, &self.policy, &self.resolve, &self.signatures, &self.metrics);
        todo!("the gate")
    }
}
