//! Proof that an image may run. A [`VerifiedImage`] is made in this file alone: its field is private, and no module is inside
//! this one. What was found out about signatures comes in as data.

use std::{num::NonZeroUsize, sync::Arc};

use jiff::Timestamp;

use super::{question::Question, time::earliest};
use crate::image::{Descriptor, Digest, HashedManifest, Reference, walk::runnable};
use crate::policy::RuleId;
use crate::refusal::Refusal;
use crate::signature::Fingerprint;

/// Proof that an image fulfils a rule's requirements. Only [`verify`](super::verify) and [`verify_each`](super::verify_each)
/// return one.
#[derive(Clone, Debug)]
pub struct VerifiedImage(Arc<Proof>);

#[derive(Debug)]
struct Proof {
    image: Reference,
    digest: Digest,
    rule: RuleId,
    keys: Arc<[VerifiedKey]>,
    valid_until: Option<Timestamp>,
}

/// A key whose signature counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedKey {
    /// The signer's name in the policy.
    pub signer: Box<str>,
    /// The certificate's fingerprint.
    pub fingerprint: Fingerprint,
    /// The time at which the signature was made.
    pub signed_at: Timestamp,
}

/// The signatures that count for one requirement.
pub(super) struct CountedSignatures {
    /// The number of signers that the requirement wants.
    pub(super) threshold: NonZeroUsize,
    /// One of each signer, with the end of its validity.
    pub(super) keys: Vec<(VerifiedKey, Option<Timestamp>)>,
}

/// Why the entries of an index are no proof of it.
pub(super) enum Unproven {
    /// The first refusal among them.
    Refused(Box<Refusal>),
    /// They are not the proofs that were asked for: another index, image, rule or digest, or another number of them.
    Mismatch,
}

impl VerifiedImage {
    /// Returns the proof if every requirement of the question has as many signatures as it wants. Returns `None` if there is no
    /// requirement, or no signature counted.
    pub(super) fn by_signatures(
        question: &Question<'_>,
        counted: impl Iterator<Item = CountedSignatures>,
    ) -> Option<Self> {
        let mut keys: Vec<VerifiedKey> = Vec::new();
        let mut valid_until = None;
        let mut requirements = 0;
        for CountedSignatures { threshold, keys: of_requirement } in counted {
            requirements += 1;
            if of_requirement.len() < threshold.get() {
                return None;
            }
            for (key, until) in of_requirement {
                valid_until = earliest([valid_until, until]);
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        (requirements == question.requirements.all.len()).then(|| Self::of(question, keys, valid_until))?
    }

    /// Joins the proofs of every manifest in an index, in their order, into one of the index.
    ///
    /// # Errors
    /// See [`Unproven`].
    pub(super) fn by_entries(
        question: &Question<'_>,
        index: &HashedManifest,
        proofs: &[Result<Self, Refusal>],
    ) -> Result<Self, Unproven> {
        let runnable: Vec<&Descriptor> = runnable(index.entries()).collect();
        if index.digest() != question.digest || runnable.len() != proofs.len() {
            return Err(Unproven::Mismatch);
        }
        let mut keys: Vec<VerifiedKey> = Vec::new();
        let mut valid_until = None;
        for (entry, proof) in runnable.into_iter().zip(proofs) {
            let proof = &*proof.as_ref().map_err(|refusal| Unproven::Refused(Box::new(refusal.clone())))?.0;
            if proof.digest != entry.digest || proof.rule != *question.rule || proof.image != *question.image {
                return Err(Unproven::Mismatch);
            }
            keys.extend(proof.keys.iter().filter(|key| !keys.contains(key)).cloned().collect::<Vec<_>>());
            valid_until = earliest([valid_until, proof.valid_until]);
        }
        Self::of(question, keys, valid_until).ok_or(Unproven::Mismatch)
    }

    /// Returns `None` without a key: that is no proof, whatever was counted before.
    fn of(question: &Question<'_>, keys: Vec<VerifiedKey>, valid_until: Option<Timestamp>) -> Option<Self> {
        let (image, digest, rule) = (question.image.clone(), question.digest, question.rule.clone());
        (!keys.is_empty()).then(|| Self(Arc::new(Proof { image, digest, rule, keys: keys.into(), valid_until })))
    }

    /// The image that it was asked for as.
    pub fn image(&self) -> &Reference {
        &self.0.image
    }

    /// The digest that is proven.
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// The rule that it fulfils.
    pub fn rule(&self) -> &RuleId {
        &self.0.rule
    }

    /// The keys whose signatures counted.
    pub fn keys(&self) -> &[VerifiedKey] {
        &self.0.keys
    }

    /// Returns the end of the proof: the first expiry of a signature or certificate that it needs, or signing time +
    /// `maxAge`. At that very time it is over.
    pub fn valid_until(&self) -> Option<Timestamp> {
        self.0.valid_until
    }
}
