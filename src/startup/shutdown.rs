//! When to end.

use std::time::Duration;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// How long a server goes on taking requests after SIGTERM, while it says that it is not ready: a pod that ends is still
/// sent requests until every node knows. Together with what runs then it stays below terminationGracePeriodSeconds (30 s).
const DRAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Tells every part of a server when to end.
pub(super) struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
    told: watch::Sender<bool>,
}

/// A part's side of it.
#[derive(Clone)]
pub(super) struct ShutdownReceiver(watch::Receiver<bool>);

impl Shutdown {
    /// Takes SIGINT and SIGTERM from here on.
    pub(super) fn new() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { interrupt, terminate, told: watch::Sender::new(false) })
    }

    pub(super) fn stopped(&self) -> ShutdownReceiver {
        ShutdownReceiver(self.told.subscribe())
    }

    /// Waits for a signal, and tells every part: at once after SIGINT (a user waits at a terminal), after
    /// [`DRAIN_INTERVAL`] or a second signal after SIGTERM. `leaving` is called first.
    pub(super) async fn on_signal(mut self, leaving: impl FnOnce()) {
        let patient = tokio::select! {
            _ = self.interrupt.recv() => false,
            _ = self.terminate.recv() => true,
        };
        leaving();
        if patient {
            tracing::info!(seconds = DRAIN_INTERVAL.as_secs(), "told to end; requests are still taken for a moment");
            tokio::select! {
                () = tokio::time::sleep(DRAIN_INTERVAL) => {}
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
        }
        tracing::info!("ending: no more requests are taken, running ones end");
        self.told.send_replace(true);
    }
}

impl ShutdownReceiver {
    /// Ready once it is time to end.
    pub(super) async fn wait(mut self) {
        // An error says that the sender is gone: time to end as well.
        let _ = self.0.wait_for(|told| *told).await;
    }
}
