//! Why a store is not moved.

use std::{io, path::PathBuf, time::Duration};

use crate::gateway::store::StoreError;
use crate::refusal::LookupError;
use crate::registry::{ServerRefused, retry::wait_after};

/// Why something is not moved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    /// A store that is opened here can't be used.
    #[error(transparent)]
    Store(StoreError),
    /// The same.
    #[error("{0}; if it is a running store's, give the store's URL in place of its file")]
    InUse(StoreError),
    /// A running store can't be asked.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// It is none.
    #[error("{url} answers {status}: there is no store of `sealgate gateway` at this address")]
    NoStore {
        /// What was asked.
        url: Box<str>,
        /// The status.
        status: u16,
    },
    /// It does not do it, or not for whoever asks: its own words say why.
    #[error(transparent)]
    Refused(ServerRefused),
    /// A file of this machine.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is there stays there.
    #[error("{}: this is there already; give another name, or move it away", .0.display())]
    Exists(PathBuf),
    /// Somebody else is at it.
    #[error("{}: another export writes this file; wait for its end", .0.display())]
    Busy(PathBuf),
    /// Something else is where an export is until it is whole.
    #[error("{}: no export has left this; move it away", .0.display())]
    NotPartial(PathBuf),
    /// Somebody wants it to end.
    #[error("interrupted")]
    Interrupted,
    /// Not what an import takes.
    #[error("{}: this is no export of a store: {why}", path.display())]
    NotAnExport {
        /// The file.
        path: PathBuf,
        /// What it is.
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

    /// How long to wait before another try, if one may help: as the other side wishes, or so long.
    pub(super) fn wait(&self, otherwise: Duration) -> Option<Duration> {
        match self {
            Self::Lookup(error) => wait_after(error, otherwise),
            Self::Store(StoreError::Unavailable { retry_after, .. }) => Some(*retry_after),
            _ => None,
        }
    }
}
