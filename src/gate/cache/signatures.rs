//! Digest to signatures, for a while.

use std::{
    collections::HashMap,
    mem,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use moka::sync::Cache;
use tokio::{
    sync::Notify,
    time::{Instant, error::Elapsed, timeout_at},
};

use crate::gate::deadline::{SOURCE_GRACE, source_time};
use crate::gate::ports::{CacheResult, FindSignatures, GateMetrics, Lease, SignatureSnapshot, SignatureSnapshots};
use crate::image::{Digest, Repository};
use crate::refusal::LookupError;
use crate::single_flight::{Completed, SingleFlight, Unwanted};
use crate::verification::FoundSignatures;

use super::{CacheTimes, Expires, NEGATIVE_TTL, stale_expiry};

/// The name of the cache in metrics.
const CACHE: &str = "signatures";
/// Bytes that kept signatures take, roughly.
const CAPACITY: u64 = 64 << 20;

type Key = (Repository, Digest);

/// A [`FindSignatures`] that asks once for all callers.
///
/// Signatures are kept for [`CacheTimes::signatures`]; that there are none, for [`NEGATIVE_TTL`]. Where a source failed, nothing
/// is kept. A reader that goes on after a cached list gets a newer one, but the sources are asked again once in [`NEGATIVE_TTL`]
/// at the most.
pub struct CachedSignatures {
    shared: Arc<SignatureState>,
    times: CacheTimes,
    flights: SingleFlight<Key, SignatureSnapshot>,
}

struct SignatureState {
    inner: Arc<dyn FindSignatures>,
    lists: Cache<Key, Arc<CachedList>>,
    /// The latest partial snapshot of each flight.
    partial: Mutex<HashMap<Key, SignatureSnapshot>>,
    /// Wakes the readers of all flights when a partial snapshot comes.
    partial_came: Notify,
    metrics: Arc<dyn GateMetrics>,
}

/// Removes the partial snapshot of a flight when that ends, also by a panic.
struct PartialGuard<'a>(&'a SignatureState, Key);

impl Drop for PartialGuard<'_> {
    fn drop(&mut self) {
        self.0.partial_snapshots().remove(&self.1);
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

    fn snapshot(&self) -> SignatureSnapshot {
        let lease = Lease::until(self.until, self.until_asked_again());
        SignatureSnapshot { found: Arc::clone(&self.found), is_complete: true, lease }
    }
}

/// The age that a list of signatures may have.
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
        let lists = Cache::builder()
            .max_capacity(CAPACITY)
            .weigher(|_, list: &Arc<CachedList>| weight(&list.found))
            .expire_after(stale_expiry())
            .build();
        let (partial, partial_came) = (Mutex::default(), Notify::new());
        let shared = SignatureState { inner, lists, partial, partial_came, metrics };
        Self { shared: Arc::new(shared), times, flights: SingleFlight::new(Unwanted::Finishes) }
    }
}

impl FindSignatures for CachedSignatures {
    fn find<'a>(&'a self, repository: &'a Repository, digest: Digest, deadline: Instant) -> SignatureSnapshots<'a> {
        if self.times.signatures.is_zero() {
            return self.shared.inner.find(repository, digest, deadline);
        }
        let key = (repository.clone(), digest);
        let reader = SnapshotReader { cache: self, key, deadline, began: Instant::now(), next: Next::First };
        stream::unfold(reader, |mut reader| async move {
            let snapshot = reader.read().await?;
            Some((snapshot, reader))
        })
        .boxed()
    }
}

/// A caller that reads the snapshots of one digest.
struct SnapshotReader<'a> {
    cache: &'a CachedSignatures,
    key: Key,
    deadline: Instant,
    began: Instant,
    next: Next<'a>,
}

/// The source of a reader's next snapshot.
enum Next<'a> {
    /// The cache, or else a flight.
    First,
    /// A flight.
    Flight(JoinedFlight<'a>),
    /// A list that is newer than this complete one.
    Newer(Arc<FoundSignatures>),
    /// There is nothing newer.
    End,
}

