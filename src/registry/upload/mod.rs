//! Pushes blobs and manifests (distribution specification, "Pushing blobs", "Pushing manifests").

mod blob;
mod blob_reader;
mod error;
mod manifest;
mod offset;
mod presence;
mod push_blob;
mod session;
mod strategy;

pub use blob::Blob;
pub(crate) use blob::ManifestContent;
pub use error::{BlobOutcome, UploadError};
pub(crate) use strategy::LearnedLimit;
