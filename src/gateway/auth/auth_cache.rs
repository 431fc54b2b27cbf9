//! Caches the answers of backends for seconds.

use std::{fmt, future::Future, time::Duration};

use aws_lc_rs::{hmac, rand::SystemRandom};
use moka::sync::Cache;
use tokio::time::Instant;

use super::{AccessError, fair_queue::Priority};
use crate::single_flight::{SingleFlight, Unwanted};

/// The maximum number of entries in one cache. The least recently used entry is evicted.
const MAX_ENTRIES: u64 = 10_000;
/// The maximum lifetime of an entry.
const MAX_TTL: Duration = Duration::from_mins(1);
/// The time for which accepted credentials have the priority [`Priority::Proven`].
const PROVEN_TTL: Duration = Duration::from_hours(1);

/// The key of an answer: an HMAC of the question under a key of this process, so that the cache reveals no password or
/// token.
pub(super) type CacheKey = [u8; 32];

/// The answers by key. Errors are never cached, and concurrent questions with one key are a single flight.
pub(super) struct AuthCache<V> {
    key: hmac::Key,
    entries: Cache<CacheKey, CachedAnswer<V>>,
    flights: SingleFlight<CacheKey, Result<V, AccessError>>,
}

#[derive(Clone, Copy)]
struct CachedAnswer<V> {
    answer: V,
    until: Instant,
}

impl<V: Clone + Send + Sync + 'static> AuthCache<V> {
    /// Makes an empty cache. Returns `None` if the system has no randomness.
    pub(super) fn new() -> Option<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        let entries = Cache::builder().max_capacity(MAX_ENTRIES).time_to_live(MAX_TTL).build();
        Some(Self { key, entries, flights: SingleFlight::new(Unwanted::Finishes) })
    }

    /// Returns the key of a question that consists of these parts.
    pub(super) fn key(&self, parts: &[&[u8]]) -> CacheKey {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            // The length is included, so that "ab" + "c" has another key than "a" + "bc".
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let tag = context.sign();
        let mut key = CacheKey::default();
        key.copy_from_slice(tag.as_ref());
        key
    }

    /// Returns the cached answer, or else that of `ask`, which is cached for as long as `keep` says.
    pub(super) async fn get<F>(
        &self,
        key: CacheKey,
        keep: impl FnOnce(&V) -> Duration + Send + 'static,
        ask: impl FnOnce() -> F,
    ) -> Result<V, AccessError>
    where
        F: Future<Output = Result<V, AccessError>> + Send + 'static,
    {
        if let Some(cached) = self.entries.get(&key)
            && Instant::now() < cached.until
        {
            return Ok(cached.answer);
        }
        // The lifetime starts before the question: the answer may be outdated by the time it arrives.
        let asked = Instant::now();
        let start = || {
            let (entries, answer) = (self.entries.clone(), ask());
            async move {
                let answer = answer.await?;
                let time = keep(&answer).min(MAX_TTL);
                if !time.is_zero() {
                    entries.insert(key, CachedAnswer { answer: answer.clone(), until: asked + time });
                }
                Ok(answer)
            }
        };
        let completed = self.flights.join(&key, start).await;
        completed.answer.unwrap_or_else(|| Err(AccessError::unavailable()))
    }
}

/// The keys of credentials that were accepted recently: a client that sends them does not guess.
pub(super) struct ProvenCredentials(Cache<CacheKey, ()>);

impl ProvenCredentials {
    /// Makes an empty set.
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(MAX_ENTRIES).time_to_live(PROVEN_TTL).build())
    }

    /// Adds credentials that are accepted now.
    pub(super) fn add(&self, key: CacheKey) {
        self.0.insert(key, ());
    }

    /// Returns the priority of a check of these credentials.
    pub(super) fn priority(&self, key: &CacheKey) -> Priority {
        if self.0.contains_key(key) { Priority::Proven } else { Priority::Unproven }
    }
}

impl fmt::Debug for ProvenCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProvenCredentials").finish_non_exhaustive()
    }
}

impl<V> fmt::Debug for AuthCache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    #[derive(Clone, Default)]
    struct Counted(Arc<AtomicU32>);

    impl Counted {
        async fn get(&self, cache: &AuthCache<bool>, text: &str, answer: Result<bool, AccessError>) -> bool {
            let key = cache.key(&[text.as_bytes()]);
            let count = self.0.clone();
            let asked = cache.get(
                key,
                |yes| if *yes { TEN } else { Duration::from_secs(2) },
                || async move {
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    answer
                },
            );
            asked.await.unwrap_or(false)
        }

        fn asked(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_yes_is_kept_longer_than_a_no_and_an_error_not_at_all() {
        let (cache, counted) = (AuthCache::new().unwrap(), Counted::default());
        assert!(counted.get(&cache, "a", Ok(true)).await);
        assert!(!counted.get(&cache, "b", Ok(false)).await);
        assert!(!counted.get(&cache, "c", Err(AccessError::unavailable())).await);
        assert_eq!(counted.asked(), 3);
        assert!(counted.get(&cache, "a", Ok(false)).await);
        assert!(!counted.get(&cache, "b", Ok(true)).await);
        assert_eq!(counted.asked(), 3);
        assert!(counted.get(&cache, "c", Ok(true)).await);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(counted.get(&cache, "b", Ok(true)).await);
        assert!(counted.get(&cache, "a", Ok(false)).await);
        assert_eq!(counted.asked(), 5);
        tokio::time::advance(Duration::from_secs(8)).await;
        assert!(!counted.get(&cache, "a", Ok(false)).await);
    }

    #[tokio::test]
    async fn who_asks_the_same_at_once_shares_one_answer() {
        let (cache, counted) = (AuthCache::new().unwrap(), Counted::default());
        let all = (0..20).map(|_| counted.get(&cache, "a", Ok(true)));
        assert!(futures_util::future::join_all(all).await.into_iter().all(|yes| yes));
        assert_eq!(counted.asked(), 1);
    }

    #[tokio::test]
    async fn a_question_s_parts_have_borders() {
        let cache = AuthCache::<bool>::new().unwrap();
        assert_ne!(cache.key(&[b"ab", b"c"]), cache.key(&[b"a", b"bc"]));
        assert_ne!(
            cache.key(&[b"a"]),
            AuthCache::<bool>::new().unwrap().key(&[b"a"]),
            "each process has a key of its own"
        );
    }
}
