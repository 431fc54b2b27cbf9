//! Pushing (distribution specification, "Pushing blobs", "Pushing manifests").

mod blob;
mod body;
mod error;
mod manifest;
mod offset;
mod presence;
mod session;
mod strategy;

pub use error::{BlobOutcome, UploadError};
pub(crate) use strategy::LearnedLimit;
