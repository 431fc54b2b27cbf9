//! Why a store can't be used.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

/// Why a store can't be used. What a file holds is never guessed: what can't be read is an error, not an empty store.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the file.
    #[error("{}: another process has this store open, and only one may; end it, or give this one a file of its own", path.display())]
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
        /// What it is.
        what: Box<str>,
    },
    /// The file is of a version that this program does not know.
    #[error("{}: this store has format {found}, this program knows format {known}; use the version of sealgate that wrote it, or a later one", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What stands in it.
        found: u64,
        /// What is known here.
        known: u64,
    },
    /// The file's content can't be right.
    #[error(
        "{}: this store is damaged ({what}); put a backup in its place, or move the file away and have the images signed again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it shows.
        what: Box<str>,
    },
    /// It was opened to be read.
    #[error("{}: this store is only read here", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refuses.
    #[error("{}: the store can't be {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// `opened`, `read`, `written`.
        doing: &'static str,
        /// What it says.
        source: Arc<io::Error>,
    },
    /// It is closed for now; it opens again by itself.
    #[error("{}: the store is out of use after an error, and comes back by itself once the cause is gone: {cause}", path.display())]
    Stopped {
        /// The file.
        path: PathBuf,
        /// The error.
        cause: Box<str>,
    },
    /// It can't be asked now; whether a change is made is not known.
    #[error("{store}: the store is not available ({cause}); try again in {} s", retry_after.as_secs())]
    Unavailable {
        /// Its name.
        store: Box<str>,
        /// Why.
        cause: Box<str>,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// It says no, and will say so again.
    #[error("{store}: the store refuses ({cause}); see docs/gateway.md#etcd for what it needs")]
    Refused {
        /// Its name.
        store: Box<str>,
        /// What it says.
        cause: Box<str>,
    },
    /// What stands at a key can't be right.
    #[error(
        "etcd key {key}: {what}; restore a snapshot of etcd, or give gateway.store.etcd.prefix another value to begin with no signatures"
    )]
    Malformed {
        /// The key.
        key: Box<str>,
        /// What is wrong.
        what: Box<str>,
    },
    /// A file that the configuration names can't be used.
    #[error("{field}: {what}")]
    Setting {
        /// The field.
        field: Box<str>,
        /// What is wrong.
        what: Box<str>,
    },
}
