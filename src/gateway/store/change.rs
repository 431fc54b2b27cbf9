//! Changes of the store, and their outcomes.

use super::{
    image_id::ImageId,
    record::{Record, Status},
    signature::SignatureName,
};
use crate::image::Digest;

/// A change of the store. It is durable once its outcome is returned, and visible to all callers of this process. If
/// several processes share a store, the others see it after some seconds at the latest.
#[derive(Clone, Debug)]
pub enum Change {
    /// Adds a signature. Of two concurrent changes with one name, one is created.
    Put(ImageId, Record),
    /// Removes a signature, with its origin and status.
    Remove(ImageId, SignatureName),
    /// Sets or clears a signature's status; with the digest of its content, only if the content is the same. Names are
    /// reused: the signature that a user checked may have been removed, and another one stored.
    SetStatus(ImageId, SignatureName, Option<Digest>, Option<Status>),
    /// Clears the statuses of all signatures of an image.
    ClearStatuses(ImageId),
    /// Adds a signature of another store, with its origin and status. If the same signature is there already, adds a
    /// missing origin or status to it.
    Import(ImageId, Record),
}

impl Change {
    /// Returns the image that the change is about.
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

/// The outcome of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The outcome of [`Change::Put`] and [`Change::Import`]. For an import, [`Put::ContentExists`], and
    /// [`Put::NameExists`] with the same content, become [`Put::Present`] or [`Put::Completed`].
    Put(Put),
    /// The outcome of the others: the number of signatures that were changed, 0 if there is no such signature.
    Signatures(usize),
    /// The outcome of [`Change::SetStatus`] if the signature of this name has another content. Nothing was changed.
    Another,
}

/// The outcome of storing a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The signature is stored durably.
    Created,
    /// The signature was there already, and did not change.
    Present,
    /// The signature was there already, and got an origin or a status.
    Completed,
    /// The image has another signature of this name.
    NameExists,
    /// The image has the same signature under another name.
    ContentExists,
    /// The image has the maximum number of signatures.
    TooMany {
        /// [`ImageLimits::signatures`].
        limit: usize,
    },
    /// The signer has the maximum number of signatures of the image.
    TooManyOfSigner {
        /// [`ImageLimits::signatures_per_signer`].
        limit: usize,
    },
    /// The image's list would be longer than clients read.
    TooLong {
        /// [`ImageLimits::list_bytes`].
        limit: usize,
    },
    /// The signer's part of the image's list would be too large.
    TooLongOfSigner {
        /// [`ImageLimits::list_bytes_of_signer`].
        limit: usize,
    },
}
