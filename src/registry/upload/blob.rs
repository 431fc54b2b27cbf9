//! The content that the registry client pushes, whatever its source.

use std::io;

use bytes::Bytes;

use crate::image::Digest;

/// A blob to push. Its bytes are read in parts, some of them more than once.
pub trait Blob: Send + Sync {
    /// Returns the digest that the bytes should have. An upload checks that they have it.
    fn digest(&self) -> Digest;

    /// Returns the number of bytes.
    fn length(&self) -> u64;

    /// Returns the name of the blob's file, for messages.
    fn name(&self) -> &str;

    /// Reads a part. Blocks.
    ///
    /// # Errors
    /// The part can't be read, or ends behind the end of the blob.
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>>;
}

/// A manifest or index to push.
#[derive(Clone, Copy)]
pub(crate) struct ManifestContent<'a> {
    pub(crate) digest: Digest,
    pub(crate) media_type: &'a str,
    pub(crate) bytes: &'a Bytes,
}
