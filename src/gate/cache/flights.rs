//! One flight a key: who asks what is being asked already waits for that answer.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::{runtime::Handle, sync::oneshot};

type Running<V> = Shared<BoxFuture<'static, Option<V>>>;
type Board<K, V> = Arc<Mutex<HashMap<K, Running<V>>>>;

/// The questions that are being asked right now.
///
/// Each is asked in a task of its own: a caller that goes away takes nothing from the others who wait.
pub(crate) struct Flights<K, V> {
    board: Board<K, V>,
    /// Where the tasks run; nothing: where the caller does.
    runtime: Option<Handle>,
}

/// What came of a flight.
#[derive(Debug)]
pub(crate) struct Landed<V> {
    /// The answer; nothing if the task ended without one (it panicked, or the program is ending).
    pub(crate) answer: Option<V>,
    /// Whether this caller's own question was asked, not another's.
    pub(crate) started: bool,
}

/// Takes a flight off the board, also where its task panics.
struct TakeOff<K: Eq + Hash, V> {
    key: K,
    board: Board<K, V>,
}

impl<K: Eq + Hash, V> Drop for TakeOff<K, V> {
    fn drop(&mut self) {
        self.board.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        Self { board: Board::default(), runtime: Handle::try_current().ok() }
    }

    /// Waits for the flight with this key, and starts it if there is none. It must end by itself.
    pub(crate) async fn join<F>(&self, key: &K, start: impl FnOnce() -> F) -> Landed<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (send, receive) = oneshot::channel();
        let running = {
            let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
            match board.entry(key.clone()) {
                Entry::Occupied(running) => Err(running.get().clone()),
                Entry::Vacant(place) => Ok(place.insert(receive.map(Result::ok).boxed().shared()).clone()),
            }
        };
        let running: Running<V> = match running {
            Ok(running) => running,
            Err(another) => return Landed { answer: another.await, started: false },
        };
        // Spawned with the board free: a runtime that is ending drops the task at once, and that takes it off the board.
        let take_off = TakeOff { key: key.clone(), board: Arc::clone(&self.board) };
        let flight = start();
        let task = async move {
            let answer = flight.await;
            // First off the board: who comes from here on finds what was kept, or asks anew.
            drop(take_off);
            let _ = send.send(answer); // Nobody may be waiting any more.
        };
        match &self.runtime {
            Some(runtime) => drop(runtime.spawn(task)),
            None => drop(tokio::spawn(task)),
        }
        Landed { answer: running.await, started: true }
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
        let flights: Flights<u8, u8> = gone.block_on(async { Flights::new() });
        drop(gone);
        for _ in 0..2 {
            let landed = runtime().block_on(flights.join(&1, || async { 1 }));
            assert_eq!((landed.answer, landed.started), (None, true));
        }
        assert!(flights.board.lock().unwrap().is_empty());
    }

    #[test]
    fn a_flight_goes_on_when_the_runtime_of_its_caller_ends() {
        let (first, second, own) = (runtime(), runtime(), runtime());
        let flights: Flights<u8, u8> = own.block_on(async { Flights::new() });
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
}
