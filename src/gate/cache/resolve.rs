//! Tag to digest, for a while; digest to manifest, for good.

use std::sync::Arc;

use async_trait::async_trait;
use moka::sync::Cache;
use tokio::time::{Instant, timeout_at};

use crate::gate::ports::{CacheResult, GateMetrics, ResolveDigest};
use crate::image::{Descriptor, Digest, HashedManifest, Manifest, Reference, Repository};
use crate::refusal::LookupError;

use super::{CacheTimes, Expires, stale_expiry};
use crate::single_flight::{Completed, SingleFlight, Unwanted};

/// The names of the caches in metrics.
const TAGS: &str = "tag";
const MANIFESTS: &str = "manifest";
/// Bytes that kept tags take, roughly, with their manifests: those may no longer be kept for themselves.
const TAG_BYTES: u64 = 32 << 20;
/// Bytes that kept manifests take, roughly.
const MANIFEST_BYTES: u64 = 32 << 20;

/// A [`ResolveDigest`] that asks once.
///
/// A manifest is what its digest names, now and ever: it is kept while there is room. A tag's digest is kept for
/// [`CacheTimes::tag`].
pub struct CachedResolve {
    shared: Arc<ResolveState>,
    times: CacheTimes,
    flights: SingleFlight<Reference, Result<Arc<HashedManifest>, LookupError>>,
}

struct ResolveState {
    inner: Arc<dyn ResolveDigest>,
    tags: Cache<Reference, CachedTag>,
    manifests: Cache<(Repository, Digest), Arc<HashedManifest>>,
    metrics: Arc<dyn GateMetrics>,
}

#[derive(Clone)]
struct CachedTag {
    image: Arc<HashedManifest>,
    until: Instant,
}

impl Expires for CachedTag {
    fn expires_at(&self) -> Instant {
        self.until
    }
}

impl CachedResolve {
    /// Wraps `inner`. Its requests run on the tokio runtime in which this is called; outside of one, on the caller's.
    pub fn new(inner: Arc<dyn ResolveDigest>, times: CacheTimes, metrics: Arc<dyn GateMetrics>) -> Self {
        let tags = Cache::builder()
            .max_capacity(TAG_BYTES)
            .weigher(|tag: &Reference, tagged: &CachedTag| weight(tag.repository(), &tagged.image))
            .expire_after(stale_expiry())
            .build();
        let manifests = Cache::builder()
            .max_capacity(MANIFEST_BYTES)
            .weigher(|(repository, _): &(Repository, Digest), image: &Arc<_>| weight(repository, image))
            .build();
        let shared = Arc::new(ResolveState { inner, tags, manifests, metrics });
        Self { shared, times, flights: SingleFlight::new(Unwanted::Finishes) }
    }
}

#[async_trait]
impl ResolveDigest for CachedResolve {
    async fn resolve(&self, image: &Reference, deadline: Instant) -> Result<Arc<HashedManifest>, LookupError> {
        let repository = image.repository();
        // With a digest, the tag is only claimed, and is not asked for.
        let (asked, cache) = match image.digest() {
            Some(digest) => (Reference::from_parts(repository.clone(), None, Some(*digest)), MANIFESTS),
            None => (image.clone(), TAGS),
        };
        if cache == TAGS && self.times.tag.is_zero() {
            let answer = self.shared.inner.resolve(&asked, deadline).await;
            return self.shared.checked(&asked, answer);
        }
        if let Some(resolved) = self.shared.look_up(&asked) {
            self.shared.metrics.cache_request(cache, CacheResult::Hit);
            return Ok(resolved);
        }
        self.shared.metrics.cache_request(cache, CacheResult::Miss);
        let began = Instant::now();
        loop {
            let start = || {
                let (shared, asked, times) = (Arc::clone(&self.shared), asked.clone(), self.times);
                async move { shared.ask(asked, times).await }
            };
            let Ok(Completed { answer, started }) = timeout_at(deadline, self.flights.join(&asked, start)).await else {
                return Err(LookupError::timed_out(repository, deadline.saturating_duration_since(began)));
            };
            match answer {
                // Another's request began earlier, and had less time than this caller has.
                Some(Err(error)) if error.is_out_of_time() && !started => {}
                Some(answer) => return answer,
                None => return Err(LookupError::without_answer(repository, "the look-up ended without an answer")),
            }
        }
    }
}

impl ResolveState {
    fn look_up(&self, asked: &Reference) -> Option<Arc<HashedManifest>> {
        match asked.digest() {
            Some(digest) => self.manifests.get(&(asked.repository().clone(), *digest)),
            None => self.tags.get(asked).filter(|tagged| Instant::now() < tagged.until).map(|tagged| tagged.image),
        }
    }

    async fn ask(&self, asked: Reference, times: CacheTimes) -> Result<Arc<HashedManifest>, LookupError> {
        // Another flight may have ended between the look-up and this one's start.
        if let Some(resolved) = self.look_up(&asked) {
            return Ok(resolved);
        }
        let began = Instant::now();
        let deadline = began + times.lookup;
        let Ok(answer) = timeout_at(deadline, self.inner.resolve(&asked, deadline)).await else {
            return Err(LookupError::timed_out(asked.repository(), times.lookup));
        };
        let resolved = self.checked(&asked, answer)?;
        if asked.digest().is_none() {
            // From when it was asked, not from when the answer came: it may have been old by then.
            let until = began + times.tag;
            self.tags.insert(asked, CachedTag { image: Arc::clone(&resolved), until });
            self.tags.run_pending_tasks();
            self.metrics.cache_entries(TAGS, self.tags.entry_count());
        }
        Ok(resolved)
    }

