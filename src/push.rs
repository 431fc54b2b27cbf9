//! Pushing an image: in which order, and how it is made sure that the registry has it.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::image::{Digest, Reference, Repository};
use crate::image_files::{Image, ImageBlob, SourceManifest};
use crate::registry::{Blob, BlobOutcome, Client, LearnedLimit, ManifestContent, Target, UploadError};

/// Blobs under way at once.
const MAX_CONCURRENT_BLOBS: usize = 4;

/// Hears how a push goes on.
pub trait PushObserver: Sync {
    /// The registry has this many bytes of a blob.
    fn sent(&self, blob: &ImageBlob, bytes: u64);
    /// It has the blob.
    fn settled(&self, blob: &ImageBlob, outcome: BlobOutcome);
}

/// Why the registry does not have the image, or not for certain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// Something was not pushed.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The reference has a digest, and it is another image's.
    #[error("the source is {found}, not {expected}")]
    OtherImage {
        /// The reference's digest.
        expected: Digest,
        /// The source's.
        found: Digest,
    },
    /// The registry took something, and does not give it back.
    #[error("the registry took {0}, and does not have it as it was pushed: nothing is signed")]
    Lost(Digest),
    /// The tag names something else already.
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
    /// Of each manifest, the image's own last.
    pub manifests: Vec<(Digest, BlobOutcome)>,
    /// Of each blob.
    pub blobs: Vec<(Digest, u64, BlobOutcome)>,
}

/// Pushes an image, and looks whether the registry then has it: each blob, each manifest to the letter, and the tag. With
/// `mount_from`, another repository of the same registry, blobs are taken from there where it has them.
///
/// # Errors
/// Then the tag is not set, or it is not known for certain what it names.
pub async fn push(
    client: &Client,
    image: &Reference,
    source: &Image,
    mount_from: Option<&Repository>,
    watch: &dyn PushObserver,
) -> Result<Pushed, PushError> {
    let target = client.target(image.repository()).map_err(UploadError::from)?;
    let Some(root) = source.manifests.last() else {
        // Sources have at least one manifest; nothing is nothing.
        return Ok(Pushed { digest: Digest::sha256(b""), manifests: Vec::new(), blobs: Vec::new() });
    };
    let mut root = root.clone();
    if let Some(expected) = image.digest() {
        // Be it SHA-512.
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
