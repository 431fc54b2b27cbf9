//! The parts of an image, with the signatures of each, for commands that examine signatures. An image is one part; each
//! manifest in an index is another part, except attestations.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::Instant;

use crate::configuration::SignatureSource;
use crate::gate::ResolveDigest as _;
use crate::image::{Digest, HashedManifest, Manifest, Reference, Repository, Walk};
use crate::refusal::LookupError;
use crate::registry::Client;
use crate::signature_sources::Finder;
use crate::verification::FoundSignatures;

/// The time limit of one look-up, or one change in a store.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_mins(1);

/// A part of an image: the image itself, or a manifest of an index.
#[derive(Debug)]
pub(super) struct ManifestNode {
    pub(super) digest: Digest,
    /// `os/architecture[/variant]`, if the index has it.
    pub(super) platform: Option<String>,
    /// The entries, or the error of reading them. `None` for an image, which has no entries.
    pub(super) index: Result<Option<IndexNode>, LookupError>,
}

/// An index with its entries.
#[derive(Debug)]
pub(super) struct IndexNode {
    /// The index itself.
    pub(super) manifest: Arc<HashedManifest>,
    /// The entries in their order, each digest once, without attestations.
    pub(super) parts: Vec<ManifestNode>,
}

impl ManifestNode {
    /// Reads the image that a reference names.
    pub(super) async fn of(client: &Client, image: &Reference) -> Result<Self, LookupError> {
        let resolved = client.resolve(image, Instant::now() + STEP_TIMEOUT).await?;
        let digest = resolved.digest();
        let index = inside(client, image.repository(), resolved, 0, &Walk::default()).await?;
        Ok(Self { digest, platform: None, index: Ok(index) })
    }

    /// Returns this node and all below it, each digest once.
    pub(super) fn different(&self) -> Vec<&Self> {
        let mut different: Vec<&Self> = Vec::new();
        let mut next = vec![self];
        while let Some(part) = next.pop() {
            if different.iter().all(|known| known.digest != part.digest) {
                different.push(part);
            }
            if let Ok(Some(IndexNode { parts, .. })) = &part.index {
                next.extend(parts.iter().rev());
            }
        }
        different
    }
}

fn inside<'a>(
    client: &'a Client,
    repository: &'a Repository,
    manifest: Arc<HashedManifest>,
    depth: usize,
    walk: &'a Walk,
) -> BoxFuture<'a, Result<Option<IndexNode>, LookupError>> {
    async move {
        if *manifest.manifest() == Manifest::Image {
            return Ok(None);
        }
        let too_large = |beyond| LookupError::IndexTooLarge { url: repository.as_str().into(), beyond };
        let mut parts = Vec::new();
        for entry in walk.enter(manifest.entries(), depth).map_err(too_large)? {
            let image = Reference::from_parts(repository.clone(), None, Some(entry.digest));
            let index = match client.resolve(&image, Instant::now() + STEP_TIMEOUT).await {
                Ok(resolved) => inside(client, repository, resolved, depth + 1, walk).await?,
                // The signatures can be examined all the same.
                Err(error) => {
                    parts.push(ManifestNode {
                        digest: entry.digest,
                        platform: entry.platform.clone(),
                        index: Err(error),
                    });
                    continue;
                }
            };
            parts.push(ManifestNode { digest: entry.digest, platform: entry.platform.clone(), index: Ok(index) });
        }
        Ok(Some(IndexNode { manifest, parts }))
    }
    .boxed()
}

/// Returns the signatures of a digest that one source has.
pub(super) async fn found_at(
    client: &Arc<Client>,
    source: &SignatureSource,
    repository: &Repository,
    digest: Digest,
) -> Arc<FoundSignatures> {
    let finder = Finder::of_source(Arc::clone(client), source.clone());
    finder.find_complete(repository, digest, Instant::now() + STEP_TIMEOUT).await
}
