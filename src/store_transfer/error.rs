//! Errors of a transfer.

use std::{io, path::PathBuf, time::Duration};

use crate::gateway::store::StoreError;
use crate::refusal::LookupError;
use crate::registry::{ServerRefused, retry::wait_after};

/// The reason why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    /// A store that this process opened failed.
    #[error(transparent)]
    Store(StoreError),
    /// Another process has the store open.
    #[error("{0}; if it is a running store's, give the store's URL in place of its file")]
    InUse(StoreError),
    /// A running store can't be asked.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The server is not a store.
    #[error("{url} answers {status}: there is no store of `sealgate gateway` at this address")]
    NoStore {
        /// The URL of the request.
        url: Box<str>,
        /// The status.
        status: u16,
    },
    /// The store refused the request; its message says why.
    #[error(transparent)]
    Refused(ServerRefused),
    /// A file on this machine can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file of this name exists, and is not replaced.
    #[error("{}: this is there already; give another name, or move it away", .0.display())]
    Exists(PathBuf),
    /// Another export is writing the file.
    #[error("{}: another export writes this file; wait for its end", .0.display())]
    Busy(PathBuf),
    /// Another file has the name of an unfinished export.
    #[error("{}: this is no unfinished export; move it away", .0.display())]
    NotPartial(PathBuf),
    /// The user interrupted the command.
    #[error("interrupted")]
    Interrupted,
    /// The file is no export.
    #[error("{}: this is no export of a store: {why}", path.display())]
    NotAnExport {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
}

impl From<StoreError> for TransferError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::Locked { .. }) { Self::InUse(error) } else { Self::Store(error) }
    }
}

impl TransferError {
    pub(super) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// Returns how long to wait before a retry, if one may help: what the server asks for, else `otherwise`.
    pub(super) fn wait(&self, otherwise: Duration) -> Option<Duration> {
        match self {
            Self::Lookup(error) => wait_after(error, otherwise),
            Self::Store(StoreError::Unavailable { retry_after, .. }) => Some(*retry_after),
            _ => None,
        }
    }
}
