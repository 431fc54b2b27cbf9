//! The traits that the gate needs. `registry`, `signature_sources` and `telemetry` implement them; [`cache`](super::cache) wraps
//! the first two.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use tokio::time::Instant;

use crate::image::{Digest, HashedManifest, Reference, Repository};
use crate::refusal::LookupError;
use crate::verification::FoundSignatures;

/// Resolves references: a tag to its digest, and either to the manifest.
#[async_trait]
pub trait ResolveDigest: Send + Sync {
    /// Fetches the manifest that the reference names. With a digest, the request and the answer have that digest.
    ///
    /// # Errors
    /// [`LookupError`], at the deadline at the latest.
    async fn resolve(&self, image: &Reference, deadline: Instant) -> Result<Arc<HashedManifest>, LookupError>;
}

/// The signatures of an image, as the sources answer. It has at least one complete snapshot, at the deadline at the latest.
///
/// The first complete snapshot may be one that is cached. A reader that it does not satisfy reads on: where the snapshot is not
/// recent, the sources are asked again, and newer snapshots follow. A stream that ends has nothing newer.
pub type SignatureSnapshots<'a> = BoxStream<'a, SignatureSnapshot>;

/// Finds the signatures of an image.
pub trait FindSignatures: Send + Sync {
    /// Asks every source that is configured for the repository, side by side. The request ends when the stream is dropped,
    /// unless other callers wait for it, too.
    fn find<'a>(&'a self, repository: &'a Repository, digest: Digest, deadline: Instant) -> SignatureSnapshots<'a>;
}

/// The signatures and failures that are known at one time.
#[derive(Clone, Debug)]
pub struct SignatureSnapshot {
    /// The signatures, and each source with what became of its request.
    pub found: Arc<FoundSignatures>,
    /// True if each source has answered or failed. Otherwise those that have not answered are among the failures, so that
    /// the rest can be verified without them.
    pub is_complete: bool,
    /// The time for which a conclusion from the snapshot may be kept.
    pub lease: Lease,
}

impl SignatureSnapshot {
    /// Makes a complete snapshot from which no conclusion may be kept.
    pub fn complete(found: FoundSignatures) -> Self {
        Self { found: Arc::new(found), is_complete: true, lease: Lease::default() }
    }

    /// Makes a snapshot for which some sources have not answered yet, and from which no conclusion may be kept.
    pub fn partial(found: FoundSignatures) -> Self {
        Self { is_complete: false, ..Self::complete(found) }
    }
}

/// The time for which a conclusion from a snapshot may be kept. The default is no time at all, as where there is no cache.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lease(Option<LeaseEnds>);

#[derive(Clone, Copy, Debug)]
struct LeaseEnds {
    sufficient: Instant,
    insufficient: Instant,
}

impl Lease {
    /// Makes a lease with an end for the conclusion that the signatures suffice, and one for the conclusion that they do not.
    pub fn until(sufficient: Instant, insufficient: Instant) -> Self {
        Self(Some(LeaseEnds { sufficient, insufficient }))
    }

    /// Returns the end for a conclusion. Returns `None` if the conclusion must not be kept.
    pub fn keep_until(&self, sufficed: bool) -> Option<Instant> {
        let LeaseEnds { sufficient, insufficient } = self.0?;
        Some(if sufficed { sufficient } else { insufficient }).filter(|end| Instant::now() < *end)
    }
}

/// Records what the gate decides, and how its caches fare.
pub trait GateMetrics: Send + Sync {
    /// Counts a decision about one image. `rule` is a rule of the policy, or empty.
    fn image_decided(&self, verdict: &str, code: &str, rule: &str, mode: &str);

    /// Counts an image that runs only by this exemption.
    fn exemption_used(&self, exemption: &str);

    /// Counts a look-up in a cache.
    fn cache_request(&self, cache: &'static str, result: CacheResult);

    /// Sets the number of entries in a cache.
    fn cache_entries(&self, cache: &'static str, entries: u64);
}

/// The result of a look-up in a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheResult {
    /// The entry was there.
    Hit,
    /// The entry was not there.
    Miss,
}
