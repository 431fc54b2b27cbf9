//! The time budget of a look-up.

use std::time::Duration;

use tokio::time::Instant;

/// The time budget of a look-up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeBudget {
    started: Instant,
    pub(crate) deadline: Instant,
}

impl TimeBudget {
    pub(crate) fn until(deadline: Instant) -> Self {
        Self { started: Instant::now(), deadline }
    }

    pub(crate) fn of(time: Duration) -> Self {
        Self::until(Instant::now() + time)
    }

    /// Returns half of the remaining time, for one of several servers that could answer.
    pub(crate) fn half(self) -> Self {
        let left = self.deadline.saturating_duration_since(Instant::now());
        Self::until(self.deadline.checked_sub(left / 2).unwrap_or(self.deadline))
    }

    /// Returns the whole time of the budget.
    pub(crate) fn total(self) -> Duration {
        self.deadline.saturating_duration_since(self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_one_of_several_is_half_of_what_is_left() {
        let budget = TimeBudget::of(Duration::from_secs(10));
        let half = budget.half();
        assert!(half.deadline < budget.deadline && half.deadline > budget.started);
        assert!(half.total() <= Duration::from_secs(5));
        assert_eq!(TimeBudget::of(Duration::ZERO).half().total(), Duration::ZERO);
    }
}
