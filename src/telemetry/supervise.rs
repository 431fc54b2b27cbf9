//! Supervision of background work. A panic, which is a bug, is logged and counted, and the work is started again.
//!
//! It is for work that runs as long as the process. If a caller waits for the work, the caller learns of a panic.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::time::sleep;

use super::Metrics;

/// The pause after a panic, so that repeated panics do not take a processor.
const RESTART_DELAY: Duration = Duration::from_secs(5);

/// Runs one step of repeated work on the caller's thread. Returns `None` if it panicked.
pub(crate) fn catch_panic<T>(task: &'static str, metrics: Option<&Metrics>, step: impl FnOnce() -> T) -> Option<T> {
    // The next step starts from the state that this one left, as it does after an error.
    catch_unwind(AssertUnwindSafe(step)).inspect_err(|panic| tell(task, metrics, &**panic)).ok()
}

/// Runs work on the runtime until it ends by itself. Starts it again after a panic.
pub(crate) async fn supervise<F: Future>(
    task: &'static str,
    metrics: Option<&Metrics>,
    mut begin: impl FnMut() -> F,
) -> F::Output {
    loop {
        let work = AssertUnwindSafe(async { begin().await });
        match work.catch_unwind().await {
            Ok(output) => return output,
            Err(panic) => tell(task, metrics, &*panic),
        }
        sleep(RESTART_DELAY).await;
    }
}

fn tell(task: &'static str, metrics: Option<&Metrics>, panic: &(dyn Any + Send)) {
    if let Some(metrics) = metrics {
        metrics.background_panic(task);
    }
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    let message = message.unwrap_or("of an unknown kind");
    tracing::error!(
        task,
        panic = ?message,
        "background work panicked, which is a bug in Sealgate; it is started again; please report it"
    );
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_panics_is_counted_and_begun_anew_until_it_ends() {
        let (metrics, begun) = (Metrics::new(), Cell::new(0));
        let outcome = supervise("test", Some(&metrics), || {
            begun.set(begun.get() + 1);
            // Both before there is a future, and within it.
            assert!(begun.get() != 1, "a bug");
            let number = begun.get();
            async move {
                tokio::task::yield_now().await;
                if number == 2 { panic!("bug {number}") } else { number }
            }
        });
        assert_eq!(outcome.await, 3);
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(text.contains("sealgate_background_panics_total{task=\"test\"} 2"), "{text}");
    }

    #[test]
    fn a_step_that_panics_is_counted_and_the_next_one_is_done() {
        let metrics = Metrics::new();
        let mut steps = [1, 0, 2].map(|divisor: i32| catch_panic("test", Some(&metrics), || 4 / divisor)).into_iter();
        assert_eq!((steps.next(), steps.next(), steps.next()), (Some(Some(4)), Some(None), Some(Some(2))));
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(text.contains("sealgate_background_panics_total{task=\"test\"} 1"), "{text}");
    }
}
