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
pub(in crate::gate) struct Flights<K, V> {
    board: Board<K, V>,
    /// Where the tasks run; nothing: where the caller does.
    runtime: Option<Handle>,
}

/// What came of a flight.
#[derive(Debug)]
pub(in crate::gate) struct Landed<V> {
    /// The answer; nothing if the task ended without one (it panicked, or the program is ending).
    pub(in crate::gate) answer: Option<V>,
    /// Whether this caller's own question was asked, not another's.
    pub(in crate::gate) started: bool,
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
    pub(in crate::gate) fn new() -> Self {
        Self { board: Board::default(), runtime: Handle::try_current().ok() }
    }

    /// Waits for the flight with this key, and starts it if there is none. It must end by itself.
    pub(in crate::gate) async fn join<F>(&self, key: &K, start: impl FnOnce() -> F) -> Landed<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let (running, started) = {
            let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
            match board.entry(key.clone()) {
                Entry::Occupied(running) => (running.get().clone(), false),
                Entry::Vacant(place) => {
                    let (send, receive) = oneshot::channel();
                    let running: Running<V> = receive.map(Result::ok).boxed().shared();
                    let take_off = TakeOff { key: key.clone(), board: Arc::clone(&self.board) };
                    let flight = start();
                    let task = async move {
                        let answer = flight.await;
                        // First off the board: who comes from here on finds what was kept, or asks anew.
                        drop(take_off);
                        let _ = send.send(answer); // Nobody may be waiting any more.
                    };
                    place.insert(running.clone());
                    match &self.runtime {
                        Some(runtime) => drop(runtime.spawn(task)),
                        None => drop(tokio::spawn(task)),
                    }
                    (running, true)
                }
            }
        };
        Landed { answer: running.await, started }
    }
}
