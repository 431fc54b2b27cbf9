//! Retries with back-off, as long as there is progress.

use std::{fmt::Display, time::Duration};

use tokio::time::sleep;

use crate::refusal::LookupError;

/// Failures in a row, without anything more being done, after which it is given up; and in all.
const MAX_FAILURES: u32 = 5;
const MAX_FAILURES_IN_ALL: u32 = 50;
/// The wait after the first failure; after each further one it is doubled.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// The longest wait, whatever the other side asks for.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// The retries of one task: how many failed in a row, and in all.
#[derive(Default)]
pub(crate) struct Retries {
    in_a_row: u32,
    in_all: u32,
    furthest: u64,
}

impl Retries {
    /// Waits before another try. False: none is left, or would help. `done` grows with what is done; `wait` says how long to
    /// wait after this error, given how long is usual, if a try may help at all.
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

    /// Failures since more was done.
    pub(crate) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }
}

/// How long to wait after a failed look-up, if another one may help: as the server wishes, or so long.
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
