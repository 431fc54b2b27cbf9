//! The rate limit on the signatures that a caller adds.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use moka::sync::Cache;
use tokio::time::Instant;

use super::{audit_log, auth::Caller, error::ApiError};

/// The number of signatures that one caller may add at once: far more than a release has images.
const BURST: u32 = 1000;
/// The number of signatures that one caller may add per second in the long run.
const PER_SECOND: u32 = 20;
/// The maximum number of callers with a bucket.
const MAX_CALLERS: u64 = 10_000;
/// The time after which the bucket of an idle caller is dropped. By then it is full again.
const IDLE_TTL: Duration = Duration::from_mins(10);

/// A token bucket for each caller.
pub(super) struct RateLimit {
    buckets: Cache<Box<str>, Arc<TokenBucket>>,
}

impl RateLimit {
    pub(super) fn new() -> Self {
        Self { buckets: Cache::builder().max_capacity(MAX_CALLERS).time_to_idle(IDLE_TTL).build() }
    }

    /// Refuses a caller that exceeds the rate limit. An anonymous caller has no bucket.
    pub(super) fn check_rate_limit(&self, caller: &Caller) -> Result<(), ApiError> {
        let principal = &caller.identity.principal;
        let Some(name) = principal.name() else { return Ok(()) };
        let bucket = self.buckets.get_with(name.into(), Arc::default);
        if bucket.take(Instant::now()) {
            return Ok(());
        }
        audit_log::rate_limited(&caller.audit_entry());
        Err(ApiError::too_fast(format!(
            "{principal} adds more than {PER_SECOND} signatures a second (and {BURST} at once)"
        )))
    }
}

/// The number of signatures that a caller may still add, and the time of that number. `None` is a full bucket.
#[derive(Default)]
struct TokenBucket(Mutex<Option<(f64, Instant)>>);

impl TokenBucket {
    /// Takes one token, if there is one.
    fn take(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = state.unwrap_or((f64::from(BURST), now));
        let left = (left + now.duration_since(since).as_secs_f64() * f64::from(PER_SECOND)).min(f64::from(BURST));
        let taken = left >= 1.0;
        *state = Some((if taken { left - 1.0 } else { left }, now));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_may_add_many_at_once_and_then_some_a_second() {
        let bucket = TokenBucket::default();
        let now = Instant::now();
        assert_eq!((0..2 * BURST).filter(|_| bucket.take(now)).count(), BURST as usize);
        let later = now + Duration::from_secs(3);
        assert_eq!((0..BURST).filter(|_| bucket.take(later)).count(), 3 * PER_SECOND as usize);
    }
}
