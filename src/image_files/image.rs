//! An image in the form that a registry accepts: manifests and blobs.

use std::io;

use bytes::Bytes;

use super::data::Data;
use crate::image::{Digest, Manifest};
use crate::registry::Blob;

/// The maximum number of blobs in one image, all platforms together.
pub(super) const MAX_BLOBS: usize = 4096;

/// Reports the progress of compressing a layer: its digest, the bytes done, and the bytes in all.
pub type CompressionProgress<'a> = &'a (dyn Fn(&Digest, u64, u64) + Sync);

/// An image in the form that a registry accepts.
#[derive(Debug)]
pub struct Image {
    /// The manifests. Each comes after those that it names; the last one is the image's own.
    pub manifests: Vec<SourceManifest>,
    /// The blobs that the manifests name, each once.
    pub blobs: Vec<ImageBlob>,
}

/// A manifest or index.
#[derive(Clone, Debug)]
pub struct SourceManifest {
    /// The digest, computed over its bytes.
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
    /// The expected digest. Readers of the data must check it.
    pub digest: Digest,
    /// The data.
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
