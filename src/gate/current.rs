//! The policy in force, and for how long it may differ from its files.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::policy::Policy;
use crate::refusal::Refusal;

/// The policy in force, replaced as a whole.
#[derive(Debug)]
pub struct CurrentPolicy {
    current: ArcSwap<LoadedPolicy>,
    /// Held while one replaces another, so that no two get one generation.
    replacing: Mutex<()>,
    /// The time for which it may differ from its files, or not be known to be the same. `None`: without limit.
    max_stale: Option<Duration>,
    /// The time at which the first policy was read.
    start: Instant,
    /// The time at which the policy in force was last known to be the one of its files, in nanoseconds after `start`.
    confirmed: AtomicU64,
}

/// A policy and how many there were before it.
#[derive(Debug)]
pub struct LoadedPolicy {
    /// Counts from 1; no two policies of a process share one.
    pub generation: u64,
    /// The policy.
    pub policy: Policy,
}

impl CurrentPolicy {
    /// A first policy that may stay in force whatever its files say.
    pub fn new(policy: Policy) -> Self {
        Self::with_max_stale(policy, None, Instant::now())
    }

    /// A first policy, read from its files at `read_at`. The gate refuses where it has not been [confirmed](Self::confirm) for
    /// longer than `max_stale`.
    pub fn with_max_stale(policy: Policy, max_stale: Option<Duration>, read_at: Instant) -> Self {
        Self {
            current: ArcSwap::from_pointee(LoadedPolicy { generation: 1, policy }),
            replacing: Mutex::new(()),
            max_stale,
            start: read_at,
            confirmed: AtomicU64::new(0),
        }
    }

    /// Returns the time for which the policy in force may differ from its files. `None`: without limit.
    pub fn max_stale(&self) -> Option<Duration> {
        self.max_stale
    }

    /// The policy in force.
    pub fn get(&self) -> Arc<LoadedPolicy> {
        self.current.load_full()
    }

    /// The generation of the policy in force.
    pub fn generation(&self) -> u64 {
        self.current.load().generation
    }

    /// Puts another in force, and gives back its generation.
    pub fn replace(&self, policy: Policy) -> u64 {
        let _alone = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.current.load().generation + 1;
        self.current.store(Arc::new(LoadedPolicy { generation, policy }));
        generation
    }

    /// Notes that the policy in force was what its files said at `at`, the time before they were read.
    pub fn confirm(&self, at: Instant) {
        let nanoseconds = at.saturating_duration_since(self.start).as_nanos();
        self.confirmed.fetch_max(u64::try_from(nanoseconds).unwrap_or(u64::MAX), Ordering::AcqRel);
    }

    /// Returns for how long the policy in force has not been known to be what its files say.
    pub fn stale_for(&self, now: Instant) -> Duration {
        let confirmed = Duration::from_nanos(self.confirmed.load(Ordering::Acquire));
        now.saturating_duration_since(self.start).saturating_sub(confirmed)
    }

    /// Checks that the policy in force may still decide. The clock is the monotonic one: a wall clock that is set makes no
    /// policy older or younger.
    ///
    /// # Errors
    /// [`Refusal::PolicyUnavailable`].
    pub fn check_fresh(&self, now: Instant) -> Result<(), Refusal> {
        match self.max_stale {
            Some(limit) if self.stale_for(now) > limit => Err(Refusal::PolicyUnavailable { limit }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_too_old_once_it_was_not_confirmed_for_longer_than_the_limit() {
        const HOUR: Duration = Duration::from_hours(1);
        let start = Instant::now();
        let limited = CurrentPolicy::with_max_stale(Policy::default(), Some(HOUR), start);
        let unlimited = CurrentPolicy::new(Policy::default());
        assert_eq!((limited.max_stale(), unlimited.max_stale()), (Some(HOUR), None));
        let fresh = |after: Duration| limited.check_fresh(start + after).is_ok();
        assert!(fresh(Duration::ZERO) && fresh(HOUR));
        assert!(!fresh(HOUR + Duration::from_nanos(1)));
        limited.confirm(start + HOUR * 2);
        assert!(fresh(Duration::ZERO) && fresh(HOUR * 3) && !fresh(HOUR * 4));
        // A confirmation that comes late is of an earlier time.
        limited.confirm(start + HOUR);
        assert!(fresh(HOUR * 3));
        // Another policy is no confirmation: it may have been read hours ago.
        limited.replace(Policy::default());
        assert!(!fresh(HOUR * 4));
        assert!(unlimited.check_fresh(start + HOUR * 100_000).is_ok());
        assert_eq!(limited.stale_for(start + HOUR * 4), HOUR * 2);
    }
}
