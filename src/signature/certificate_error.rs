//! Why bytes are no certificate that a policy can name.

use std::fmt::{self, Write as _};

use super::certificate::Fingerprint;
use crate::text::UTF16_REMEDY;

/// The most keys of a keyring that can't be used, and the most revocations by themselves. Each is named to people; a key that
/// can't be used may have three bytes.
pub(crate) const MAX_NOTICES: usize = 1000;

/// Why bytes are no certificate that a policy can name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// There is no certificate.
    #[error("no OpenPGP certificate is there")]
    Empty,
    /// Not OpenPGP.
    #[error("this is not an OpenPGP certificate: {0}")]
    Malformed(String),
    /// Text of twice the size.
    #[error("the file is in UTF-16; {UTF16_REMEDY}")]
    Utf16,
    /// A secret key.
    #[error("this is a private key; export the public one with: gpg --armor --export {0}")]
    Private(Fingerprint),
    /// A secret key of a kind that can't be used either.
    #[error("this is a private key, and of a kind that is not supported ({0})")]
    PrivateUnusable(Unsupported),
    /// More than any keyring has.
    #[error("a keyring has at most {limit} bytes, this one {found}")]
    TooLarge {
        /// Bytes there.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// No key whose signatures can be checked.
    #[error("no key in it can be used here: {}", listed(.0))]
    Unusable(Vec<UnusableKey>),
    /// More that is passed over than anybody reads of.
    #[error("a keyring has at most {MAX_NOTICES} keys that can't be used here, and as many revocations by themselves")]
    TooManyNotices,
    /// Revocations alone.
    #[error("a revocation certificate is there, and not the key that it revokes")]
    OnlyRevocations,
}

/// A key whose signatures this build can't check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusableKey {
    /// Its fingerprint; of version 3, its key ID. `None` if its version is not known.
    pub key: Option<Fingerprint>,
    /// Why.
    pub why: Unsupported,
}

/// The property of a key that this build does not support.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsupported {
    /// The version of the key packet.
    #[error("OpenPGP key version {0}")]
    Version(u8),
    /// The elliptic curve.
    #[error("curve {0}")]
    Curve(Box<str>),
    /// The algorithm.
    #[error("algorithm {0}")]
    Algorithm(Box<str>),
}

/// The first few.
fn listed(keys: &[UnusableKey]) -> String {
    const MAX_LISTED: usize = 3;
    let mut text = keys.iter().take(MAX_LISTED).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if keys.len() > MAX_LISTED {
        let _ = write!(text, "; and {} more", keys.len() - MAX_LISTED);
    }
    text
}

impl fmt::Display for UnusableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "key {key} is of a kind that is not supported ({})", self.why),
            None => write!(f, "a key is of a kind that is not supported ({})", self.why),
        }
    }
}
