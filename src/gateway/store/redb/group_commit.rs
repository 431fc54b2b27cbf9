//! Group commit: changes that arrive during a sync wait, and share the next one.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use tokio::sync::{mpsc, oneshot};

use crate::gateway::store::{Change, Changed, StoreError};

/// The maximum number of changes that share a sync.
const MAX_BATCH: usize = 256;

type Outcome = Result<Changed, StoreError>;

/// The thread that writes, and the queue to it.
pub(super) struct GroupCommit {
    queue: Option<mpsc::Sender<Submission>>,
    thread: Option<thread::JoinHandle<()>>,
    path: PathBuf,
}

struct Submission {
    change: Change,
    reply: oneshot::Sender<Outcome>,
}

impl GroupCommit {
    /// Starts the thread. `write` writes a batch completely or not at all, and returns once it is durable, with an
    /// outcome for each change. It must not panic.
    pub(super) fn start(
        path: &Path,
        write: impl Fn(&[Change]) -> Result<Vec<Changed>, StoreError> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (queue, mut submissions) = mpsc::channel(MAX_BATCH);
        let run = move || {
            while let Some(batch) = next_batch(&mut submissions) {
                let (changes, replies): (Vec<_>, Vec<_>) =
                    batch.into_iter().map(|Submission { change, reply }| (change, reply)).unzip();
                let outcomes: Vec<Outcome> = match write(&changes) {
                    Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(error); replies.len()],
                };
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    // The caller may have left; the change stays stored.
                    let _ = reply.send(outcome);
                }
            }
        };
        let thread = thread::Builder::new().name("store-writer".into()).spawn(run).map_err(|source| {
            StoreError::Io { path: path.into(), doing: "opened", source: Arc::<io::Error>::new(source) }
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), path: path.into() })
    }

    /// Waits until the change is durable. Returns the reason if it was not made.
    pub(super) async fn make(&self, change: Change) -> Outcome {
        let stopped = || StoreError::Stopped { path: self.path.clone(), cause: "it is not written any more".into() };
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(Submission { change, reply }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for GroupCommit {
    /// Stops the thread: nothing is written after this returns.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // No caller is left for the error of a panic.
            let _ = thread.join();
        }
    }
}

/// Waits for a change, and takes all others that are ready.
fn next_batch(submissions: &mut mpsc::Receiver<Submission>) -> Option<Vec<Submission>> {
    let mut batch = vec![submissions.blocking_recv()?];
    while batch.len() < MAX_BATCH
        && let Ok(submission) = submissions.try_recv()
    {
        batch.push(submission);
    }
    Some(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gateway::store::{ImageId, Put, RepositoryName},
        image::Digest,
    };

    const CREATED: Changed = Changed::Put(Put::Created);

    fn change() -> Change {
        Change::ClearStatuses(ImageId {
            repository: RepositoryName::parse("web").unwrap(),
            digest: Digest::sha256(b""),
        })
    }

    #[tokio::test]
    async fn those_who_come_while_it_syncs_share_the_next_sync() {
        let (begun, wait_begun) = std::sync::mpsc::channel();
        let (go, wait_go) = std::sync::mpsc::channel::<()>();
        let writer = GroupCommit::start(Path::new("f"), move |batch: &[_]| {
            begun.send(batch.len()).unwrap();
            wait_go.recv().unwrap();
            Ok(vec![CREATED; batch.len()])
        })
        .unwrap();
        let put = || writer.make(change());
        let mut first = Box::pin(put());
        let mut others = Box::pin(futures_util::future::join_all((0..40).map(|_| put())));
        // The first is being written; then the others queue up, which polling them once does.
        assert!(futures_util::poll!(&mut first).is_pending());
        assert_eq!(wait_begun.recv().unwrap(), 1);
        assert!(futures_util::poll!(&mut others).is_pending());
        go.send(()).unwrap();
        go.send(()).unwrap();
        assert_eq!(first.await.unwrap(), CREATED);
        assert!(others.await.into_iter().all(|outcome| outcome.unwrap() == CREATED));
        assert_eq!(wait_begun.recv().unwrap(), 40);
    }

    #[tokio::test]
    async fn all_who_share_a_sync_that_fails_are_told_and_the_next_ones_are_tried_again() {
        let tried = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let calls = Arc::clone(&tried);
        let writer = GroupCommit::start(Path::new("signatures.redb"), move |batch: &[_]| {
            if calls.fetch_add(batch.len(), std::sync::atomic::Ordering::Relaxed) < 10 {
                return Err(StoreError::Stopped { path: "signatures.redb".into(), cause: "no space".into() });
            }
            Ok(vec![CREATED; batch.len()])
        })
        .unwrap();
        while tried.load(std::sync::atomic::Ordering::Relaxed) < 10 {
            let error = writer.make(change()).await.unwrap_err();
            assert!(error.to_string().contains("no space"), "{error}");
        }
        assert_eq!(writer.make(change()).await.unwrap(), CREATED);
    }
}
