//! Group commit: whoever wants to write while the disk syncs waits, and shares the next sync.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::sync::{mpsc, oneshot};

use super::{ImageId, Put, StoreError, StoredSignature};

/// How many may share a sync.
const LARGEST_BATCH: usize = 256;

type Outcome = Result<Put, StoreError>;

/// The thread that writes, and the way to it.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Submission>>,
    thread: Option<thread::JoinHandle<()>>,
    stopped: Arc<AtomicBool>,
    path: PathBuf,
}

struct Submission {
    entry: (ImageId, StoredSignature),
    reply: oneshot::Sender<Outcome>,
}

impl Writer {
    /// Starts the thread. `write` writes a batch, all or nothing, and returns once it is durable, with an outcome for
    /// each entry.
    pub(super) fn start<E: std::error::Error>(
        path: &Path,
        mut write: impl FnMut(&[(ImageId, StoredSignature)]) -> Result<Vec<Put>, E> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (queue, mut submissions) = mpsc::channel(LARGEST_BATCH);
        let stopped = Arc::new(AtomicBool::new(false));
        let run = {
            let (stopped, path) = (Arc::clone(&stopped), path.to_owned());
            move || {
                while let Some(batch) = next_batch(&mut submissions) {
                    let (entries, replies): (Vec<_>, Vec<_>) =
                        batch.into_iter().map(|Submission { entry, reply }| (entry, reply)).unzip();
                    let outcomes =
                        if stopped.load(Ordering::Acquire) { None } else { attempt(&mut write, &entries, &path) };
                    if outcomes.is_none() {
                        stopped.store(true, Ordering::Release);
                    }
                    let mut outcomes = outcomes.unwrap_or_default().into_iter();
                    for reply in replies {
                        let stopped = StoreError::Stopped { path: path.clone() };
                        // Who asked may be gone; what is stored stays stored.
                        let _ = reply.send(outcomes.next().ok_or(stopped));
                    }
                }
            }
        };
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(run)
            .map_err(|source| StoreError::Io { path: path.into(), doing: "opened", source })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), stopped, path: path.into() })
    }

    /// Waits until the signature is durable, or why it is not stored.
    pub(super) async fn put(&self, image: ImageId, signature: StoredSignature) -> Outcome {
        let stopped = || StoreError::Stopped { path: self.path.clone() };
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(Submission { entry: (image, signature), reply }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Whether it writes.
    pub(super) fn health(&self) -> Result<(), StoreError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(StoreError::Stopped { path: self.path.clone() });
        }
        Ok(())
    }
}

impl Drop for Writer {
    /// The file is closed when this returns, so that it can be opened again.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // It catches its own panics.
            let _ = thread.join();
        }
    }
}

/// Waits for one; takes what else is there.
fn next_batch(submissions: &mut mpsc::Receiver<Submission>) -> Option<Vec<Submission>> {
    let mut batch = vec![submissions.blocking_recv()?];
    while batch.len() < LARGEST_BATCH
        && let Ok(submission) = submissions.try_recv()
    {
        batch.push(submission);
    }
    Some(batch)
}

/// Nothing: it failed, and nobody knows what the file holds now.
fn attempt<E: std::error::Error>(
    write: &mut impl FnMut(&[(ImageId, StoredSignature)]) -> Result<Vec<Put>, E>,
    entries: &[(ImageId, StoredSignature)],
    path: &Path,
) -> Option<Vec<Put>> {
    let outcome = catch_unwind(AssertUnwindSafe(|| write(entries).map_err(|error| error.to_string())))
        .unwrap_or_else(|_| Err("the file's content can't be right".into()));
    match outcome {
        Ok(outcomes) => Some(outcomes),
        Err(error) => {
            let error = io::Error::other(error);
            let error = StoreError::Io { path: path.into(), doing: "written", source: error };
            tracing::error!(%error, "no more signatures are stored; start the program again once the cause is gone");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gateway::store::{RepositoryName, SignatureName},
        image::Digest,
    };

    fn entry() -> (ImageId, StoredSignature) {
        let image = ImageId { repository: RepositoryName::parse("web").unwrap(), digest: Digest::sha256(b"") };
        (image, StoredSignature { name: SignatureName::parse(&"a".repeat(32)).unwrap(), content: [1].into() })
    }

    #[tokio::test]
    async fn those_who_come_while_it_syncs_share_the_next_sync() {
        let (begun, wait_begun) = std::sync::mpsc::channel();
        let (go, wait_go) = std::sync::mpsc::channel::<()>();
        let writer = Writer::start(Path::new("f"), move |batch: &[_]| -> Result<_, io::Error> {
            begun.send(batch.len()).unwrap();
            wait_go.recv().unwrap();
            Ok(vec![Put::Created; batch.len()])
        })
        .unwrap();
        let put = || {
            let (image, signature) = entry();
            writer.put(image, signature)
        };
        let mut first = Box::pin(put());
        let mut others = Box::pin(futures_util::future::join_all((0..40).map(|_| put())));
        // The first is being written; then the others queue up, which polling them once does.
        assert!(futures_util::poll!(&mut first).is_pending());
        assert_eq!(wait_begun.recv().unwrap(), 1);
        assert!(futures_util::poll!(&mut others).is_pending());
        go.send(()).unwrap();
        go.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Put::Created);
        assert!(others.await.into_iter().all(|outcome| outcome.unwrap() == Put::Created));
        assert_eq!(wait_begun.recv().unwrap(), 40);
    }

    #[tokio::test]
    async fn after_an_error_nothing_is_stored_any_more_and_health_says_so() {
        for panics in [false, true] {
            let mut calls = 0;
            let writer = Writer::start(Path::new("signatures.redb"), move |_: &[_]| -> Result<Vec<Put>, io::Error> {
                calls += 1;
                assert!(calls == 1, "it is not tried again");
                assert!(!panics, "a test's panic");
                Err(io::Error::other("no space"))
            })
            .unwrap();
            writer.health().unwrap();
            for _ in 0..2 {
                let (image, signature) = entry();
                let error = writer.put(image, signature).await.unwrap_err();
                assert!(error.to_string().starts_with("signatures.redb: the store takes no more"), "{error}");
            }
            assert!(writer.health().is_err());
        }
    }
}
