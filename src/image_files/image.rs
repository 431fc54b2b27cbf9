//! An image as a registry takes it: manifests and blobs.

use std::io;

use bytes::Bytes;

use super::data::Data;
use crate::image::{Digest, Manifest};
use crate::registry::Blob;

/// The most blobs of one image, all platforms together.
pub(super) const MAX_BLOBS: usize = 4096;

/// Hears how far the work on a layer is: which one, bytes done, bytes in all.
pub type CompressionProgress<'a> = &'a (dyn Fn(&Digest, u64, u64) + Sync);

/// An image as a registry takes it.
#[derive(Debug)]
pub struct Image {
    /// Its manifests, each behind those that it names. The last one is the image.
    pub manifests: Vec<SourceManifest>,
    /// The blobs that they name, each once.
    pub blobs: Vec<ImageBlob>,
}

/// A manifest or index.
#[derive(Clone, Debug)]
pub struct SourceManifest {
    /// Computed over its bytes.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// The manifests that it names, if it is an index.
    pub manifest: Manifest,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A layer or configuration.
#[derive(Clone, Debug)]
pub struct ImageBlob {
    /// The digest that it should have. Readers must check that it does.
    pub digest: Digest,
    /// Where it is.
    pub data: Data,
}

impl Blob for ImageBlob {
    fn digest(&self) -> Digest {
        self.digest
    }

    fn length(&self) -> u64 {
        self.data.length()
    }

    fn name(&self) -> &str {
        self.data.name()
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.data.read_at(offset, length)
    }
}