    /// Lets only the digest through that was asked for, and keeps the manifest. Of two that are the same, it gives the one
    /// that is kept.
    fn checked(
        &self,
        asked: &Reference,
        answer: Result<Arc<HashedManifest>, LookupError>,
    ) -> Result<Arc<HashedManifest>, LookupError> {
        let resolved = answer?;
        if asked.digest().is_some_and(|digest| *digest != resolved.digest()) {
            return Err(LookupError::another_digest(asked.repository()));
        }
        let key = (asked.repository().clone(), resolved.digest());
        if let Some(kept) = self.manifests.get(&key) {
            return Ok(kept);
        }
        self.manifests.insert(key, Arc::clone(&resolved));
        self.manifests.run_pending_tasks();
        self.metrics.cache_entries(MANIFESTS, self.manifests.entry_count());
        Ok(resolved)
    }
}

/// Bytes that a manifest takes, roughly.
fn weight(repository: &Repository, image: &HashedManifest) -> u32 {
    let entries = match image.manifest() {
        Manifest::Image => 0,
        Manifest::Index(entries) => {
            let platforms: usize =
                entries.iter().filter_map(|entry| entry.platform.as_ref()).map(String::capacity).sum();
            entries.capacity() * size_of::<Descriptor>() + platforms
        }
    };
    u32::try_from(512 + 2 * repository.as_str().len() + entries).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::Metrics;

    /// A registry whose every tag is a large index of its own; but two are the same.
    struct Large;

    #[async_trait]
    impl ResolveDigest for Large {
        async fn resolve(&self, image: &Reference, _: Instant) -> Result<Arc<HashedManifest>, LookupError> {
            let tag = image.tag().map_or("", |tag| tag.as_str());
            let content = if tag == "same" { "0" } else { tag };
            let entry = Descriptor {
                digest: Digest::sha256(b"entry"),
                platform: Some("x".repeat(PLATFORM)),
                attestation: false,
            };
            let manifest = Manifest::Index(vec![entry; ENTRIES]);
            Ok(Arc::new(HashedManifest::made_up(Digest::sha256(content.as_bytes()), manifest)))
        }
    }

    const ENTRIES: usize = 256;
    const PLATFORM: usize = 194;

    async fn resolve(cached: &CachedResolve, tag: &str) -> Arc<HashedManifest> {
        let image = Reference::for_image(&format!("registry.example.com/acme/web:{tag}")).unwrap();
        cached.resolve(&image, Instant::now() + Duration::from_secs(30)).await.unwrap()
    }

    fn cached() -> CachedResolve {
        let minute = Duration::from_mins(1);
        CachedResolve::new(
            Arc::new(Large),
            CacheTimes { tag: minute, signatures: minute, lookup: minute },
            Arc::new(Metrics::new()),
        )
    }

    #[tokio::test]
    async fn tags_and_manifests_are_bounded_in_bytes() {
        let cached = cached();
        for tag in 0..600 {
            resolve(&cached, &tag.to_string()).await;
        }
        let ResolveState { tags, manifests, .. } = &*cached.shared;
        for (kept, bytes) in [(tags.entry_count(), TAG_BYTES), (manifests.entry_count(), MANIFEST_BYTES)] {
            let each = (ENTRIES * (size_of::<Descriptor>() + PLATFORM)) as u64;
            assert!(kept > 0 && kept * each <= bytes, "{kept}");
        }
    }

    /// A registry that does not answer the first request in time.
    #[derive(Default)]
    struct SlowAtFirst(std::sync::atomic::AtomicUsize);

    #[async_trait]
    impl ResolveDigest for SlowAtFirst {
        async fn resolve(&self, image: &Reference, _: Instant) -> Result<Arc<HashedManifest>, LookupError> {
            if self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
                std::future::pending::<()>().await;
            }
            Ok(Arc::new(HashedManifest::made_up(Digest::sha256(image.to_string().as_bytes()), Manifest::Image)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_joined_a_look_up_which_timed_out_asks_anew() {
        let lookup = Duration::from_secs(6);
        let registry = Arc::new(SlowAtFirst::default());
        let times = CacheTimes { tag: lookup, signatures: lookup, lookup };
        let cached = CachedResolve::new(registry.clone(), times, Arc::new(Metrics::new()));
        let image = Reference::for_image("registry.example.com/acme/web:1").unwrap();
        let began = Instant::now();
        let first = cached.resolve(&image, began + lookup * 2);
        let second = async {
            tokio::time::sleep(lookup / 2).await;
            cached.resolve(&image, began + lookup * 2).await
        };
        let (first, second) = tokio::join!(first, second);
        assert!(matches!(first, Err(LookupError::TimedOut { .. })), "{first:?}");
        assert!(second.is_ok(), "{second:?}");
        assert_eq!(registry.0.load(std::sync::atomic::Ordering::Relaxed), 2);
    }

    #[test]
    fn the_weight_of_a_manifest_has_its_name_and_its_entries() {
        let repository = Repository::parse("registry.example.com/acme/web").unwrap();
        let digest = Digest::sha256(b"one");
        let of = |manifest| weight(&repository, &HashedManifest::made_up(digest, manifest));
        assert_eq!(of(Manifest::Image), 512 + 2 * 29);
        let entry = Descriptor { digest, platform: Some("x".repeat(10)), attestation: false };
        let entries = u32::try_from(3 * (size_of::<Descriptor>() + 10)).unwrap();
        assert_eq!(of(Manifest::Index(vec![entry; 3])), 512 + 2 * 29 + entries);
    }

    #[tokio::test]
    async fn two_tags_of_one_image_share_its_manifest() {
        let cached = cached();
        assert!(Arc::ptr_eq(&resolve(&cached, "0").await, &resolve(&cached, "same").await));
    }
}
