//! The one place that says yes: whether signatures prove what a rule requires.

use std::sync::Arc;

use jiff::Timestamp;

use super::{AskedSource, ExaminedSignature, Fingerprint, FoundSignatures};
use crate::image::{Descriptor, Digest, Reference};
use crate::policy::{Requirements, RuleId};
use crate::verdict::Refusal;

/// Proof that an image fulfils a rule's requirements. Only [`verify`] and [`verify_each`] build one.
#[derive(Clone, Debug)]
pub struct VerifiedImage {
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
    /// When the signature was made.
    pub signed_at: Timestamp,
}

/// What is asked of the signatures.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The image as it was asked for, canonical: identities are compared with this.
    pub image: &'a Reference,
    /// The digest that was computed over the manifest's bytes.
    pub digest: Digest,
    /// The rule that applies.
    pub rule: &'a RuleId,
    /// What it requires.
    pub requirements: &'a Requirements,
    /// The time that it is now.
    pub now: Timestamp,
    /// How many signatures may be tried (not: be there).
    pub tries: usize,
}

/// The answer, with what was seen on the way to it.
#[derive(Clone, Debug)]
pub struct Examination {
    /// The proof, or why there is none.
    pub result: Result<VerifiedImage, Refusal>,
    /// Each signature looked at.
    pub signatures: Vec<ExaminedSignature>,
    /// Each source asked.
    pub asked: Vec<AskedSource>,
}

impl VerifiedImage {
    /// The digest that is proven.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The rule that it fulfils.
    pub fn rule(&self) -> &RuleId {
        &self.rule
    }

    /// The keys whose signatures counted.
    pub fn keys(&self) -> &[VerifiedKey] {
        &self.keys
    }

    /// When the proof ends: the first expiry of a signature or certificate that it needs, or signing time + `maxAge`.
    pub fn valid_until(&self) -> Option<Timestamp> {
        self.valid_until
    }
}

/// Whether the signatures prove that the image fulfils the requirements.
///
/// One good signature suffices for a threshold of one; bad ones beside it do no harm. Where there is no proof and a source
/// could not be asked, the refusal is that source's failure: then nothing is known.
pub fn verify(question: &Question<'_>, found: &FoundSignatures) -> Examination {
    let _ = (question, found);
    todo!("verify")
}

/// Joins the proofs of every manifest in an index into one of the index: `platforms: each`.
///
/// `entries` are the descriptors of the index whose digest is `digest`, `proofs` what [`verify`] (or this function, for a
/// nested index) said of them. Refused unless there is at least one entry that is no attestation, and a proof by this same rule
/// for each of them.
pub fn verify_each(
    question: &Question<'_>,
    entries: &[Descriptor],
    proofs: &[Result<VerifiedImage, Refusal>],
) -> Result<VerifiedImage, Refusal> {
    let _ = (question, entries, proofs);
    todo!("verify_each")
}
