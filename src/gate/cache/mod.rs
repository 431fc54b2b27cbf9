//! Caches around the gate's traits: tag to digest, digest to manifest, digest to signatures.
//!
//! The lifetimes of entries are decided here, by tokio's clock, at each look-up; the cache underneath
//! only bounds how much is kept and throws away what is over. Errors are never kept.

mod resolve;
mod signatures;

use std::{marker::PhantomData, time::Duration};

use moka::Expiry;
use tokio::time::Instant;

pub use resolve::CachedResolve;
pub use signatures::CachedSignatures;

/// The lifetime of "no signature", and of signatures that did not suffice.
pub const NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// The lifetimes of cached answers.
#[derive(Clone, Copy, Debug)]
pub struct CacheTimes {
    /// A tag's digest. Zero: every look-up asks the registry.
    pub tag: Duration,
    /// A digest's signatures, and what is concluded from them. Zero: every look-up asks the sources.
    pub signatures: Duration,
    /// The time that a request has, whichever review waits for it. Best a little below the deadline of a review: then what some
    /// sources found still counts where another hangs.
    pub lookup: Duration,
}

/// A cached value that is not believed for ever.
pub(super) trait Expires {
    /// The time until which it may be believed.
    fn expires_at(&self) -> Instant;
}

/// Lets the cache throw away what is no longer believed.
pub(super) struct StaleExpiry<K, V>(PhantomData<fn(K, V)>);

pub(super) fn stale_expiry<K, V>() -> StaleExpiry<K, V> {
    StaleExpiry(PhantomData)
}

impl<K, V: Expires> Expiry<K, V> for StaleExpiry<K, V> {
    fn expire_after_create(&self, _: &K, value: &V, _: std::time::Instant) -> Option<Duration> {
        Some(value.expires_at().saturating_duration_since(Instant::now()))
    }

    fn expire_after_update(&self, _: &K, value: &V, _: std::time::Instant, _: Option<Duration>) -> Option<Duration> {
        Some(value.expires_at().saturating_duration_since(Instant::now()))
    }
}
