//! Decides when a changed file takes effect, and logs when it can't.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::time::Instant;

/// The time between two equal reads before their content takes effect. A file that is written in place is complete by
/// then, unless its writer pauses for longer. The time is short because a removed key stays trusted meanwhile.
pub const SETTLE_INTERVAL: Duration = Duration::from_secs(2);
/// The time for which a file may go on changing before that is logged. No program that writes such a file takes longer.
const UNSETTLED_TIMEOUT: Duration = Duration::from_secs(10);
/// The time between two log lines about the same refused file: short enough to be found, too long to fill a log.
pub(crate) const REMINDER_INTERVAL: Duration = Duration::from_mins(5);

/// Follows files that are read again and again. `T` identifies the content of a read. Content takes effect once two
/// reads, one [`SETTLE_INTERVAL`] apart, are equal; errors settle in the same way.
///
/// Reads no files and no clock itself.
#[derive(Debug)]
pub(crate) struct Follower<T> {
    /// The subject of log lines: "the policy files".
    what: String,
    /// The content or error of the last read, and the time since which all reads are equal to it. `None` if it is in
    /// force.
    candidate: Option<(Result<T, String>, Instant)>,
    /// The time since which the reads neither agree nor are in force.
    unsettled_since: Option<Instant>,
    /// The reason why the content can't take effect, and the time when that was logged.
    refused: Option<(String, Instant)>,
}

/// The outcome of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The read found the content that is in force.
    InForce,
    /// The read found new content, which the caller must put in force now.
    Changed,
    /// The read found new content, which takes effect if it is the same after this time.
    Unsettled(Duration),
    /// The content can't take effect. That was logged.
    Refused {
        /// The reason is new.
        is_new: bool,
        /// The content was the same for a whole interval. Content that never comes to rest is refused as well.
        settled: bool,
    },
}

impl Progress {
    /// Returns when to read again, if that is earlier than usual.
    pub(crate) fn again(self) -> Option<Duration> {
        match self {
            Self::InForce | Self::Changed | Self::Refused { settled: true, .. } => None,
            Self::Unsettled(again) => Some(again),
            Self::Refused { settled: false, .. } => Some(SETTLE_INTERVAL),
        }
    }
}

impl<T: PartialEq> Follower<T> {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), candidate: None, unsettled_since: None, refused: None }
    }

    /// Records the content or error that was read at `now`, while `in_force` is in force.
    pub(crate) fn take(&mut self, in_force: &T, read: Result<T, String>, now: Instant) -> Progress {
        if read.as_ref().is_ok_and(|read| read == in_force) {
            self.candidate = None;
            self.unsettled_since = None;
            if self.refused.take().is_some() {
                tracing::info!("{} are those in force again", self.what);
            }
            return Progress::InForce;
        }
        let since = match &self.candidate {
            Some((candidate, since)) if *candidate == read => *since,
            _ => now,
        };
        let left = SETTLE_INTERVAL.saturating_sub(now.duration_since(since));
        if !left.is_zero() {
            self.candidate = Some((read, since));
            let unsettled_since = *self.unsettled_since.get_or_insert(since);
            let unsettled_for = now.duration_since(unsettled_since);
            if unsettled_for < UNSETTLED_TIMEOUT {
                return Progress::Unsettled(left);
            }
            return self.refuse("they are changed again and again: no two reads agree".to_owned(), false, now);
        }
        self.unsettled_since = None;
        match read {
            Ok(_) => {
                self.candidate = None;
                self.refused = None;
                Progress::Changed
            }
            Err(error) => {
                self.candidate = Some((Err(error.clone()), since));
                self.refuse(error, true, now)
            }
        }
    }

    /// Returns whether the content can't take effect.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    fn refuse(&mut self, why: String, settled: bool, now: Instant) -> Progress {
        let logged = self.refused.as_ref().filter(|(before, _)| *before == why).map(|(_, logged)| *logged);
        if logged.is_none_or(|logged| now.duration_since(logged) >= REMINDER_INTERVAL) {
            tracing::error!("{} are refused, the last good ones stay in force:\n{why}", self.what);
            self.refused = Some((why, now));
        }
        Progress::Refused { is_new: logged.is_none(), settled }
    }
}

