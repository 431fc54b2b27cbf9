//! The answer of verification: a proof or a refusal, with a report about each signature.

use std::sync::Arc;

use jiff::Timestamp;

use super::{found_signatures::AskedSource, proof::VerifiedImage};
use crate::image::{Digest, Reference};
use crate::refusal::Refusal;
use crate::signature::Fingerprint;

/// The answer, with what was seen on the way to it.
#[derive(Clone, Debug)]
pub struct Examination {
    /// The proof, or why there is none.
    pub result: Result<VerifiedImage, Refusal>,
    /// Each signature looked at, those that were tried first. Left out are copies, what came after the proof was there or
    /// the tries were over, and of signatures by keys that no requirement names all but the first 64; `asked` has the counts.
    pub signatures: Vec<ExaminedSignature>,
    /// Each source asked.
    pub asked: Vec<AskedSource>,
}

impl Examination {
    /// Returns a refusal before anything was seen.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        Self { result: Err(refusal), signatures: Vec::new(), asked: Vec::new() }
    }
}

/// The report about one signature, for people: `sealgate verify` prints it, logs carry it.
#[derive(Clone, Debug)]
pub struct ExaminedSignature {
    /// Its place in [`FoundSignatures::signatures`].
    pub place: usize,
    /// The place that it comes from: a URL.
    pub source: Arc<str>,
    /// The key that it says made it; only with `outcome: Ok` is that proven.
    pub key: Option<Fingerprint>,
    /// The certificate of that key, where it is one of those that are wanted.
    pub certificate: Option<Fingerprint>,
    /// The signer in the policy whose key that is.
    pub signer: Option<Box<str>>,
    /// The signing time that the signature claims.
    pub signed_at: Option<Timestamp>,
    /// The signed docker reference; known only where the cryptographic check succeeded.
    pub identity: Option<Reference>,
    /// The signed digest; known only where the cryptographic check succeeded.
    pub digest: Option<Digest>,
    /// `Ok` if it counts, or why it does not count.
    pub outcome: Result<(), Refusal>,
}
