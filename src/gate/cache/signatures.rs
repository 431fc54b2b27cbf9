//! Digest to signatures, for a while.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use moka::sync::Cache;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::gate::deadline::{SOURCE_GRACE, source_time};
use crate::gate::ports::{CacheResult, Early, FindSignatures, GateMetrics};
use crate::image::{Digest, Repository};
use crate::refusal::LookupError;
use crate::single_flight::{Completed, SingleFlight, Unwanted};
use crate::verification::{AskedSource, FoundSignatures};

use super::{CacheTimes, Expires, NEGATIVE_TTL, stale_expiry};

/// The name of the cache in metrics.
const CACHE: &str = "signatures";
/// Bytes that kept signatures take, roughly.
const CAPACITY: u64 = 64 << 20;

type Key = (Repository, Digest);

/// A [`FindSignatures`] that asks once.
///
/// Signatures are kept for [`CacheTimes::signatures`]; that there are none, for [`NEGATIVE_TTL`]. Where a source failed, nothing
/// is kept. A caller that finds that signatures do not suffice can ask for what came since: that is no other question's matter.
pub struct CachedSignatures {
    shared: Arc<SignatureState>,
    times: CacheTimes,
    flights: SingleFlight<Key, Arc<FoundSignatures>>,
}

struct SignatureState {
    inner: Arc<dyn FindSignatures>,
    found: Cache<Key, Arc<CachedList>>,
    /// What is there of flights that still wait for late sources.
    early: Mutex<HashMap<Key, Arc<FoundSignatures>>>,
    /// Says that something came in there, whatever it is.
    came_early: Notify,
    metrics: Arc<dyn GateMetrics>,
}

/// Takes what came early away when its flight ends, however it does.
struct EarlyEntryGuard<'a>(&'a SignatureState, Key);

impl Drop for EarlyEntryGuard<'_> {
    fn drop(&mut self) {
        self.0.early.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

struct CachedList {
    found: Arc<FoundSignatures>,
    asked_at: Instant,
    until: Instant,
}

impl CachedList {
    /// The time until which it may be believed that nothing more is there.
    fn until_asked_again(&self) -> Instant {
        self.until.min(self.asked_at + NEGATIVE_TTL)
    }
}

/// How old a list of signatures may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MaxAge {
    /// As old as the configuration lets it get.
    Usual,
    /// Not older than [`NEGATIVE_TTL`].
    Fresh,
}

impl Expires for Arc<CachedList> {
    fn expires_at(&self) -> Instant {
        self.until
    }
}

impl CachedSignatures {
    /// Wraps `inner`. Its requests run on the tokio runtime in which this is called; outside of one, on the caller's.
    pub fn new(inner: Arc<dyn FindSignatures>, times: CacheTimes, metrics: Arc<dyn GateMetrics>) -> Self {
        let found = Cache::builder()
            .max_capacity(CAPACITY)
            .weigher(|_, kept: &Arc<CachedList>| weight(&kept.found))
            .expire_after(stale_expiry())
            .build();
        let shared = SignatureState { inner, found, early: Mutex::default(), came_early: Notify::new(), metrics };
        Self { shared: Arc::new(shared), times, flights: SingleFlight::new(Unwanted::Finishes) }
    }
}

#[async_trait]
impl FindSignatures for CachedSignatures {
    async fn find(&self, repository: &Repository, digest: Digest, deadline: Instant) -> Arc<FoundSignatures> {
        self.find_early(repository, digest, deadline, &|_| {}).await
    }

    async fn find_early(
        &self,
        repository: &Repository,
        digest: Digest,
        deadline: Instant,
        early: Early<'_>,
    ) -> Arc<FoundSignatures> {
        if self.times.signatures.is_zero() {
            return self.shared.inner.find_early(repository, digest, deadline, early).await;
        }
        let key = (repository.clone(), digest);
        if let Some(kept) = self.shared.look_up(&key, MaxAge::Usual) {
            self.shared.metrics.cache_request(CACHE, CacheResult::Hit);
            return kept;
        }
        self.shared.metrics.cache_request(CACHE, CacheResult::Miss);
        self.join_flight(&key, MaxAge::Usual, deadline, early).await
    }

    async fn find_newer(
        &self,
        repository: &Repository,
        digest: Digest,
        found: &Arc<FoundSignatures>,
        deadline: Instant,
    ) -> Option<Arc<FoundSignatures>> {
        let key = (repository.clone(), digest);
        // What is not kept was asked for just now.
        let kept = self.shared.found.get(&key)?;
        let newer = if Instant::now() < kept.until_asked_again() {
            Arc::clone(&kept.found)
        } else {
            self.join_flight(&key, MaxAge::Fresh, deadline, &|_| {}).await
        };
        (!Arc::ptr_eq(&newer, found)).then_some(newer)
    }

    fn keep_until(
        &self,
        repository: &Repository,
        digest: Digest,
        found: &Arc<FoundSignatures>,
        sufficed: bool,
    ) -> Option<Instant> {
        if self.times.signatures.is_zero() {
            return None;
        }
        if found.failure().is_some() {
            // Only a proof can come of it. It is one, but the failed source should be heard again soon.
            return Some(Instant::now() + self.times.signatures.min(NEGATIVE_TTL));
        }
        let kept = self.shared.kept(repository, digest, found)?;
        Some(if sufficed { kept.until } else { kept.until_asked_again() })
    }
}

