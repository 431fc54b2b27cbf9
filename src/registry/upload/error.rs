//! The outcome of pushing a blob or manifest, and its errors.

use std::{io, time::Duration};

use crate::image::Mismatch;
use crate::refusal::LookupError;
use crate::registry::{retry, server_refused::ServerRefused};

/// The outcome of pushing a blob or manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobOutcome {
    /// The blob or manifest was sent.
    Pushed,
    /// The registry mounted the blob from another repository.
    Mounted,
    /// The registry had it already.
    Present,
}

/// The reason why a blob or manifest was not pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// The registry can't be asked, or gave no usable answer.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The registry refused it.
    #[error(transparent)]
    Refused(#[from] ServerRefused),
    /// The file to push can't be read.
    #[error("{name:?} can't be read: {source}")]
    Read {
        /// The file.
        name: String,
        /// The system's error.
        source: io::Error,
    },
    /// The file to push does not have the expected digest.
    #[error("{name:?} is damaged: {mismatch}")]
    Damaged {
        /// The file.
        name: String,
        /// The expected and the actual digest.
        mismatch: Box<Mismatch>,
    },
}

impl UploadError {
    /// Returns the time to wait before a retry: what the registry asks for, or else `otherwise`. `None` if a retry
    /// can't help.
    pub(super) fn wait(&self, otherwise: Duration) -> Option<Duration> {
        match self {
            Self::Lookup(error) => retry::wait_after(error, otherwise),
            _ => None,
        }
    }
}
