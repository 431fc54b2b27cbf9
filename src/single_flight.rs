//! Single flight: callers that ask for the same key at once share one task and its answer.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::Future,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::{runtime::Handle, sync::oneshot, task::AbortHandle};

type Running<V> = Shared<BoxFuture<'static, Option<V>>>;
type InFlight<K, V> = Arc<Mutex<HashMap<K, Flight<V>>>>;

/// The tasks in flight, one for each key.
///
/// A task has a deadline of its own. A caller that leaves does not affect the callers that still wait.
pub(crate) struct SingleFlight<K, V> {
    in_flight: InFlight<K, V>,
    /// The runtime of the tasks; `None`: the caller's runtime.
    runtime: Option<Handle>,
    unwanted: Unwanted,
}

/// The fate of a task whose last caller has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwanted {
    /// The task runs to its end: its answer is kept for later callers.
    Finishes,
    /// The task is cancelled.
    IsCancelled,
}

struct Flight<V> {
    answer: Running<V>,
    /// A number that is unique in the process.
    number: u64,
    callers: usize,
    task: Option<AbortHandle>,
}

/// A task that has ended.
#[derive(Debug)]
pub(crate) struct Completed<V> {
    /// The answer; `None` if the task ended without one because it panicked or the program is shutting down.
    pub(crate) answer: Option<V>,
    /// This caller started the task, rather than joined it.
    pub(crate) started: bool,
}

/// Removes a task from those in flight when it is dropped, also on a panic.
struct Removal<K: Eq + Hash, V> {
    key: K,
    number: u64,
    in_flight: InFlight<K, V>,
}

impl<K: Eq + Hash, V> Drop for Removal<K, V> {
    fn drop(&mut self) {
        let mut in_flight = lock(&self.in_flight);
        // Another task may have replaced a cancelled one.
        if in_flight.get(&self.key).is_some_and(|flight| flight.number == self.number) {
            in_flight.remove(&self.key);
        }
    }
}

/// A caller that waits. It is counted until it is dropped.
struct Caller<'a, K: Eq + Hash, V> {
    key: &'a K,
    number: u64,
    in_flight: &'a InFlight<K, V>,
    unwanted: Unwanted,
}

impl<K: Eq + Hash, V> Drop for Caller<'_, K, V> {
    fn drop(&mut self) {
        let cancelled = {
            let mut in_flight = lock(self.in_flight);
            let Some(flight) = in_flight.get_mut(self.key).filter(|flight| flight.number == self.number) else {
                return;
            };
            flight.callers -= 1;
            if flight.callers > 0 || self.unwanted == Unwanted::Finishes {
                return;
            }
            // Removed at once, so that the next caller starts another task.
            in_flight.remove(self.key)
        };
        if let Some(task) = cancelled.and_then(|flight| flight.task) {
            task.abort();
        }
    }
}