impl<T: PartialEq> Follower<Arc<T>> {
    /// Records a read as [`Follower::take`] does. Puts changed content in force, and logs that.
    pub(crate) fn follow(
        &mut self,
        in_force: &ArcSwap<T>,
        read: Result<T, impl std::fmt::Display>,
        now: Instant,
    ) -> Progress {
        let read = read.map(Arc::new).map_err(|error| error.to_string());
        let progress = self.take(&in_force.load_full(), read.clone(), now);
        if let (Progress::Changed, Ok(read)) = (progress, read) {
            in_force.store(read);
            tracing::info!("{} changed, and are in force", self.what);
        }
        progress
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Reads by a follower of text, at times from its start.
    struct Reads {
        follower: Follower<&'static str>,
        start: Instant,
        in_force: &'static str,
    }

    impl Reads {
        fn of(in_force: &'static str) -> Self {
            Self { follower: Follower::new("the files"), start: Instant::now(), in_force }
        }

        fn read(&mut self, at: Duration, read: Result<&'static str, &str>) -> Progress {
            let progress = self.follower.take(&self.in_force, read.map_err(str::to_owned), self.start + at);
            if progress == Progress::Changed {
                self.in_force = read.expect("an error is never in force");
            }
            progress
        }
    }

    #[test]
    fn a_change_counts_after_two_equal_reads_one_interval_apart() {
        let mut reads = Reads::of("old");
        assert_eq!(reads.read(Duration::ZERO, Ok("old")), Progress::InForce);
        assert_eq!(reads.read(MS, Ok("new")), Progress::Unsettled(SETTLE_INTERVAL));
        assert_eq!(reads.read(MS * 501, Ok("new")), Progress::Unsettled(MS * 1500));
        assert_eq!(reads.read(SETTLE_INTERVAL, Ok("new")), Progress::Unsettled(MS));
        assert_eq!(reads.read(SETTLE_INTERVAL + MS, Ok("new")), Progress::Changed);
        assert_eq!(reads.read(SETTLE_INTERVAL + MS * 2, Ok("new")), Progress::InForce);
    }

    #[test]
    fn what_goes_back_before_it_counts_never_was() {
        let mut reads = Reads::of("old");
        assert_eq!(reads.read(Duration::ZERO, Ok("new")), Progress::Unsettled(SETTLE_INTERVAL));
        assert_eq!(reads.read(MS, Ok("old")), Progress::InForce);
        assert_eq!(reads.read(SETTLE_INTERVAL * 2, Ok("new")), Progress::Unsettled(SETTLE_INTERVAL));
    }

    #[test]
    fn an_error_settles_like_a_content_and_is_counted_once() {
        let mut reads = Reads::of("old");
        assert_eq!(reads.read(Duration::ZERO, Err("broken")), Progress::Unsettled(SETTLE_INTERVAL));
        let refused = |is_new| Progress::Refused { is_new, settled: true };
        assert_eq!(reads.read(SETTLE_INTERVAL, Err("broken")), refused(true));
        assert_eq!(reads.read(SETTLE_INTERVAL * 2, Err("broken")), refused(false));
        assert_eq!(reads.read(REMINDER_INTERVAL * 2, Err("broken")), refused(false));
        let later = REMINDER_INTERVAL * 3;
        assert_eq!(reads.read(later, Err("other")), Progress::Unsettled(SETTLE_INTERVAL));
        assert_eq!(reads.read(later + SETTLE_INTERVAL, Err("other")), refused(true));
        assert_eq!(reads.read(later * 2, Ok("old")), Progress::InForce);
    }

    #[test]
    fn a_file_that_never_settles_is_refused_aloud_and_counts_once_it_settles() {
        let mut reads = Reads::of("old");
        let mut at = Duration::ZERO;
        let mut progress = Vec::new();
        while at < UNSETTLED_TIMEOUT * 2 {
            let read = if (at.as_millis() / 500).is_multiple_of(2) { Ok("one") } else { Err("half") };
            progress.push(reads.read(at, read));
            at += MS * 500;
        }
        let (before, after) = progress.split_at(20);
        assert!(before.iter().all(|progress| matches!(progress, Progress::Unsettled(_))), "{before:?}");
        assert!(matches!(after[0], Progress::Refused { is_new: true, settled: false }), "{after:?}");
        assert!(after[1..].iter().all(|progress| matches!(progress, Progress::Refused { is_new: false, .. })));
        assert!(after.iter().all(|progress| progress.again() == Some(SETTLE_INTERVAL)), "looked at again soon");
        reads.read(at, Ok("whole"));
        assert_eq!(reads.read(at + SETTLE_INTERVAL, Ok("whole")), Progress::Changed);
    }

    proptest! {
        /// However reads come, what counts was there at two reads one interval apart, and at each between them.
        #[test]
        fn nothing_counts_that_was_not_the_same_for_a_whole_interval(
            reads in proptest::collection::vec((0_u64..1500, 0_usize..4), 1..200)
        ) {
            let contents = [Ok("a"), Ok("b"), Err("c"), Ok("in force at first")];
            let mut all = Reads::of("in force at first");
            let mut at = Duration::ZERO;
            let mut history: Vec<(Duration, Result<&str, &str>)> = Vec::new();
            for (later, content) in reads {
                at += Duration::from_millis(later);
                let content = contents[content];
                history.push((at, content));
                let progress = all.read(at, content);
                let run = history.iter().rev().take_while(|(_, before)| *before == content).last().unwrap();
                let same_for = at.saturating_sub(run.0);
                match progress {
                    Progress::Changed => {
                        prop_assert!(content.is_ok() && same_for >= SETTLE_INTERVAL, "{history:?}");
                    }
                    Progress::InForce => prop_assert_eq!(content, Ok(all.in_force)),
                    Progress::Unsettled(left) => prop_assert_eq!(left, SETTLE_INTERVAL.saturating_sub(same_for)),
                    Progress::Refused { .. } => prop_assert!(content != Ok(all.in_force)),
                }
            }
        }
    }
}
