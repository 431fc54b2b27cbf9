//! Pushes an image to a registry, and verifies that the registry has it.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::image::{Digest, Reference, Repository};
use crate::image_files::{Image, ImageBlob, SourceManifest};
use crate::registry::{Blob, BlobOutcome, Client, LearnedLimit, ManifestContent, Target, UploadError};

/// The maximum number of blobs in flight.
const MAX_CONCURRENT_BLOBS: usize = 4;

/// An observer of a push.
pub trait PushObserver: Sync {
    /// Reports that the registry has this many bytes of a blob.
    fn sent(&self, blob: &ImageBlob, bytes: u64);
    /// Reports that the registry has the blob.
    fn settled(&self, blob: &ImageBlob, outcome: BlobOutcome);
}

/// The reason why the registry does not have the image, or may not have it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// A blob or manifest could not be pushed.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The reference has the digest of another image.
    #[error("the source is {found}, not {expected}")]
    OtherImage {
        /// The reference's digest.
        expected: Digest,
        /// The source's digest.
        found: Digest,
    },
    /// The registry accepted a blob or manifest, and does not return it.
    #[error("the registry accepted {0}, and does not have it as it was pushed: nothing is signed")]
    Lost(Digest),
    /// The tag names another image already.
    #[error(
        "the tag {tag} names another image than the one that was just pushed under it ({pushed}): nothing is signed"
    )]
    Moved {
        /// The tag.
        tag: String,
        /// The digest that was pushed.
        pushed: Digest,
    },
}

/// The outcome of each part of an image.
#[derive(Debug)]
pub struct Pushed {
    /// The image's digest.
    pub digest: Digest,
    /// The outcome for each manifest, the image's own last.
    pub manifests: Vec<(Digest, BlobOutcome)>,
    /// The digest, size and outcome of each blob.
    pub blobs: Vec<(Digest, u64, BlobOutcome)>,
}

/// Pushes an image, and verifies that the registry then has it: each blob, each manifest byte for byte, and the tag.
/// Mounts blobs from `mount_from`, another repository of the same registry, if it has them.
///
/// # Errors
/// After an error, the tag is not set, or it is unknown which image it names.
pub async fn push(
    client: &Client,
    image: &Reference,
    source: &Image,
    mount_from: Option<&Repository>,
    watch: &dyn PushObserver,
) -> Result<Pushed, PushError> {
    let target = client.target(image.repository()).map_err(UploadError::from)?;
    let Some(root) = source.manifests.last() else {
        // A source has at least one manifest, so this is never reached.
        return Ok(Pushed { digest: Digest::sha256(b""), manifests: Vec::new(), blobs: Vec::new() });
    };
    let mut root = root.clone();
    if let Some(expected) = image.digest() {
        // The reference may have a SHA-512.
        let found = Digest::of(expected.algorithm(), &root.bytes);
        if found != *expected {
            return Err(PushError::OtherImage { expected: *expected, found });
        }
        root.digest = found;
    }
    let from = mount_from.map(Repository::path);
    let learned = LearnedLimit::default();
    let blobs = stream::iter(&source.blobs).map(|blob| {
        let (target, learned) = (&target, &learned);
        async move {
            let pushed: Arc<dyn Blob> = Arc::new(blob.clone());
            let progress = |bytes| watch.sent(blob, bytes);
            let outcome = client.push_blob(target, &pushed, from, learned, &progress).await?;
            watch.settled(blob, outcome);
            Ok::<_, UploadError>((blob.digest, blob.data.length(), outcome))
        }
    });
    let blobs = blobs.buffered(MAX_CONCURRENT_BLOBS).try_collect().await?;
    let named = &source.manifests[..source.manifests.len() - 1];
    let mut manifests = Vec::new();
    for manifest in named {
        let outcome = client.push_manifest(&target, &manifest.digest.to_string(), content_of(manifest)).await?;
        manifests.push((manifest.digest, outcome));
    }
    let name = image.tag().map_or_else(|| root.digest.to_string(), |tag| tag.as_str().to_owned());
    manifests.push((root.digest, client.push_manifest(&target, &name, content_of(&root)).await?));
    check(client, &target, image, source, &root).await?;
    Ok(Pushed { digest: root.digest, manifests, blobs })
}

fn content_of(manifest: &SourceManifest) -> ManifestContent<'_> {
    let SourceManifest { digest, media_type, bytes, .. } = manifest;
    ManifestContent { digest: *digest, media_type, bytes }
}

async fn check(
    client: &Client,
    target: &Target,
    image: &Reference,
    source: &Image,
    root: &SourceManifest,
) -> Result<(), PushError> {
    let blobs = stream::iter(&source.blobs).map(|blob| async move {
        match client.has_blob(target, blob).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(PushError::Lost(blob.digest)),
            Err(error) => Err(error.into()),
        }
    });
    blobs.buffer_unordered(MAX_CONCURRENT_BLOBS).try_collect::<()>().await?;
    let named = &source.manifests[..source.manifests.len() - 1];
    for manifest in named.iter().chain([root]) {
        let stored = client.stored_manifest(target, &manifest.digest.to_string()).await?;
        if stored.as_deref() != Some(&*manifest.bytes) {
            return Err(PushError::Lost(manifest.digest));
        }
    }
    if let Some(tag) = image.tag() {
        let stored = client.stored_manifest(target, tag.as_str()).await?;
        if stored.as_deref() != Some(&*root.bytes) {
            return Err(PushError::Moved { tag: tag.as_str().to_owned(), pushed: root.digest });
        }
    }
    Ok(())
}
