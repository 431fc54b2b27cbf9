//! Signatures: the bytes, what they claim, and whether they prove it. Pure: bytes, policy and time in, verdict out.

pub mod certificate;
mod claim;
pub mod compose;
mod envelope;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub(crate) mod identity;
pub mod keyring;
pub mod payload;
#[cfg(test)]
pub(crate) mod testing;
pub mod verify;

use std::{fmt, sync::Arc};

use jiff::Timestamp;

use crate::image::{Digest, Reference};
use crate::verdict::{LookupError, Refusal};

pub use certificate::{Certificate, Fingerprint, KeyFault};
pub use claim::{Claim, MOST_ISSUERS, claim, claimed_payload};
pub use compose::{ComposeError, compose};
pub use keyring::{CertificateError, KeyNotice, Keyring, Keys, UnusableKey};
pub use payload::{Payload, PayloadError};
pub use verify::{VerifiedImage, examine_all, verify, verify_each, verify_within};

/// A signature as some source handed it out; nothing about it is checked.
#[derive(Clone)]
pub struct UntrustedSignature {
    /// The OpenPGP message.
    pub content: Arc<[u8]>,
    /// Where it comes from, for people: a URL, with the signature's name where it has one.
    pub source: Arc<str>,
    /// Its number at its source, from 1.
    pub number: usize,
}

impl UntrustedSignature {
    /// Where it is, without the name that its source gave it.
    pub(crate) fn place(&self) -> Box<str> {
        match self.source.split_once('#') {
            Some((url, _)) => format!("{url}, entry {}", self.number).into(),
            None => (*self.source).into(),
        }
    }
}

/// All that could be found about one image, from all sources, and what became of each request.
#[derive(Clone, Debug, Default)]
pub struct FoundSignatures {
    /// The signatures, in the order of their sources.
    pub signatures: Vec<UntrustedSignature>,
    /// Each source that was asked.
    pub asked: Vec<AskedSource>,
}

/// What became of one request for signatures.
#[derive(Clone, Debug)]
pub struct AskedSource {
    /// The URL.
    pub url: Arc<str>,
    /// How many signatures there were, or why that could not be learned. "None" is `Ok(0)`.
    pub outcome: Result<usize, LookupError>,
}

impl FoundSignatures {
    /// The first source that could not be asked. While there is one, the absence of a signature proves nothing.
    pub fn failure(&self) -> Option<&LookupError> {
        self.asked.iter().find_map(|asked| asked.outcome.as_ref().err())
    }
}

/// What was learned of one signature, for people: `sealgate verify` prints it, logs carry it.
#[derive(Clone, Debug)]
pub struct ExaminedSignature {
    /// Its place in [`FoundSignatures::signatures`].
    pub place: usize,
    /// Where it comes from.
    pub source: Arc<str>,
    /// The key that it says made it; only with `outcome: Ok` is that proven.
    pub key: Option<Fingerprint>,
    /// The certificate of that key, where it is one of those that are wanted.
    pub certificate: Option<Fingerprint>,
    /// The signer in the policy whose key that is.
    pub signer: Option<Box<str>>,
    /// When it says it was made.
    pub signed_at: Option<Timestamp>,
    /// The signed docker reference; known only where the cryptographic check succeeded.
    pub identity: Option<Reference>,
    /// The signed digest; known only where the cryptographic check succeeded.
    pub digest: Option<Digest>,
    /// Whether it counts, or why not.
    pub outcome: Result<(), Refusal>,
}

impl fmt::Debug for UntrustedSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UntrustedSignature({} bytes from {})", self.content.len(), self.source)
    }
}
