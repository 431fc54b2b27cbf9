//! The format of signatures: OpenPGP messages and certificates, payloads, and what is wrong with those that are malformed.
//! [`crate::verification`] decides whether a signature counts.

pub mod certificate;
mod certificate_error;
mod claim;
pub mod compose;
pub(crate) mod envelope;
pub(crate) mod framing;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod keyring;
mod malformed;
pub mod payload;
#[cfg(test)]
pub(crate) mod testing;

use std::{fmt, sync::Arc};

pub use certificate::{Certificate, Fingerprint, KeyFault};
pub use certificate_error::{CertificateError, Unsupported, UnusableKey};
pub use claim::{Claim, MAX_ISSUERS, claim, claimed_payload};
pub use compose::{ComposeError, compose};
pub use keyring::{KeyNotice, Keyring, Keys};
pub use malformed::{Disagreement, Malformed};
pub use payload::{Payload, PayloadError};

/// A signature as some source handed it out; nothing about it is checked.
#[derive(Clone)]
pub struct UntrustedSignature {
    /// The OpenPGP message.
    pub content: Arc<[u8]>,
    /// The place that it comes from, for people: a URL, with the signature's name where it has one.
    pub source: Arc<str>,
    /// Its number at its source, from 1.
    pub number: usize,
}

impl UntrustedSignature {
    /// Returns its place, without the name that its source gave it.
    pub(crate) fn place(&self) -> Box<str> {
        match self.source.split_once('#') {
            Some((url, _)) => format!("{url}, entry {}", self.number).into(),
            None => (*self.source).into(),
        }
    }
}

impl fmt::Debug for UntrustedSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UntrustedSignature({} bytes from {})", self.content.len(), self.source)
    }
}