/// A flight that a reader waits for.
struct JoinedFlight<'a> {
    max_age: MaxAge,
    landing: BoxFuture<'a, Result<Completed<SignatureSnapshot>, Elapsed>>,
    /// The latest partial snapshot that the reader has had.
    seen: Option<Arc<FoundSignatures>>,
}

impl<'a> SnapshotReader<'a> {
    async fn read(&mut self) -> Option<SignatureSnapshot> {
        let shared = &self.cache.shared;
        loop {
            match mem::replace(&mut self.next, Next::End) {
                Next::First => {
                    if let Some(list) = shared.look_up(&self.key, MaxAge::Usual) {
                        shared.metrics.cache_request(CACHE, CacheResult::Hit);
                        self.next = Next::Newer(Arc::clone(&list.found));
                        return Some(list.snapshot());
                    }
                    shared.metrics.cache_request(CACHE, CacheResult::Miss);
                    self.next = Next::Flight(self.join(MaxAge::Usual));
                }
                Next::Flight(flight) => return Some(self.await_flight(flight).await),
                Next::Newer(than) => {
                    // What is not kept was asked for just now.
                    let list = shared.lists.get(&self.key)?;
                    if Instant::now() >= list.until_asked_again() {
                        self.next = Next::Flight(self.join(MaxAge::Fresh));
                    } else {
                        return (!Arc::ptr_eq(&list.found, &than)).then(|| list.snapshot());
                    }
                }
                Next::End => return None,
            }
        }
    }

    /// Asks the sources, or waits for the caller that does.
    fn join(&self, max_age: MaxAge) -> JoinedFlight<'a> {
        let (cache, key, deadline) = (self.cache, self.key.clone(), self.deadline);
        let landing = async move {
            let start = || {
                let (shared, key, times) = (Arc::clone(&cache.shared), key.clone(), cache.times);
                async move { shared.ask(key, max_age, times).await }
            };
            timeout_at(deadline, cache.flights.join(&key, start)).await
        };
        JoinedFlight { max_age, landing: landing.boxed(), seen: None }
    }

    /// Waits for the next snapshot of a flight. At the reader's deadline, that is what is there by then.
    async fn await_flight(&mut self, mut flight: JoinedFlight<'a>) -> SignatureSnapshot {
        let (shared, repository) = (&self.cache.shared, &self.key.0);
        loop {
            let landed = tokio::select! {
                landed = &mut flight.landing => landed,
                snapshot = shared.next_partial(&self.key, flight.seen.as_ref()) => {
                    flight.seen = Some(Arc::clone(&snapshot.found));
                    self.next = Next::Flight(flight);
                    return snapshot;
                }
            };
            let Ok(Completed { answer, started }) = landed else {
                let time = self.deadline.saturating_duration_since(self.began);
                let partial = shared.partial_snapshots().get(&self.key).cloned();
                return match partial {
                    Some(partial) => SignatureSnapshot { is_complete: true, ..partial },
                    None => unanswered(repository, LookupError::timed_out(repository, time)),
                };
            };
            let Some(snapshot) = answer else {
                let error = LookupError::without_answer(repository, "the look-up ended without an answer");
                return unanswered(repository, error);
            };
            // Another's request began earlier, and had less time than this caller has. If something was found, that is
            // examined first: mostly it suffices.
            if !started && snapshot.found.signatures.is_empty() && some_source_timed_out(&snapshot.found) {
                let seen = flight.seen;
                flight = JoinedFlight { seen, ..self.join(flight.max_age) };
                continue;
            }
            if flight.max_age == MaxAge::Usual {
                self.next = Next::Newer(Arc::clone(&snapshot.found));
            }
            return snapshot;
        }
    }
}

