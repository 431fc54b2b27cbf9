//! Where signatures are kept. The trait knows of no engine; [`redb`] is the one that needs nothing beside a file, [`etcd`]
//! the one that several gateways share.

pub mod etcd;
mod list_cache;
mod quota;
mod record;
pub mod redb;

pub use list_cache::SignatureList;
pub use quota::ImageLimits;
pub use record::{Finding, Origin, Record, Status, kept_name};

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::image::Digest;
use crate::image::reference::{ReferenceError, check_path};

/// The longest repository name below a registry's host (distribution specification, "Pulling manifests").
const LONGEST_NAME: usize = 255;

/// A repository as registries name it: the path below the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// Parses a path of any depth, by the rules of an image reference's path.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > LONGEST_NAME {
            return Err(ReferenceError::NameTooLong { length: text.len() });
        }
        check_path(text)?;
        Ok(Self(text.into()))
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What signatures belong to. The same image in two repositories is two of these: a signature may be meant for one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageId {
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest's digest.
    pub digest: Digest,
}

/// The number of characters behind the `@` of a signature's name.
const NAME_CHARACTERS: usize = 32;

/// A signature's name without the digest in front: 32 characters of `A-Z a-z 0-9 _ . -`, which its maker chose.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SignatureName(Box<str>);

impl SignatureName {
    /// Parses the 32 characters; nothing: they are not.
    pub fn parse(text: &str) -> Option<Self> {
        let good = text.len() == NAME_CHARACTERS
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
        good.then(|| Self(text.into()))
    }

    /// The 32 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A signature in the store.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredSignature {
    /// Its name.
    pub name: SignatureName,
    /// The OpenPGP message.
    pub content: Arc<[u8]>,
}

impl fmt::Debug for StoredSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredSignature({}, {} bytes)", self.name.as_str(), self.content.len())
    }
}

/// What became of a signature that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is stored, and stays so through a loss of power.
    Created,
    /// It is there already, as it is.
    Present,
    /// It is there already, and more is known of it now: its origin, or its status.
    Completed,
    /// The image has a signature of this name.
    NameExists,
    /// The image has this very signature under another name.
    ContentExists,
    /// The image has as many signatures as it may have.
    TooMany {
        /// [`ImageLimits::signatures`].
        limit: usize,
    },
    /// Its signer has as many signatures of the image as one may have.
    TooManyOfSigner {
        /// [`ImageLimits::signatures_per_signer`].
        limit: usize,
    },
    /// The image's list would be longer than clients read.
    TooLong {
        /// [`ImageLimits::list_bytes`].
        limit: usize,
    },
    /// Its signer would take more of the image's list than one may.
    TooLongOfSigner {
        /// [`ImageLimits::list_bytes_of_signer`].
        limit: usize,
    },
}

/// A place in a store's order, behind a signature: where an export goes on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(Box<str>);

impl Position {
    /// Behind this signature.
    pub fn behind(image: &ImageId, name: &SignatureName) -> Self {
        Self(format!("{}@{}/{}", image.repository.as_str(), image.digest, name.as_str()).into())
    }

    /// Reads what [`Position::as_str`] gave.
    pub fn parse(text: &str) -> Option<Self> {
        let (image, name) = text.rsplit_once('/')?;
        let (repository, digest) = image.split_once('@')?;
        let image =
            ImageId { repository: RepositoryName::parse(repository).ok()?, digest: Digest::parse(digest).ok()? };
        Some(Self::behind(&image, &SignatureName::parse(name)?))
    }

    /// `repository@digest/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A change of what is stored. Each is durable once it is answered, and seen by all who ask the same program; where several
/// share a store, by those who ask another one some seconds later at the latest.
#[derive(Clone, Debug)]
pub enum Change {
    /// Adds a signature; of two at once with one name, one is created.
    Put(ImageId, Record),
    /// Takes a signature away, with all that is known of it.
    Remove(ImageId, SignatureName),
    /// Sets or clears a signature's status; with the digest of its content, only of that one. Names are given out again: the
    /// signature that somebody looked at may have been removed, and another one stored.
    SetStatus(ImageId, SignatureName, Option<Digest>, Option<Status>),
    /// Clears the statuses of all signatures of an image.
    ClearStatuses(ImageId),
    /// Adds a signature as it was in another store, with its origin and status. Where it is there already, to the byte, what
    /// is known of it is completed.
    Import(ImageId, Record),
}

impl Change {
    /// The image that it is about.
    pub fn image(&self) -> &ImageId {
        match self {
            Self::Put(image, _)
            | Self::Remove(image, _)
            | Self::SetStatus(image, ..)
            | Self::ClearStatuses(image)
            | Self::Import(image, _) => image,
        }
    }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Of [`Change::Put`] and [`Change::Import`]; of the latter, [`Put::ContentExists`] and [`Put::NameExists`] with the same
    /// content are [`Put::Present`] or [`Put::Completed`].
    Put(Put),
    /// Of the others: to how many signatures something was done. None: there is no such signature.
    Signatures(usize),
    /// Of [`Change::SetStatus`]: the signature of this name has another content, and nothing was done.
    Another,
}

/// Keeps signatures.
#[async_trait]
pub trait SignatureStore: Send + Sync + 'static {
    /// All signatures of an image, by name. None is not an error.
    async fn list(&self, image: &ImageId) -> Result<SignatureList, StoreError>;

    /// The same, with all that is known of each.
    async fn inspect(&self, image: &ImageId) -> Result<Vec<Record>, StoreError>;

    /// Makes a change, durably.
    async fn change(&self, change: Change) -> Result<Changed, StoreError>;

    /// Signatures behind a position, in order, `limit` at the most; fewer only at the end.
    async fn scan(&self, after: Option<&Position>, limit: usize) -> Result<Vec<(ImageId, Record)>, StoreError>;

    /// Whether signatures can be stored and read; an error says what to do.
    async fn health(&self) -> Result<(), StoreError>;
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names_are_paths_of_any_depth_and_nothing_else() {
        for good in ["web", "acme/web", "a/b/c/d/e", "acme/web_1.2-x"] {
            assert_eq!(RepositoryName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "/web", "web/", "a//b", "../web", "a/../b", "Web", "a b", "a\0b", "a%2Fb", &"a".repeat(256)] {
            assert!(RepositoryName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn signature_names_have_32_characters() {
        assert!(SignatureName::parse(&"a1".repeat(16)).is_some());
        for bad in ["", "a", &"a".repeat(31), &"a".repeat(33), &"@".repeat(32), &"é".repeat(16), &"/".repeat(32)] {
            assert!(SignatureName::parse(bad).is_none(), "{bad}");
        }
    }
}
