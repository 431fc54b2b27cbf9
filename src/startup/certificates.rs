//! Certificates that follow their files.

use std::{convert::Infallible, future::pending, panic::resume_unwind, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::telemetry::{Metrics, supervise};
use crate::tls::{Refreshed, ServerTls};

/// How often the files are read again. They are few and small, so that reading them costs less than a watch that misses
/// what a Secret's mount does; and a certificate that is made here has to be made anew by the clock anyway.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// Reads the files of certificate and client CA again for as long as the server runs.
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

/// Calls `refresh` again and again, and `announce` with what it found; with `None` where it panicked, and ends so as well.
async fn follow<R: FnOnce() -> Refreshed + Send + 'static>(
    refresh: impl Fn() -> R,
    announce: impl Fn(Option<Refreshed>),
) -> Infallible {
    let mut again = None;
    loop {
        sleep(again.unwrap_or(REFRESH_INTERVAL).min(REFRESH_INTERVAL)).await;
        // Not on the runtime's own threads: the files may be on a disk that hangs.
        match spawn_blocking(refresh()).await {
            Ok(found) => {
                again = found.again;
                announce(Some(found));
            }
            Err(error) => {
                announce(None);
                match error.try_into_panic() {
                    Ok(panic) => resume_unwind(panic),
                    // The program ends.
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