impl SignatureState {
    fn partial_snapshots(&self) -> MutexGuard<'_, HashMap<Key, SignatureSnapshot>> {
        self.partial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up(&self, key: &Key, max_age: MaxAge) -> Option<Arc<CachedList>> {
        let list = self.lists.get(key)?;
        let until = if max_age == MaxAge::Fresh { list.until_asked_again() } else { list.until };
        (Instant::now() < until).then_some(list)
    }

    /// Waits for a partial snapshot of the key's flight, another than `seen`.
    async fn next_partial(&self, key: &Key, seen: Option<&Arc<FoundSignatures>>) -> SignatureSnapshot {
        loop {
            let mut came = pin!(self.partial_came.notified());
            // From here on nothing is missed.
            came.as_mut().enable();
            let snapshot = self.partial_snapshots().get(key).cloned();
            match snapshot {
                Some(snapshot) if seen.is_none_or(|seen| !Arc::ptr_eq(seen, &snapshot.found)) => return snapshot,
                _ => came.await,
            }
        }
    }

    async fn ask(&self, key: Key, max_age: MaxAge, times: CacheTimes) -> SignatureSnapshot {
        // Another flight may have ended between the look-up and this one's start.
        if let Some(list) = self.look_up(&key, max_age) {
            return list.snapshot();
        }
        let asked_at = Instant::now();
        let deadline = asked_at + source_time(times.lookup);
        let _guard = PartialGuard(self, key.clone());
        let complete = async {
            let mut snapshots = self.inner.find(&key.0, key.1, deadline);
            while let Some(snapshot) = snapshots.next().await {
                if snapshot.is_complete {
                    return Some(snapshot.found);
                }
                let lease = lease_of_failure(times);
                self.partial_snapshots().insert(key.clone(), SignatureSnapshot { lease, ..snapshot });
                self.partial_came.notify_waiters();
            }
            None
        };
        let found = match timeout_at(deadline + SOURCE_GRACE, complete).await {
            Ok(Some(found)) => found,
            Ok(None) => {
                let error = LookupError::without_answer(&key.0, "the look-up ended without an answer");
                return unanswered(&key.0, error);
            }
            Err(_) => return unanswered(&key.0, LookupError::timed_out(&key.0, times.lookup)),
        };
        if found.failure().is_some() {
            return SignatureSnapshot { found, is_complete: true, lease: lease_of_failure(times) };
        }
        let lifetime = if found.signatures.is_empty() { times.signatures.min(NEGATIVE_TTL) } else { times.signatures };
        // From when it was asked, not from when the answer came: it may have been old by then.
        let list = Arc::new(CachedList { found, asked_at, until: asked_at + lifetime });
        let snapshot = list.snapshot();
        self.lists.insert(key, list);
        self.lists.run_pending_tasks();
        self.metrics.cache_entries(CACHE, self.lists.entry_count());
        snapshot
    }
}

/// The lease of signatures where a source failed. Only a proof can come of them. It is one, but the failed source should be
/// heard again soon.
fn lease_of_failure(times: CacheTimes) -> Lease {
    let end = Instant::now() + times.signatures.min(NEGATIVE_TTL);
    Lease::until(end, end)
}

fn some_source_timed_out(found: &FoundSignatures) -> bool {
    found.asked.iter().any(|asked| asked.outcome.as_ref().is_err_and(LookupError::is_out_of_time))
}

/// Makes the snapshot for which no source answered.
fn unanswered(repository: &Repository, error: LookupError) -> SignatureSnapshot {
    SignatureSnapshot::complete(FoundSignatures::unanswered(repository.as_str().into(), error))
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
    use crate::verification::AskedSource;

    #[test]
    fn the_weight_of_signatures_has_all_of_their_texts() {
        let text: Arc<str> = "x".repeat(1000).into();
        let signature = UntrustedSignature { content: vec![0; 1000].into(), source: Arc::clone(&text), number: 1 };
        let asked = vec![AskedSource { url: text, outcome: Ok(10) }];
        assert_eq!(weight(&FoundSignatures { signatures: vec![signature; 10], asked }), 512 + 10 * 2_160 + 1_256);
    }
}
