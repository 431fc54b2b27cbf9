//! Work that may not be done by too many at once, and that nobody keeps others from.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::{AccessError, Peer};

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Of somebody who is not known yet.
    Peer(Option<IpAddr>),
    /// Of a caller with this name.
    Caller(Box<str>),
}

impl From<Peer> for Whose {
    fn from(peer: Peer) -> Self {
        Self::Peer(peer.0)
    }
}

/// A bounded number of places, and a queue of bounded length in front of them. Those who wait go one of each in turn, and
/// where the queue is full, whoever has most in it makes room for who has less.
#[derive(Clone, Debug)]
pub(super) struct Turns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waiting: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Everybody who waits, in the order of their turns; none is empty.
    lanes: VecDeque<Lane>,
}

#[derive(Debug)]
struct Lane {
    whose: Whose,
    /// The first one is the next.
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// Whoever holds it may work.
#[derive(Debug)]
pub(super) struct Turn(Option<Arc<Shared>>);

impl Turns {
    /// `places` work at once, and `waiting` more wait for it.
    pub(super) fn new(places: usize, waiting: usize) -> Self {
        let state = Mutex::new(State { free: places, lanes: VecDeque::new() });
        Self(Arc::new(Shared { waiting, state }))
    }

    /// Waits for a place; [`AccessError::Busy`] where too many wait, of the same or of all.
    pub(super) async fn take(&self, whose: Whose) -> Result<Turn, AccessError> {
        let turn = {
            let mut state = self.0.state();
            if state.free > 0 {
                state.free -= 1;
                return Ok(Turn(Some(Arc::clone(&self.0))));
            }
            state.queue(whose, self.0.waiting).ok_or_else(AccessError::busy)?
        };
        turn.await.map_err(|_| AccessError::busy())
    }
}

impl State {
    /// Puts somebody at the end of their lane; nothing: there is no room.
    fn queue(&mut self, whose: Whose, most: usize) -> Option<oneshot::Receiver<Turn>> {
        if self.length() >= most {
            // Some may have given up.
            self.lanes.iter_mut().for_each(|lane| lane.waiting.retain(|one| !one.is_closed()));
            self.lanes.retain(|lane| !lane.waiting.is_empty());
        }
        let own = self.lanes.iter().find(|lane| lane.whose == whose).map_or(0, |lane| lane.waiting.len());
        if self.length() >= most {
            let longest = self.lanes.iter_mut().max_by_key(|lane| lane.waiting.len())?;
            if longest.waiting.len() <= own + 1 {
                return None;
            }
            // Its other end hears of that.
            longest.waiting.pop_back();
        }
        let (sender, receiver) = oneshot::channel();
        match self.lanes.iter_mut().find(|lane| lane.whose == whose) {
            Some(lane) => lane.waiting.push_back(sender),
            None => self.lanes.push_back(Lane { whose, waiting: [sender].into() }),
        }
        Some(receiver)
    }

    fn length(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// Takes the next one out of the queue.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let mut lane = self.lanes.pop_front()?;
        let next = lane.waiting.pop_front();
        if !lane.waiting.is_empty() {
            self.lanes.push_back(lane);
        }
        next
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    /// Gives the place to the next one.
    fn drop(&mut self) {
        let Some(shared) = self.0.take() else { return };
        loop {
            let mut state = shared.state();
            let Some(next) = state.next() else {
                state.free += 1;
                return;
            };
            drop(state);
            match next.send(Self(Some(Arc::clone(&shared)))) {
                Ok(()) => return,
                // They have given up: the place is still this one's to give.
                Err(mut turn) => drop(turn.0.take()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt as _;

    use super::*;

    fn peer(number: u8) -> Whose {
        Whose::Peer(Some(IpAddr::from([192, 0, 2, number])))
    }

    type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Turn, AccessError>> + 'a>>;

    /// One who stands in the queue.
    fn waits(turns: &Turns, number: u8) -> Waiting<'_> {
        let mut waiting: Waiting<'_> = Box::pin(turns.take(peer(number)));
        assert!((&mut waiting).now_or_never().is_none(), "it waits");
        waiting
    }

    fn is_refused(outcome: Option<&Result<Turn, AccessError>>) -> bool {
        matches!(outcome, Some(Err(AccessError::Busy { .. })))
    }

    #[tokio::test]
    async fn who_finds_the_queue_full_is_told_so_and_the_others_have_their_turn() {
        let turns = Turns::new(1, 1);
        let first = turns.take(peer(1)).await.unwrap();
        let second = waits(&turns, 1);
        assert!(is_refused(turns.take(peer(1)).now_or_never().as_ref()));
        drop(first);
        drop(second.await.unwrap());
        turns.take(peer(1)).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_comes_with_many_waits_behind_the_first_of_everybody_else() {
        let turns = Turns::new(1, 8);
        let first = turns.take(peer(1)).await.unwrap();
        let mut crowd: Vec<_> = (0..4).map(|_| waits(&turns, 1)).collect();
        let other = waits(&turns, 2);
        drop(first);
        let one_of_the_crowd = crowd.remove(0).await.unwrap();
        drop(one_of_the_crowd);
        let turn = other.await.unwrap();
        assert!(crowd.iter_mut().all(|one| one.now_or_never().is_none()));
        drop(turn);
        crowd.remove(0).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_fills_the_queue_makes_room_for_others_and_not_for_themselves() {
        let turns = Turns::new(1, 3);
        let _first = turns.take(peer(1)).await.unwrap();
        let mut crowd: Vec<_> = (0..3).map(|_| waits(&turns, 1)).collect();
        assert!(is_refused(turns.take(peer(1)).now_or_never().as_ref()));
        let _second = waits(&turns, 2);
        assert!(is_refused((&mut crowd[2]).now_or_never().as_ref()), "the last of the crowd makes room");
        let _third = waits(&turns, 3);
        assert!(is_refused((&mut crowd[1]).now_or_never().as_ref()));
        assert!(is_refused(turns.take(peer(4)).now_or_never().as_ref()), "each has one now");
        assert!((&mut crowd[0]).now_or_never().is_none());
    }

    #[tokio::test]
    async fn who_gives_up_takes_no_place_and_no_room() {
        let turns = Turns::new(1, 2);
        let first = turns.take(peer(1)).await.unwrap();
        for _ in 0..5 {
            drop((waits(&turns, 1), waits(&turns, 2)));
        }
        let last = waits(&turns, 1);
        drop(first);
        drop(last.await.unwrap());
        assert!(turns.take(peer(1)).now_or_never().is_some());
    }
}
