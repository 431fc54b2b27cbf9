//! The signed payload, "simple signing" (containers-signature(5)): JSON, read strictly.

use crate::image::{Digest, Reference};

/// What a signature claims of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// `critical.image.docker-manifest-digest`.
    pub digest: Digest,
    /// `critical.identity.docker-reference`, canonical; without tag and digest where the signer gave none.
    pub identity: Reference,
    /// `optional.creator`.
    pub creator: Option<String>,
    /// `optional.timestamp`, seconds since 1970. Nothing is decided on it: the OpenPGP signature's own time counts.
    pub timestamp: Option<i64>,
}

/// Why a payload is malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// See the text.
    #[error("the signed payload is not strict JSON: {0}")]
    Json(String),
}

impl Payload {
    /// Parses a payload: the members `critical` and `optional` only; inside `critical` exactly `type`,
    /// `image.docker-manifest-digest` and `identity.docker-reference`; no member twice, anywhere that counts.
    pub fn parse(bytes: &[u8]) -> Result<Self, PayloadError> {
        let _ = bytes;
        todo!("payload")
    }
}
