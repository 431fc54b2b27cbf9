//! Retries with back-off, as long as there is progress.

use std::{fmt::Display, time::Duration};

use tokio::time::sleep;

use crate::refusal::LookupError;

/// The maximum number of failures in a row without progress, and of failures in all.
const MAX_FAILURES: u32 = 5;
const MAX_FAILURES_IN_ALL: u32 = 50;
/// The back-off after the first failure. It doubles with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// The maximum back-off, whatever the server asks for.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// The retries of one task: the number of failures in a row, and in all.
#[derive(Default)]
pub(crate) struct Retries {
    in_a_row: u32,
    in_all: u32,
    furthest: u64,
}

impl Retries {
    /// Waits before a retry. Returns `false` if no retry is left, or none would help. `done` measures the progress.
    /// `wait` returns the time to wait after this error, given the usual back-off, or `None` if a retry can't help.
    pub(crate) async fn wait_before_retry(
        &mut self,
        error: &(impl Display + Sync),
        done: u64,
        wait: impl FnOnce(Duration) -> Option<Duration>,
    ) -> bool {
        if done > self.furthest {
            self.furthest = done;
            self.in_a_row = 0;
        }
        if self.in_a_row == MAX_FAILURES || self.in_all == MAX_FAILURES_IN_ALL {
            return false;
        }
        let Some(wait) = wait(FIRST_BACKOFF * 2_u32.pow(self.in_a_row)) else { return false };
        let wait = wait.min(MAX_BACKOFF);
        tracing::info!(%error, ?wait, "trying again");
        self.in_a_row += 1;
        self.in_all += 1;
        sleep(wait).await;
        true
    }

    /// Returns the number of failures since the last progress.
    pub(crate) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }
}

/// Returns the time to wait after a failed look-up: what the server asks for, or else `otherwise`. `None` if a retry
/// can't help.
pub(crate) fn wait_after(error: &LookupError, otherwise: Duration) -> Option<Duration> {
    match error {
        LookupError::Unavailable { retry_after, .. } => Some(retry_after.unwrap_or(otherwise)),
        LookupError::TimedOut { .. } | LookupError::NotAsked { .. } => Some(otherwise),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_where_nothing_moves_and_lasts_where_something_does() {
        let mut retries = Retries::default();
        for done in 1..=10 {
            for _ in 0..MAX_FAILURES {
                assert!(retries.wait_before_retry(&"lost", done, Some).await);
            }
        }
        assert!(!retries.wait_before_retry(&"lost", 11, Some).await, "not for ever");
        let mut retries = Retries::default();
        for _ in 0..MAX_FAILURES {
            assert!(retries.wait_before_retry(&"lost", 7, Some).await);
        }
        assert!(!retries.wait_before_retry(&"lost", 7, Some).await);
        assert!(!Retries::default().wait_before_retry(&"no", 0, |_| None).await, "no try would help");
    }
}
