//! The deadlines of one admission and of one examination.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{admission::Admission, workers::CpuBudget};
use crate::refusal::Refusal;

/// How long a source may take once another one has signatures. Then those that are there are verified without it.
pub(super) const LATE_AFTER: Duration = Duration::from_secs(1);

/// What look-ups leave of the time for examining what they found, at the most.
pub(super) const EXAMINING: Duration = Duration::from_millis(500);

/// The times of one admission, and what it may spend.
#[derive(Clone, Debug)]
pub(super) struct Deadlines {
    /// The time that it is now.
    pub(super) now: Timestamp,
    pub(super) started: Instant,
    /// When look-ups are no longer waited for, and what they found by then is examined.
    pub(super) lookups: Instant,
    /// When the answer must be there.
    pub(super) deadline: Instant,
    /// What verification may spend on the whole review.
    pub(super) budget: Arc<CpuBudget>,
    /// Whose turn a verification takes.
    pub(super) namespace: Arc<str>,
}

impl Deadlines {
    /// The refusal of what has no answer at the deadline.
    pub(super) fn exceeded(&self) -> Refusal {
        Refusal::DeadlineExceeded { after: self.deadline.saturating_duration_since(self.started) }
    }

    /// The times of an admission, and what the whole review may spend.
    pub(super) fn new(admission: &Admission<'_>, budget: Arc<CpuBudget>) -> Self {
        let Admission { now, deadline, .. } = *admission;
        let namespace = admission.namespace.unwrap_or_default().into();
        let started = Instant::now();
        let left = deadline.saturating_duration_since(started);
        // Look-ups are left a little earlier: what they found by then can still be examined, and may suffice.
        let lookups = deadline.checked_sub((left / 8).min(EXAMINING)).unwrap_or(deadline);
        Self { now, started, lookups, deadline, budget, namespace }
    }

    /// The bounds of an examination that this admission is the first to ask for. Its time is not this admission's.
    pub(super) fn of_flight(&self, lookup: Duration) -> ExaminationBounds {
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
    /// When look-ups must have ended.
    pub(super) lookups: Instant,
    /// What the review may spend that asked first.
    pub(super) budget: Arc<CpuBudget>,
    /// The namespace of that review, whose turn it takes to verify.
    pub(super) namespace: Arc<str>,
}
