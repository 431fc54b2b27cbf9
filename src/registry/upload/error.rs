//! What becomes of a blob or manifest that is pushed, and why it is not pushed.

use std::{io, time::Duration};

use crate::image::Mismatch;
use crate::refusal::LookupError;
use crate::registry::{retry, server_refused::ServerRefused};

/// The outcome of pushing a blob or manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobOutcome {
    /// It was sent.
    Pushed,
    /// The registry took it from another repository.
    Mounted,
    /// It was there.
    Present,
}

/// Why something was not pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// The registry can't be asked, or says nothing to stand on.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The registry does not take it.
    #[error(transparent)]
    Refused(#[from] ServerRefused),
    /// The file that is pushed can't be read.
    #[error("{name:?} can't be read: {source}")]
    Read {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The file that is pushed has another digest than it should.
    #[error("{name:?} is damaged: {mismatch}")]
    Damaged {
        /// The file.
        name: String,
        /// What it should be, and what it is.
        mismatch: Box<Mismatch>,
    },
}

impl UploadError {
    /// How long to wait before another try, if one may help: as the registry wishes, or so long.
    pub(super) fn wait(&self, otherwise: Duration) -> Option<Duration> {
        match self {
            Self::Lookup(error) => retry::wait_after(error, otherwise),
            _ => None,
        }
    }
}
