//! Changes of what is stored, and their outcomes.

use super::{
    image_id::ImageId,
    record::{Record, Status},
    signature::SignatureName,
};
use crate::image::Digest;

/// A change of what is stored. Each is durable once it is answered, and seen by all who ask the same program; where several
/// share a store, by those who ask another one some seconds later at the latest.
#[derive(Clone, Debug)]
pub enum Change {
    /// Adds a signature; of two at once with one name, one is created.
    Put(ImageId, Record),
    /// Takes a signature away, with all that is known of it.
    Remove(ImageId, SignatureName),
    /// Sets or clears a signature's status; with the digest of its content, only of that one. Names are given out again: the
    /// signature that a user looked at may have been removed, and another one stored.
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
    /// Of the others: how many signatures were changed. 0 if there is no such signature.
    Signatures(usize),
    /// Of [`Change::SetStatus`]: the signature of this name has another content, and nothing was done.
    Another,
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
