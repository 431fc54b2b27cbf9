//! Graceful shutdown of a server.

use std::time::Duration;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// The time after SIGTERM for which a server still accepts requests, while it says that it is not ready. A pod that
/// ends still gets requests until every node knows. Together with the requests in flight it stays below
/// terminationGracePeriodSeconds (30 s).
const DRAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Signals shutdown to every part of a server.
pub(super) struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
    told: watch::Sender<bool>,
}

/// The receiver of the signal, in one part of a server.
#[derive(Clone)]
pub(super) struct ShutdownReceiver(watch::Receiver<bool>);

impl Shutdown {
    /// Installs the handlers of SIGINT and SIGTERM.
    pub(super) fn new() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { interrupt, terminate, told: watch::Sender::new(false) })
    }

    pub(super) fn stopped(&self) -> ShutdownReceiver {
        ShutdownReceiver(self.told.subscribe())
    }

    /// Waits for a signal, then signals shutdown: at once after SIGINT, since a user waits at a terminal; after
    /// [`DRAIN_INTERVAL`] or a second signal after SIGTERM. Calls `leaving` first.
    pub(super) async fn on_signal(mut self, leaving: impl FnOnce()) {
        let patient = tokio::select! {
            _ = self.interrupt.recv() => false,
            _ = self.terminate.recv() => true,
        };
        leaving();
        if patient {
            tracing::info!(
                seconds = DRAIN_INTERVAL.as_secs(),
                "shutdown requested; requests are still accepted for a few seconds"
            );
            tokio::select! {
                () = tokio::time::sleep(DRAIN_INTERVAL) => {}
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
        }
        tracing::info!("shutting down: new requests are refused, requests in flight end");
        self.told.send_replace(true);
    }
}

impl ShutdownReceiver {
    /// Waits for shutdown.
    pub(super) async fn wait(mut self) {
        // An error means that the sender is dropped, which is shutdown as well.
        let _ = self.0.wait_for(|told| *told).await;
    }
}
