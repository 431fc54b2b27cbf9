//! A bounded pool for work that blocks a thread: reads of files that may hang, and parsing of large bodies. The runtime
//! has 512 blocking threads for everything, and a time-out abandons such a thread without freeing it.

use std::sync::Arc;

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::failure::Failure;

/// A bounded pool for one kind of blocking work.
pub(crate) struct BlockingPool {
    threads: Arc<Semaphore>,
}

impl BlockingPool {
    pub(crate) fn new(at_once: usize) -> Self {
        Self { threads: Arc::new(Semaphore::new(at_once)) }
    }

    /// Runs work on a thread of the pool. The thread counts until the work ends, even if the caller stops waiting.
    ///
    /// # Errors
    /// No thread was free in time, the work took too long, or it panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let lost = || Failure::Unavailable("the gate failed to read what is there".to_owned());
        let working = async {
            let permit = Arc::clone(&self.threads).acquire_owned().await.map_err(|_| lost())?;
            let thread = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                work()
            });
            thread.await.map_err(|_| lost())
        };
        timeout_at(deadline, working).await.unwrap_or(Err(Failure::TimedOut))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[tokio::test]
    async fn work_that_hangs_takes_no_more_threads_than_it_may() {
        let blocking = BlockingPool::new(2);
        let (started, starts) = mpsc::channel();
        let mut ends = Vec::new();
        for _ in 0..5 {
            let (end, wait) = mpsc::channel::<()>();
            let started = started.clone();
            ends.push(end);
            let outcome = blocking.run(soon(), move || (started.send(()), wait.recv())).await;
            assert!(matches!(outcome, Err(Failure::TimedOut)), "{outcome:?}");
        }
        starts.recv().unwrap();
        starts.recv().unwrap();
        assert!(starts.try_recv().is_err(), "the others had no thread");
        assert_eq!(tokio::task::spawn_blocking(|| 7).await.unwrap(), 7, "others have theirs");
        drop(ends);
        assert_eq!(blocking.run(far(), || 7).await.unwrap(), 7, "what came to an end gives its thread back");
    }

    #[tokio::test]
    async fn work_that_panics_gives_its_thread_back() {
        let blocking = BlockingPool::new(1);
        for _ in 0..3 {
            let outcome = blocking.run(far(), || panic!("of the test")).await;
            assert!(matches!(outcome, Err::<(), _>(Failure::Unavailable(_))));
        }
    }
}