impl CachedSignatures {
    /// Asks the sources, or waits for who does. A caller whose deadline is earlier takes what is there by then.
    async fn join_flight(&self, key: &Key, age: MaxAge, deadline: Instant, early: Early<'_>) -> Arc<FoundSignatures> {
        let began = Instant::now();
        let mut told: Option<Arc<FoundSignatures>> = None;
        loop {
            let start = || {
                let (shared, key, times) = (Arc::clone(&self.shared), key.clone(), self.times);
                async move { shared.ask(key, age, times).await }
            };
            let mut landing = pin!(timeout_at(deadline, self.flights.join(key, start)));
            let landed = loop {
                tokio::select! {
                    landed = &mut landing => break landed,
                    found = self.shared.early(key, told.as_ref()) => {
                        told = Some(Arc::clone(&found));
                        early(found);
                    }
                }
            };
            let Ok(Completed { answer, started }) = landed else {
                let time = deadline.saturating_duration_since(began);
                return self.shared.now(key).unwrap_or_else(|| nothing(&key.0, LookupError::timed_out(&key.0, time)));
            };
            match answer {
                // Another's request began earlier, and had less time than this caller has. If something was found, that is
                // examined first: mostly it suffices.
                Some(found) if !started && found.signatures.is_empty() && some_source_timed_out(&found) => {}
                Some(found) => return found,
                None => {
                    return nothing(&key.0, LookupError::without_answer(&key.0, "the look-up ended without an answer"));
                }
            }
        }
    }
}

impl SignatureState {
    /// What is kept of this very list. Another may have taken its place meanwhile, and says nothing about it.
    fn kept(&self, repository: &Repository, digest: Digest, found: &Arc<FoundSignatures>) -> Option<Arc<CachedList>> {
        self.found.get(&(repository.clone(), digest)).filter(|kept| Arc::ptr_eq(&kept.found, found))
    }

    fn look_up(&self, key: &Key, age: MaxAge) -> Option<Arc<FoundSignatures>> {
        let kept = self.found.get(key)?;
        let until = if age == MaxAge::Fresh { kept.until_asked_again() } else { kept.until };
        (Instant::now() < until).then(|| Arc::clone(&kept.found))
    }

    /// What is there by now for this key of a flight that still waits for late sources.
    fn now(&self, key: &Key) -> Option<Arc<FoundSignatures>> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Waits for what comes early for this key, another than `told`.
    async fn early(&self, key: &Key, told: Option<&Arc<FoundSignatures>>) -> Arc<FoundSignatures> {
        loop {
            let mut came = pin!(self.came_early.notified());
            // From here on nothing is missed.
            came.as_mut().enable();
            match self.now(key) {
                Some(found) if told.is_none_or(|told| !Arc::ptr_eq(told, &found)) => return found,
                _ => came.await,
            }
        }
    }

    async fn ask(&self, key: Key, age: MaxAge, times: CacheTimes) -> Arc<FoundSignatures> {
        // Another flight may have ended between the look-up and this one's start.
        if let Some(kept) = self.look_up(&key, age) {
            return kept;
        }
        let asked_at = Instant::now();
        let deadline = asked_at + source_time(times.lookup);
        let take_away = EarlyEntryGuard(self, key.clone());
        let early = |found| {
            self.early.lock().unwrap_or_else(PoisonError::into_inner).insert(take_away.1.clone(), found);
            self.came_early.notify_waiters();
        };
        let finding = self.inner.find_early(&key.0, key.1, deadline, &early);
        let Ok(found) = timeout_at(deadline + SOURCE_GRACE, finding).await else {
            return nothing(&key.0, LookupError::timed_out(&key.0, times.lookup));
        };
        if found.failure().is_none() {
            let lifetime =
                if found.signatures.is_empty() { times.signatures.min(NEGATIVE_TTL) } else { times.signatures };
            let kept = CachedList {
                found: Arc::clone(&found),
                asked_at,
                // From when it was asked, not from when the answer came: it may have been old by then.
                until: asked_at + lifetime,
            };
            self.found.insert(key, Arc::new(kept));
            self.found.run_pending_tasks();
            self.metrics.cache_entries(CACHE, self.found.entry_count());
        }
        found
    }
}

fn some_source_timed_out(found: &FoundSignatures) -> bool {
    found.asked.iter().any(|asked| asked.outcome.as_ref().is_err_and(LookupError::is_out_of_time))
}

/// No source could be asked.
fn nothing(repository: &Repository, error: LookupError) -> Arc<FoundSignatures> {
    let url = repository.as_str().into();
    Arc::new(FoundSignatures { signatures: Vec::new(), asked: vec![AskedSource { url, outcome: Err(error) }] })
}

/// Bytes that signatures take, roughly.
fn weight(found: &FoundSignatures) -> u32 {
    let signatures = found.signatures.iter().map(|signature| signature.content.len() + signature.source.len() + 160);
    let asked = found.asked.iter().map(|asked| asked.url.len() + 256);
    u32::try_from(512 + signatures.sum::<usize>() + asked.sum::<usize>()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::UntrustedSignature;

    #[test]
    fn the_weight_of_signatures_has_all_of_their_texts() {
        let text: Arc<str> = "x".repeat(1000).into();
        let signature = UntrustedSignature { content: vec![0; 1000].into(), source: Arc::clone(&text), number: 1 };
        let asked = vec![AskedSource { url: text, outcome: Ok(10) }];
        assert_eq!(weight(&FoundSignatures { signatures: vec![signature; 10], asked }), 512 + 10 * 2_160 + 1_256);
    }
}
