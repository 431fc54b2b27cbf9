//! Work that may not be done by too many at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::AccessError;

/// A queue of bounded length in front of a bounded number of places.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    queue: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// Whoever holds it may work.
#[derive(Debug)]
pub(super) struct Turn {
    _place: OwnedSemaphorePermit,
    _queue: OwnedSemaphorePermit,
}

impl Turns {
    /// `places` work at once, and `waiting` more wait for it.
    pub(super) fn new(places: usize, waiting: usize) -> Self {
        Self { queue: Arc::new(Semaphore::new(places + waiting)), places: Arc::new(Semaphore::new(places)) }
    }

    /// Waits for a place; an error at once where too many wait already.
    pub(super) async fn take(&self) -> Result<Turn, AccessError> {
        let busy = || AccessError::unavailable();
        let queue = Arc::clone(&self.queue).try_acquire_owned().map_err(|_| busy())?;
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| busy())?;
        Ok(Turn { _place: place, _queue: queue })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_finds_the_queue_full_is_told_so_and_the_others_have_their_turn() {
        let turns = Turns::new(1, 1);
        let first = turns.take().await.unwrap();
        let mut second = Box::pin(turns.take());
        assert!((&mut second).now_or_never().is_none(), "it waits");
        assert!(matches!(turns.take().await, Err(AccessError::Unavailable { .. })));
        drop(first);
        drop(second.await.unwrap());
        turns.take().await.unwrap();
    }
}
