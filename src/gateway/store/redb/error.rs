//! Converts errors of redb to errors of the store.

use std::{io, path::Path, sync::Arc};

use redb::DatabaseError;

use crate::gateway::store::StoreError;

pub(super) fn io_error(path: &Path, doing: &'static str, source: io::Error) -> StoreError {
    StoreError::Io { path: path.into(), doing, source: Arc::new(source) }
}

pub(super) fn damaged(path: &Path, what: &str) -> StoreError {
    StoreError::Damaged { path: path.into(), what: what.into() }
}

pub(super) fn database_error(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::Locked { path: path.into() }
        }
        DatabaseError::UpgradeRequired(version) => {
            StoreError::NotAStore { path: path.into(), what: format!("a redb file of old format {version}").into() }
        }
        DatabaseError::RepairAborted => damaged(path, "it could not be repaired"),
        error => storage_error(path, "opened", error.into()),
    }
}

/// Converts an error of redb to an error of the store.
pub(super) fn storage_error(path: &Path, doing: &'static str, error: redb::Error) -> StoreError {
    match error {
        // redb returns this for a file that does not begin as its own do.
        redb::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
            StoreError::NotAStore { path: path.into(), what: source.to_string().into() }
        }
        redb::Error::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => damaged(path, "its end is missing"),
        redb::Error::Io(source) => io_error(path, doing, source),
        redb::Error::DatabaseAlreadyOpen => StoreError::Locked { path: path.into() },
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
            StoreError::Stopped { path: path.into(), cause: "there was an error before".into() }
        }
        error => damaged(path, &error.to_string()),
    }
}
