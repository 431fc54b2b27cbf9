//! Errors of a signature store.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

/// The reason why a store can't be used. Content that can't be read is always an error, and never an empty store.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the file open.
    #[error("{}: another process has this store open, and only one may; stop it, or give this one a file of its own", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file has no bytes.
    #[error(
        "{}: this store's file is empty (0 bytes), as a broken copy or a full disk leaves it; put a backup in its place, or remove the file to begin with no signatures",
        path.display()
    )]
    NoBytes {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{}: this is not a store of signatures ({what}); give the file's right name in gateway.store, or move this one away", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// The kind of the file.
        what: Box<str>,
    },
    /// The file has a format that this version does not support.
    #[error("{}: this store has format {found}, this program knows format {known}; use the version of sealgate that wrote it, or a later one", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format of the file.
        found: u64,
        /// The format of this version.
        known: u64,
    },
    /// The file is damaged.
    #[error(
        "{}: this store is damaged ({what}); put a backup in its place, or move the file away and have the images signed again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The place of the damage.
        what: Box<str>,
    },
    /// The store was opened for reading only.
    #[error("{}: this store is open for reading only", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// The operating system returned an error.
    #[error("{}: the store can't be {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operation: `opened`, `read`, `written`.
        doing: &'static str,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The store is closed after an error, and will be opened again automatically.
    #[error("{}: the store is closed after an error, and opens again by itself once the cause is gone: {cause}", path.display())]
    Stopped {
        /// The file.
        path: PathBuf,
        /// The error.
        cause: Box<str>,
    },
    /// The store can't be asked now. It is unknown whether a change was made.
    #[error("{store}: the store is not available ({cause}); try again in {} s", retry_after.as_secs())]
    Unavailable {
        /// The name of the store.
        store: Box<str>,
        /// The cause.
        cause: Box<str>,
        /// The time until a retry.
        retry_after: Duration,
    },
    /// The store refuses, and would refuse a retry.
    #[error("{store}: the store refuses ({cause}); see docs/gateway.md#etcd for what it needs")]
    Refused {
        /// The name of the store.
        store: Box<str>,
        /// The store's message.
        cause: Box<str>,
    },
    /// The value of a key is malformed.
    #[error(
        "etcd key {key}: {what}; restore a snapshot of etcd, or give gateway.store.etcd.prefix another value to begin with no signatures"
    )]
    Malformed {
        /// The key.
        key: Box<str>,
        /// The problem.
        what: Box<str>,
    },
    /// A file that the configuration names can't be used.
    #[error("{field}: {what}")]
    Setting {
        /// The field.
        field: Box<str>,
        /// The problem.
        what: Box<str>,
    },
}
