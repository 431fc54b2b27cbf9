//! The traits that the gate needs. `registry`, `signature_sources` and `telemetry` implement them; [`cache`](super::cache) wraps
//! the first two.

use std::sync::Arc;

use async_trait::async_trait;
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

/// A callback for what some sources found while others have not answered yet. It is called each time that there is more.
pub type Early<'a> = &'a (dyn Fn(Arc<FoundSignatures>) + Send + Sync);

/// Finds the signatures of an image.
#[async_trait]
pub trait FindSignatures: Send + Sync {
    /// Asks every source that is configured for the repository, side by side. The answer has the signatures and the failures.
    async fn find(&self, repository: &Repository, digest: Digest, deadline: Instant) -> Arc<FoundSignatures>;

    /// Asks as [`FindSignatures::find`] does. Where some sources have signatures and others have not answered, it calls `early`
    /// with what is there, the other sources among the failures, so that a caller can verify that without waiting.
    async fn find_early(
        &self,
        repository: &Repository,
        digest: Digest,
        deadline: Instant,
        _early: Early<'_>,
    ) -> Arc<FoundSignatures> {
        self.find(repository, digest, deadline).await
    }

    /// Asks the sources again where `found`, an earlier answer for this digest, did not suffice and is not recent. Returns
    /// `None` if there is nothing newer.
    async fn find_newer(
        &self,
        _repository: &Repository,
        _digest: Digest,
        _found: &Arc<FoundSignatures>,
        _deadline: Instant,
    ) -> Option<Arc<FoundSignatures>> {
        None
    }

    /// Returns the time until which a conclusion from `found`, an answer for this digest, may be kept: that it suffices, or that
    /// it does not. Returns `None` if the conclusion must not be kept, as where there is no cache.
    fn keep_until(
        &self,
        _repository: &Repository,
        _digest: Digest,
        _found: &Arc<FoundSignatures>,
        _sufficed: bool,
    ) -> Option<Instant> {
        None
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
