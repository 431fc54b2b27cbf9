//! Limits the log lines that clients cause.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tracing::{Event, Level, Metadata, Subscriber, callsite::Identifier};
use tracing_subscriber::layer::{Context, Filter};

/// The maximum number of lines of one kind in an [`INTERVAL`], for lines that a client alone can cause. The first ones
/// name the client at fault and the reason.
const MAX_LINES: u32 = 10;
/// The maximum number of lines of one place in the code in an [`INTERVAL`], for lines about the program's own work.
/// Each refused image has a line, and the log must show a rollout of hundreds completely.
const MAX_OWN_LINES: u32 = 6_000;
/// The period that the limits are for.
const INTERVAL: Duration = Duration::from_mins(1);

/// The target of audit lines: which caller did what.
const AUDIT: &str = "sealgate::audit";

/// The number of log lines left out since the process began.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Returns the number of log lines left out since the process began.
pub fn lines_left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// A rate limit on log lines of one kind.
#[derive(Debug)]
pub struct LogThrottle {
    lines: u32,
    interval: Duration,
    window: Mutex<Window>,
}

impl Default for LogThrottle {
    /// Allows ten lines a minute.
    fn default() -> Self {
        Self { lines: MAX_LINES, interval: INTERVAL, window: Mutex::default() }
    }
}

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Window {
    /// Counts a line. Returns how many were left out before it, or `None` if it is left out itself.
    fn take(&mut self, lines: u32, interval: Duration, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= interval) {
            self.since = Some(now);
            self.written = 0;
        }
        if self.written < lines {
            self.written += 1;
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out += 1;
        LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl LogThrottle {
    /// Allows one line an interval.
    pub fn every(interval: Duration) -> Self {
        Self { lines: 1, interval, window: Mutex::default() }
    }

    /// Counts a line. Returns how many were left out before it, or `None` if it is left out itself.
    pub fn take(&self) -> Option<u64> {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> Option<u64> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).take(self.lines, self.interval, now)
    }
}

/// Rate limits for the log lines of each place in the code. The limit for libraries is low, since most of their lines
/// are about what a client or a registry did. Lines of the levels `debug` and `trace` have no limit: an operator asked
/// for them.
#[derive(Debug, Default)]
pub(super) struct LimitedLines(Mutex<HashMap<Identifier, Window>>);

impl LimitedLines {
    fn takes(&self, metadata: &Metadata<'_>, now: Instant) -> bool {
        if *metadata.level() > Level::INFO || is_of_a_known_caller(metadata) {
            return true;
        }
        // What libraries log by the crate `log`, as rustls does, has the target `log` here.
        let own = metadata.target().starts_with(env!("CARGO_CRATE_NAME"));
        let lines = if own { MAX_OWN_LINES } else { MAX_LINES };
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The map has at most one entry for each place in the code.
        windows.entry(metadata.callsite()).or_default().take(lines, INTERVAL, now).is_some()
    }
}

/// Returns whether a line records an action of a caller who is authenticated and authorized; no such line may be left
/// out. A line about a refused action has the field `claimed`, for the name that the caller claimed.
fn is_of_a_known_caller(metadata: &Metadata<'_>) -> bool {
    metadata.target() == AUDIT && metadata.fields().field("claimed").is_none()
}

impl<S: Subscriber> Filter<S> for LimitedLines {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.takes(event.metadata(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::{fmt, layer::Layer as _, prelude::*};

    use super::*;

    #[test]
    fn lines_are_bounded_in_each_interval_and_the_next_one_tells_how_many_are_missing() {
        let limit = LogThrottle::default();
        let start = Instant::now();
        let written = |now| (0..1000).filter_map(|_| limit.take_at(now)).collect::<Vec<_>>();
        assert_eq!(written(start), [0; MAX_LINES as usize]);
        assert_eq!(written(start + INTERVAL / 2), [0; 0]);
        let again = written(start + INTERVAL);
        assert_eq!((again.len(), again[0], again[1]), (MAX_LINES as usize, 1990, 0));
    }

    /// Returns the lines that a subscriber with this limit writes.
    fn logged(log: impl Fn()) -> String {
        let written = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&written);
        let writer = move || Written(Arc::clone(&lines));
        let layer = fmt::layer().with_ansi(false).with_writer(writer).with_filter(LimitedLines::default());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let written = written.lock().unwrap().clone();
        String::from_utf8(written).unwrap()
    }

    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_library_that_logs_what_clients_do_fills_no_log() {
        let text = logged(|| {
            for number in 0..5_000 {
                tracing::warn!(target: "rustls::msgs::handshake", number, "Illegal SNI extension");
                tracing::error!(target: "log", number, "a stream error");
                tracing::info!(target: "h2", number, "connection error");
            }
        });
        assert_eq!(text.lines().count(), 3 * MAX_LINES as usize);
    }

    #[test]
    fn lines_of_our_own_work_are_whole_for_a_rollout_and_bounded_all_the_same() {
        let line = |number| tracing::info!(number, "object refused");
        assert_eq!(logged(|| (0..1_000).for_each(line)).lines().count(), 1_000);
        assert_eq!(logged(|| (0..20_000).for_each(line)).lines().count(), MAX_OWN_LINES as usize);
    }

    #[test]
    fn no_line_about_what_was_done_is_missing_whoever_is_refused_how_often() {
        let text = logged(|| {
            for number in 0..10_000 {
                tracing::info!(target: AUDIT, number, claimed = "mallory", "credentials rejected");
                tracing::info!(target: AUDIT, number, caller = "jane", "done");
            }
        });
        assert_eq!(text.lines().filter(|line| line.contains("rejected")).count(), MAX_OWN_LINES as usize);
        assert_eq!(text.lines().filter(|line| line.contains("done")).count(), 10_000);
    }

    #[test]
    fn lines_that_somebody_asked_for_are_all_there() {
        let text = logged(|| (0..500).for_each(|number| tracing::debug!(target: "rustls", number, "a record")));
        assert_eq!(text.lines().count(), 500);
    }
}
