//! Reloads certificates when their files change.

use std::{convert::Infallible, future::pending, panic::resume_unwind, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::telemetry::{Metrics, supervise};
use crate::tls::{Refreshed, ServerTls};

/// The time between two reads of the files. They are few and small: reading them costs less than a watch, which misses
/// some changes of a Secret's mount. A certificate that Sealgate makes is renewed by the clock anyway.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// Reads the files of certificate and client CA again and again, for as long as the server runs.
pub(super) async fn renew(tls: ServerTls, metrics: Option<Arc<Metrics>>) {
    let tls = Arc::new(tls);
    let announce = |refreshed: Option<Refreshed>| {
        let Some(metrics) = &metrics else { return };
        metrics.certificate_expiry(tls.expires_at().as_second());
        metrics.certificate_reloads(
            refreshed.is_some_and(|refreshed| !refreshed.certificate_refused),
            refreshed.is_some_and(|refreshed| !refreshed.client_ca_refused),
        );
    };
    let refresh = || {
        let tls = Arc::clone(&tls);
        move || tls.refresh(Timestamp::now(), Instant::now())
    };
    supervise("certificates", metrics.as_deref(), || follow(refresh, announce)).await;
}

/// Calls `refresh` repeatedly, and `announce` with each result. If `refresh` panicked, calls `announce` with `None`,
/// and panics as well.
async fn follow<R: FnOnce() -> Refreshed + Send + 'static>(
    refresh: impl Fn() -> R,
    announce: impl Fn(Option<Refreshed>),
) -> Infallible {
    let mut again = None;
    loop {
        sleep(again.unwrap_or(REFRESH_INTERVAL).min(REFRESH_INTERVAL)).await;
        // The files may be on a disk that hangs, so the runtime's own threads do not read them.
        match spawn_blocking(refresh()).await {
            Ok(found) => {
                again = found.again;
                announce(Some(found));
            }
            Err(error) => {
                announce(None);
                match error.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    // The runtime is shutting down.
                    Err(_) => pending().await,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn certificates_are_read_again_after_a_panic_that_is_told_and_counted() {
        const UNCHANGED: Refreshed =
            Refreshed { changed: false, certificate_refused: false, client_ca_refused: false, again: None };
        let (metrics, reads) = (Metrics::new(), Arc::new(AtomicUsize::new(0)));
        let (announced, told) = (Mutex::new(Vec::new()), tokio::sync::Notify::new());
        let refresh = || {
            let reads = Arc::clone(&reads);
            move || {
                assert!(reads.fetch_add(1, Ordering::SeqCst) != 1, "a bug");
                UNCHANGED
            }
        };
        let announce = |refreshed: Option<Refreshed>| {
            let mut announced = announced.lock().unwrap();
            announced.push(refreshed.is_some());
            if announced.len() == 3 {
                told.notify_one();
            }
        };
        tokio::select! {
            _ = supervise("certificates", Some(&metrics), || follow(refresh, announce)) => {}
            () = told.notified() => {}
        }
        assert_eq!(*announced.lock().unwrap(), [true, false, true]);
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(text.contains("sealgate_background_panics_total{task=\"certificates\"} 1"), "{text}");
    }
}
