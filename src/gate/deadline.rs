//! The division of a review's time. No other module takes time off a deadline.
//!
//! With `timeoutSeconds: 10` in the webhook configuration (the API server sends `?timeout=10s`) and the default
//! `webhook.deadline` of 8 s, counted from the start of the review, or of the look-up where that is said:
//!
//! | after | ends | set by |
//! |---|---|---|
//! | 4 s | the arrival of the review | [`receive_time`] |
//! | 6.75 s of a look-up | the requests to signature sources | [`source_time`] |
//! | 7 s of a look-up | a source that did not end by itself | [`SOURCE_GRACE`] |
//! | 7.2 s of a look-up | the look-ups of one examination, for all reviews that wait for it | [`lookup_time`] |
//! | 7.5 s | the wait of this review for look-ups; verification has the rest | [`Deadlines::of_admission`] |
//! | 8 s | the decision (9.5 s where `webhook.deadline` is longer) | [`review_time`] |
//! | 8.1 s | a gate that did not end by itself | [`DECISION_GRACE`] |
//! | 10 s | the API server's request; the reply had half a second at least | |
//!
//! Besides, once one signature source has answered with signatures, the others have [`LATE_SOURCE_TIMEOUT`] before those are
//! verified without them.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{admission::Admission, workers::CpuBudget};
use crate::refusal::Refusal;

/// The time that is left for the reply of a review, at the most: a quarter of a short timeout.
const MAX_REPLY_MARGIN: Duration = Duration::from_millis(500);
/// The time that is left for verification when look-ups are no longer waited for, at the most: an eighth of a short one.
const MAX_VERIFICATION_RESERVE: Duration = Duration::from_millis(500);
/// The gate ends by its deadline. This much later it is ended, and the review is refused.
pub(crate) const DECISION_GRACE: Duration = Duration::from_millis(100);
/// Signature sources end at their deadline by themselves, with what was found by then. This much later they are ended.
pub(super) const SOURCE_GRACE: Duration = Duration::from_millis(250);
/// The time that a signature source has once another one has signatures. Then those that are there are verified without it.
pub(super) const LATE_SOURCE_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns the time for a review: the configured one, or less where the API server waits less.
pub(crate) fn review_time(configured: Duration, timeout: Option<Duration>) -> Duration {
    match timeout {
        Some(timeout) => configured.min(timeout.saturating_sub(MAX_REPLY_MARGIN.min(timeout / 4))),
        None => configured,
    }
}

/// Returns the time in which a review must have arrived: `limit`, or half of the time for the review if that is less.
pub(crate) fn receive_time(limit: Duration, review: Duration) -> Duration {
    limit.min(review / 2)
}

/// Returns the time for the look-ups of one examination. They begin and end within the configured time for a review, so that
/// what one source found still counts where another hangs.
pub(crate) fn lookup_time(configured: Duration) -> Duration {
    configured.mul_f64(0.9)
}

/// Returns the time for the requests to signature sources. Where one source hangs, what the others found comes only at their
/// end. That must be while the examination that asked first still waits, and it waits for all of `lookup`.
pub(super) fn source_time(lookup: Duration) -> Duration {
    lookup / 16 * 15
}

/// Returns the time that verification needs of the time `left` for a decision.
fn verification_reserve(left: Duration) -> Duration {
    (left / 8).min(MAX_VERIFICATION_RESERVE)
}

/// The times of one admission, and what it may spend.
#[derive(Clone, Debug)]
pub(super) struct Deadlines {
    /// The current time.
    pub(super) now: Timestamp,
    pub(super) started: Instant,
    /// The end of the wait for look-ups. What they found by then is examined.
    pub(super) lookups: Instant,
    /// The time by which the gate answers.
    pub(super) deadline: Instant,
    /// CPU time that verification may take for the whole review.
    pub(super) budget: Arc<CpuBudget>,
    /// The namespace in whose turn a verification runs.
    pub(super) namespace: Arc<str>,
}

impl Deadlines {
    /// Returns the refusal of an image that is not decided at the deadline.
    pub(super) fn exceeded(&self) -> Refusal {
        Refusal::DeadlineExceeded { after: self.deadline.saturating_duration_since(self.started) }
    }

    /// Divides the time of an admission. `budget` is that of the whole review.
    pub(super) fn of_admission(admission: &Admission<'_>, budget: Arc<CpuBudget>) -> Self {
        let Admission { now, deadline, .. } = *admission;
        let namespace = admission.namespace.unwrap_or_default().into();
        let started = Instant::now();
        let left = deadline.saturating_duration_since(started);
        // Look-ups are left a little earlier: what they found by then can still be examined, and may suffice.
        let lookups = deadline.checked_sub(verification_reserve(left)).unwrap_or(deadline);
        Self { now, started, lookups, deadline, budget, namespace }
    }

    /// Returns the bounds of an examination that this admission is the first to ask for. The examination has a time of its own.
    pub(super) fn of_examination(&self, lookup: Duration) -> ExaminationBounds {
        ExaminationBounds {
            now: self.now,
            lookups: Instant::now() + lookup,
            budget: Arc::clone(&self.budget),
            namespace: Arc::clone(&self.namespace),
        }
    }
}

/// The bounds of one examination.
#[derive(Clone, Debug)]
pub(super) struct ExaminationBounds {
    /// The time that it is now.
    pub(super) now: Timestamp,
    /// The end of the time for look-ups.
    pub(super) lookups: Instant,
    /// The budget of the review that asked first.
    pub(super) budget: Arc<CpuBudget>,
    /// The namespace of that review, in whose turn a verification runs.
    pub(super) namespace: Arc<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_of_ten_seconds_is_divided_as_the_table_says() {
        let [timeout, configured] = [Duration::from_secs(10), Duration::from_secs(8)];
        let review = review_time(configured, Some(timeout));
        let lookup = lookup_time(configured);
        let source = source_time(lookup);
        let table = [
            (receive_time(Duration::from_secs(5), review), 4_000),
            (source, 6_750),
            (source + SOURCE_GRACE, 7_000),
            (lookup, 7_200),
            (review.saturating_sub(verification_reserve(review)), 7_500),
            (review, 8_000),
            (review + DECISION_GRACE, 8_100),
            (review_time(timeout, Some(timeout)), 9_500),
        ];
        for (time, milliseconds) in table {
            assert_eq!(time, Duration::from_millis(milliseconds));
        }
        assert!(table.is_sorted_by_key(|(time, _)| *time));
    }

    #[test]
    fn verification_has_an_eighth_of_a_short_time() {
        assert_eq!(verification_reserve(Duration::from_millis(800)), Duration::from_millis(100));
        assert_eq!(verification_reserve(Duration::from_mins(1)), MAX_VERIFICATION_RESERVE);
    }

    #[test]
    fn sources_end_before_look_ups_and_look_ups_before_the_decision() {
        for milliseconds in [100, 500, 1_000, 4_000, 8_000, 29_000] {
            let configured = Duration::from_millis(milliseconds);
            let lookup = lookup_time(configured);
            assert!(source_time(lookup) < lookup && lookup < configured, "{milliseconds}");
            assert!(verification_reserve(configured) > Duration::ZERO, "{milliseconds}");
            assert!(review_time(configured, Some(configured)) < configured, "{milliseconds}");
        }
    }
}
