//! The end of a transfer at a signal, between two of its steps.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::store_transfer::TransferError;

/// The exit status of an interrupted command, as for `TransferError::Interrupted`.
const INTERRUPTED: i32 = 3;

/// Ends the work between two of its steps when the process receives SIGINT or SIGTERM, so that its progress can be reported.
/// At a second signal, or at one after the work, the process ends at once: a step may take as long as a disk or a reader
/// does.
pub(super) async fn unless_interrupted(
    work: impl Future<Output = Result<(), TransferError>>,
) -> Result<(), TransferError> {
    let (tell, told) = oneshot::channel();
    // If there are no signals, it ends as any process does.
    if let [Ok(mut interrupt), Ok(mut terminate)] = [SignalKind::interrupt(), SignalKind::terminate()].map(signal) {
        let mut next = async move || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        // On a thread that no step blocks.
        tokio::spawn(async move {
            next().await;
            if tell.send(()).is_ok() {
                next().await;
            }
            std::process::exit(INTERRUPTED);
        });
    }
    tokio::select! {
        biased;
        Ok(()) = told => Err(TransferError::Interrupted),
        done = work => done,
    }
}
