//! OpenPGP certificates ("public keys") that a policy trusts.

use std::fmt;

use jiff::Timestamp;

/// A fingerprint, upper-case hexadecimal digits. Where a signature names only a key ID, these are the 16 digits of it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub Box<str>);

/// A certificate that was read and may sign at some time.
#[derive(Clone)]
pub struct Certificate {
    inner: sequoia_openpgp::Cert,
}

/// Why bytes are no certificate that a policy can name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Nothing is there.
    #[error("no OpenPGP certificate is there")]
    Empty,
    /// Not OpenPGP.
    #[error("this is not an OpenPGP certificate: {0}")]
    Malformed(String),
    /// A secret key.
    #[error("this is a private key; export the public one with: gpg --armor --export {0}")]
    Private(Fingerprint),
}

impl Certificate {
    /// Reads every certificate of a keyring, armored or binary.
    pub fn parse_keyring(bytes: &[u8]) -> Result<Vec<Self>, CertificateError> {
        let _ = bytes;
        todo!("certificates")
    }

    /// The primary key's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.inner.fingerprint().to_hex().into())
    }

    /// When the last of its keys that may sign expires; nothing: never.
    pub fn expires_at(&self) -> Option<Timestamp> {
        todo!("certificates")
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.fingerprint())
    }
}
