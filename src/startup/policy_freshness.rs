//! Reports policy files that can't be read: repeatedly in the log, and in metrics.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::time::Instant;

use crate::files::follower::{REMINDER_INTERVAL, SETTLE_INTERVAL};
use crate::gate::CurrentPolicy;
use crate::telemetry::{Metrics, catch_panic};

/// The time between two checks of the state.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The outcome of the last reads of the policy files, written by the thread that reads them.
#[derive(Debug)]
pub(super) struct ReadStatus(Mutex<ReadState>);

#[derive(Clone, Debug)]
struct ReadState {
    /// The time before the last read of all files that was complete, whether the files are valid or not.
    last_read: Instant,
    /// The reason why a later read was not complete.
    problem: Option<String>,
}

impl ReadStatus {
    pub(super) fn new(last_read: Instant) -> Self {
        Self(Mutex::new(ReadState { last_read, problem: None }))
    }

    /// Records a complete read of all files.
    pub(super) fn succeeded(&self, at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ReadState { last_read: at, problem: None };
    }

    /// Records that the files could not be read, or changed during the read.
    pub(super) fn failed(&self, why: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).problem = Some(why.to_owned());
    }

    fn get(&self) -> ReadState {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Checks the state of the policy on a thread of its own, since a read that hangs (NFS) blocks the thread that reads.
#[derive(Debug)]
pub(super) struct FreshnessMonitor {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl FreshnessMonitor {
    pub(super) fn start(mut freshness: PolicyFreshness) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let run = move || {
            while stopped.recv_timeout(CHECK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let metrics = Arc::clone(&freshness.metrics);
                catch_panic("policy-monitor", Some(&metrics), || freshness.check(Instant::now()));
            }
        };
        let thread = thread::Builder::new().name("policy-monitor".to_owned()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for FreshnessMonitor {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            // The thread catches panics.
            let _ = thread.join();
        }
    }
}

/// The reported state of the policy.
pub(super) struct PolicyFreshness {
    status: Arc<ReadStatus>,
    current: Arc<CurrentPolicy>,
    metrics: Arc<Metrics>,
    poll: Duration,
    /// The time of the last log line that says that the files are not read, while that is so.
    unread: Option<Instant>,
    /// The time of the last log line that says that every image is refused, while that is so.
    unavailable: Option<Instant>,
}

impl PolicyFreshness {
    pub(super) fn new(
        status: Arc<ReadStatus>,
        current: Arc<CurrentPolicy>,
        metrics: Arc<Metrics>,
        poll: Duration,
    ) -> Self {
        Self { status, current, metrics, poll, unread: None, unavailable: None }
    }

    /// Sets the metrics. Logs each state that is new, or was not logged for a [`REMINDER_INTERVAL`].
    pub(super) fn check(&mut self, now: Instant) {
        let ReadState { last_read, problem } = self.status.get();
        let age = now.saturating_duration_since(last_read);
        // Without a known problem, the current read may still succeed.
        let limit = if problem.is_some() { self.poll } else { self.poll * 2 + SETTLE_INTERVAL * 2 };
        let unread = age > limit;
        self.metrics.policy_readable(!unread);
        if is_due(&mut self.unread, unread, now) {
            let why = problem.as_deref().unwrap_or("reading them has not come to an end");
            tracing::error!(
                seconds = age.as_secs(),
                "the policy files can't be read, the last good policy stays in force, with keys that may have been \
                 removed:\n{why}"
            );
        } else if !unread && self.unread.take().is_some() {
            tracing::info!("the policy files can be read again");
        }
        let refusal = self.current.check_fresh(now).err();
        self.metrics.policy_unavailable(refusal.is_some());
        if is_due(&mut self.unavailable, refusal.is_some(), now) {
            let seconds = self.current.stale_for(now).as_secs();
            tracing::error!(
                seconds,
                "policy-unavailable: every image is refused, since the policy could not be loaded from its files for longer \
                 than policyMaxStale; correct the files, or make them readable"
            );
        } else if refusal.is_none() && self.unavailable.take().is_some() {
            tracing::info!("the policy in force is that of its files again: the gate decides about images");
        }
    }
}

/// Returns whether to log a state that holds: it is new, or was not logged for a [`REMINDER_INTERVAL`].
fn is_due(logged: &mut Option<Instant>, holds: bool, now: Instant) -> bool {
    let due = holds && logged.is_none_or(|logged| now.duration_since(logged) >= REMINDER_INTERVAL);
    if due {
        *logged = Some(now);
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    const SECOND: Duration = Duration::from_secs(1);
    const POLL_INTERVAL: Duration = Duration::from_secs(10);

    struct Told {
        freshness: PolicyFreshness,
        start: Instant,
    }

    impl Told {
        fn new(max_stale: Option<Duration>) -> Self {
            let start = Instant::now();
            let current = Arc::new(CurrentPolicy::with_max_stale(Policy::default(), max_stale, start));
            let status = Arc::new(ReadStatus::new(start));
            Self { freshness: PolicyFreshness::new(status, current, Arc::default(), POLL_INTERVAL), start }
        }

        /// The metrics `readable` and `unavailable`, and whether either log line is due.
        fn at(&mut self, seconds: u32) -> ([bool; 2], bool) {
            let now = self.start + SECOND * seconds;
            let logged = (self.freshness.unread, self.freshness.unavailable);
            self.freshness.check(now);
            let text = String::from_utf8(self.freshness.metrics.text().unwrap()).unwrap();
            let is = |name: &str| text.lines().any(|line| line == format!("{name} 1"));
            let told = (self.freshness.unread, self.freshness.unavailable);
            (
                [is("sealgate_policy_readable"), is("sealgate_policy_unavailable")],
                logged != told && told != (None, None),
            )
        }
    }

    #[test]
    fn files_that_are_not_read_for_longer_than_the_interval_are_told_of_again_and_again() {
        let mut told = Told::new(None);
        assert_eq!(told.at(9), ([true, false], false));
        told.freshness.status.failed("too many open files");
        assert_eq!(told.at(10), ([true, false], false));
        assert_eq!(told.at(11), ([false, false], true));
        assert_eq!(told.at(12), ([false, false], false), "not at every look");
        assert_eq!(told.at(310), ([false, false], false));
        assert_eq!(told.at(311), ([false, false], true), "but again");
        assert_eq!(told.at(611), ([false, false], true));
        told.freshness.status.succeeded(told.start + SECOND * 620);
        assert_eq!(told.at(621), ([true, false], false));
        assert_eq!(told.freshness.unread, None);
        told.freshness.status.failed("too many open files");
        assert_eq!(told.at(631), ([false, false], true), "and at once the next time");
    }

    #[test]
    fn a_read_that_hangs_is_told_of_too() {
        let mut told = Told::new(None);
        assert_eq!(told.at(24), ([true, false], false));
        assert_eq!(told.at(25), ([false, false], true));
    }

    #[test]
    fn a_policy_that_is_too_old_is_told_of_even_where_its_files_are_read() {
        let mut told = Told::new(Some(SECOND * 60));
        let read = |told: &Told, seconds: u32| told.freshness.status.succeeded(told.start + SECOND * seconds);
        read(&told, 60);
        assert_eq!(told.at(60), ([true, false], false));
        assert_eq!(told.at(61), ([true, true], true));
        read(&told, 70);
        assert_eq!(told.at(70), ([true, true], false));
        read(&told, 360);
        assert_eq!(told.at(361), ([true, true], true));
        told.freshness.current.confirm(told.start + SECOND * 362);
        assert_eq!(told.at(363), ([true, false], false));
    }
}