fn lock<T>(in_flight: &Mutex<T>) -> MutexGuard<'_, T> {
    in_flight.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(unwanted: Unwanted) -> Self {
        Self { in_flight: InFlight::default(), runtime: Handle::try_current().ok(), unwanted }
    }

    /// Waits for the task with this key, and starts it if there is none. The task must end by itself.
    pub(crate) async fn join<F>(&self, key: &K, start: impl FnOnce() -> F) -> Completed<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (send, receive) = oneshot::channel();
        let (answer, number, started) = match lock(&self.in_flight).entry(key.clone()) {
            Entry::Occupied(mut flight) => {
                let flight = flight.get_mut();
                flight.callers += 1;
                (flight.answer.clone(), flight.number, false)
            }
            Entry::Vacant(place) => {
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let answer: Running<V> = receive.map(Result::ok).boxed().shared();
                place.insert(Flight { answer: answer.clone(), number, callers: 1, task: None });
                (answer, number, true)
            }
        };
        let _caller = Caller { key, number, in_flight: &self.in_flight, unwanted: self.unwanted };
        if started {
            // Spawned without the lock: a runtime that is shutting down drops the task at once, and the drop takes the
            // lock.
            let removal = Removal { key: key.clone(), number, in_flight: Arc::clone(&self.in_flight) };
            let flight = start();
            let task = async move {
                let answer = flight.await;
                // Removed first: the next caller finds the kept answer, or starts another task.
                drop(removal);
                let _ = send.send(answer); // It is no error if no caller waits any more.
            };
            let task = match &self.runtime {
                Some(runtime) => runtime.spawn(task),
                None => tokio::spawn(task),
            };
            if let Some(flight) = lock(&self.in_flight).get_mut(key).filter(|flight| flight.number == number) {
                flight.task = Some(task.abort_handle());
            }
        }
        Completed { answer: answer.await, started }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn where_the_runtime_is_gone_there_is_no_answer_and_nobody_waits_for_one() {
        let gone = runtime();
        let flights: SingleFlight<u8, u8> = gone.block_on(async { SingleFlight::new(Unwanted::Finishes) });
        drop(gone);
        for _ in 0..2 {
            let landed = runtime().block_on(flights.join(&1, || async { 1 }));
            assert_eq!((landed.answer, landed.started), (None, true));
        }
        assert!(flights.in_flight.lock().unwrap().is_empty());
    }

    #[test]
    fn a_flight_goes_on_when_the_runtime_of_its_caller_ends() {
        let (first, second, own) = (runtime(), runtime(), runtime());
        let flights: SingleFlight<u8, u8> = own.block_on(async { SingleFlight::new(Unwanted::Finishes) });
        let (go, wait) = oneshot::channel::<()>();
        first.block_on(async {
            let joined = flights.join(&1, || async move { wait.await.map_or(0, |()| 7) });
            assert!(joined.now_or_never().is_none(), "it waits");
        });
        drop(first);
        let mut joined = std::pin::pin!(flights.join(&1, || async { 8 }));
        second.block_on(async { assert!(joined.as_mut().now_or_never().is_none(), "it waits for the same") });
        go.send(()).unwrap();
        own.block_on(tokio::task::yield_now());
        let landed = second.block_on(joined);
        assert_eq!((landed.answer, landed.started), (Some(7), false));
    }

    /// Says when it is dropped.
    struct Alive(Option<oneshot::Sender<()>>);

    impl Drop for Alive {
        fn drop(&mut self) {
            let _ = self.0.take().map(|dropped| dropped.send(()));
        }
    }

    async fn wait_for<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(std::time::Duration::from_secs(10), what).await.expect("it comes")
    }

    #[tokio::test]
    async fn a_flight_is_cancelled_with_its_last_caller_and_the_next_one_starts_another() {
        let flights: SingleFlight<u8, u8> = SingleFlight::new(Unwanted::IsCancelled);
        let (dropped, is_dropped) = oneshot::channel();
        let alive = Alive(Some(dropped));
        let mut callers = Vec::new();
        let flight = async move {
            let _alive = alive;
            std::future::pending().await
        };
        let flight = Arc::new(Mutex::new(Some(flight)));
        for _ in 0..3 {
            let flight = Arc::clone(&flight);
            let start = move || lock(&flight).take().expect("it is started once");
            let mut joined = Box::pin(flights.join(&1, start));
            assert!((&mut joined).now_or_never().is_none());
            callers.push(joined);
        }
        let mut is_dropped = Box::pin(is_dropped);
        while let Some(caller) = callers.pop() {
            assert!((&mut is_dropped).now_or_never().is_none(), "a caller waits");
            drop(caller);
        }
        assert!(lock(&flights.in_flight).is_empty());
        let mut another = Box::pin(flights.join(&1, || async { 2 }));
        wait_for(is_dropped).await.unwrap();
        let landed = wait_for(&mut another).await;
        assert_eq!((landed.answer, landed.started), (Some(2), true), "what was cancelled took nothing from it");
        assert!(lock(&flights.in_flight).is_empty());
    }

    #[tokio::test]
    async fn a_flight_that_finishes_does_so_without_a_caller() {
        let flights: SingleFlight<u8, u8> = SingleFlight::new(Unwanted::Finishes);
        let (done, is_done) = oneshot::channel();
        let joined = flights.join(&1, || async move {
            tokio::task::yield_now().await;
            done.send(()).unwrap();
            1
        });
        assert!(joined.now_or_never().is_none());
        wait_for(is_done).await.unwrap();
    }
}
