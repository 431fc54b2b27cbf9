//! Work that may not be done by too many at once, and that nobody keeps others from.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{AccessError, Peer};

/// How often the log says that there is trouble of one kind.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// Of somebody who is not known yet.
    Peer(Option<IpAddr>),
    /// Of a caller with this name.
    Caller(Box<str>),
}

impl Whose {
    /// Who may well be the same: whoever has an IPv6 /48 has 65,536 peers in it, and an IPv4 /24 is often in one hand.
    fn neighbourhood(&self) -> Self {
        match self {
            Self::Peer(Some(IpAddr::V4(address))) => {
                Self::Peer(Some(Ipv4Addr::from_bits(address.to_bits() & !0xff).into()))
            }
            Self::Peer(Some(IpAddr::V6(address))) => {
                Self::Peer(Some(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80)).into()))
            }
            other => other.clone(),
        }
    }
}

impl From<Peer> for Whose {
    fn from(peer: Peer) -> Self {
        Self::Peer(peer.0)
    }
}

/// Whether they have shown before who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// What they bring was good not long ago.
    Proven,
    /// Anybody, who may be guessing.
    Unproven,
}

/// A bounded number of places, and a queue of bounded length in front of them. Each class has every second turn and half of the
/// queue, and what the other one leaves of both. In a class they go one of each in turn; where there is no room, whichever
/// neighbourhood has most in it makes room for one that has less.
#[derive(Clone, Debug)]
pub(super) struct Turns(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// For the log.
    what: &'static str,
    waiting: usize,
    state: Mutex<State>,
    told: Seldom,
}

#[derive(Debug)]
struct State {
    free: usize,
    proven: Lanes,
    unproven: Lanes,
    /// Who had the last turn that somebody waited for.
    last: Class,
}

/// Everybody of a class who waits, in the order of their turns; none is empty.
#[derive(Debug, Default)]
struct Lanes(VecDeque<Lane>);

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
    /// `places` do `what` at once, and `waiting` more wait for it.
    pub(super) fn new(what: &'static str, places: usize, waiting: usize) -> Self {
        let (proven, unproven) = (Lanes::default(), Lanes::default());
        let state = Mutex::new(State { free: places, proven, unproven, last: Class::Unproven });
        Self(Arc::new(Shared { what, waiting, state, told: Seldom::default() }))
    }

    /// Waits for a place; [`AccessError::Busy`] where too many wait, of the same or of all.
    pub(super) async fn take(&self, whose: Whose, class: Class) -> Result<Turn, AccessError> {
        let turn = {
            let mut state = self.0.state();
            if state.free > 0 {
                state.free -= 1;
                return Ok(Turn(Some(Arc::clone(&self.0))));
            }
            state.queue(whose, class, self.0.waiting)
        };
        let turn = turn.ok_or_else(|| self.busy())?;
        turn.await.map_err(|_| self.busy())
    }

    /// What is said to whoever has no turn in time; with a line in the log, now and then.
    pub(super) fn busy(&self) -> AccessError {
        if self.0.told.is_time() {
            let mut state = self.0.state();
            state.forget_who_left();
            let (waiting, peers) = (state.waiting(), state.proven.0.len() + state.unproven.0.len());
            drop(state);
            tracing::warn!(
                what = self.0.what,
                waiting,
                peers,
                "too many wait for their turn: some are told to try again (429)"
            );
        }
        AccessError::busy()
    }
}

impl State {
    fn of(&mut self, class: Class) -> &mut Lanes {
        match class {
            Class::Proven => &mut self.proven,
            Class::Unproven => &mut self.unproven,
        }
    }

    /// Puts somebody at the end of their lane; nothing: there is no room.
    fn queue(&mut self, whose: Whose, class: Class, most: usize) -> Option<oneshot::Receiver<Turn>> {
        if self.waiting() >= most {
            self.forget_who_left();
        }
        if self.waiting() >= most {
            if self.of(class).waiting() < most / 2 {
                // The other class has more than its half.
                self.of(class.other()).make_room(None)?;
            } else {
                self.of(class).make_room(Some(&whose))?;
            }
        }
        Some(self.of(class).push(whose))
    }

    fn waiting(&self) -> usize {
        self.proven.waiting() + self.unproven.waiting()
    }

    fn forget_who_left(&mut self) {
        self.proven.forget_who_left();
        self.unproven.forget_who_left();
    }

    /// Takes the next one out of the queue.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        for class in [self.last.other(), self.last] {
            if let Some(next) = self.of(class).next() {
                self.last = class;
                return Some(next);
            }
        }
        None
    }
}

impl Class {
    fn other(self) -> Self {
        match self {
            Self::Proven => Self::Unproven,
            Self::Unproven => Self::Proven,
        }
    }
}

impl Lanes {
    fn waiting(&self) -> usize {
        self.0.iter().map(|lane| lane.waiting.len()).sum()
    }

    fn forget_who_left(&mut self) {
        self.0.iter_mut().for_each(|lane| lane.waiting.retain(|one| !one.is_closed()));
        self.0.retain(|lane| !lane.waiting.is_empty());
    }

    fn push(&mut self, whose: Whose) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        match self.0.iter_mut().find(|lane| lane.whose == whose) {
            Some(lane) => lane.waiting.push_back(sender),
            None => self.0.push_back(Lane { whose, waiting: [sender].into() }),
        }
        receiver
    }

    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let mut lane = self.0.pop_front()?;
        let next = lane.waiting.pop_front();
        if !lane.waiting.is_empty() {
            self.0.push_back(lane);
        }
        next
    }

    /// Sends the last one away of whoever has most, for somebody who has less, or in any case. Nothing: there is nobody.
    fn make_room(&mut self, newcomer: Option<&Whose>) -> Option<()> {
        let mut sizes: HashMap<Whose, usize> = HashMap::new();
        for lane in &self.0 {
            *sizes.entry(lane.whose.neighbourhood()).or_default() += lane.waiting.len();
        }
        let (largest, size) = sizes.iter().max_by_key(|(_, size)| **size)?;
        let (near, own) = match newcomer {
            None => (largest.clone(), 0),
            Some(newcomer) => {
                let home = newcomer.neighbourhood();
                let at_home = sizes.get(&home).copied().unwrap_or(0);
                if *size > at_home + 1 {
                    (largest.clone(), 0)
                } else {
                    // Nobody has much more than they have, so it is a matter among neighbours.
                    let own = self.0.iter().find(|lane| lane.whose == *newcomer).map_or(0, |lane| lane.waiting.len());
                    (home, own + 1)
                }
            }
        };
        let neighbours = self.0.iter().enumerate().filter(|(_, lane)| lane.whose.neighbourhood() == near);
        let (place, lane) = neighbours.max_by_key(|(_, lane)| lane.waiting.len())?;
        if lane.waiting.len() <= own {
            return None;
        }
        // Its other end hears of that.
        self.0[place].waiting.pop_back();
        if self.0[place].waiting.is_empty() {
            self.0.remove(place);
        }
        Some(())
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

/// Keeps the log short where many have the same trouble.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether it was not said for a while; then it is said now.
    pub(super) fn is_time(&self) -> bool {
        let now = Instant::now();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let time = told.is_none_or(|told| now.duration_since(told) >= TELL_EVERY);
        if time {
            *told = Some(now);
        }
        time
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt;

    use super::*;
    use crate::gateway::test_log::Log;

    fn peer(number: u8) -> Whose {
        Whose::Peer(Some(IpAddr::from([192, 0, 2, number])))
    }

    type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Turn, AccessError>> + 'a>>;

    /// One who stands in the queue.
    fn waits(turns: &Turns, number: u8) -> Waiting<'_> {
        waits_as(turns, peer(number), Class::Unproven)
    }

    fn waits_as(turns: &Turns, whose: Whose, class: Class) -> Waiting<'_> {
        let mut waiting: Waiting<'_> = Box::pin(turns.take(whose, class));
        assert!((&mut waiting).now_or_never().is_none(), "it waits");
        waiting
    }

    fn is_refused(outcome: Option<&Result<Turn, AccessError>>) -> bool {
        matches!(outcome, Some(Err(AccessError::Busy { .. })))
    }

    #[tokio::test]
    async fn who_finds_the_queue_full_is_told_so_and_the_others_have_their_turn() {
        let turns = Turns::new("work", 1, 1);
        let first = turns.take(peer(1), Class::Unproven).await.unwrap();
        let second = waits(&turns, 1);
        assert!(is_refused(turns.take(peer(1), Class::Unproven).now_or_never().as_ref()));
        drop(first);
        drop(second.await.unwrap());
        turns.take(peer(1), Class::Unproven).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_comes_with_many_waits_behind_the_first_of_everybody_else() {
        let turns = Turns::new("work", 1, 8);
        let first = turns.take(peer(1), Class::Unproven).await.unwrap();
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
        let turns = Turns::new("work", 1, 3);
        let _first = turns.take(peer(1), Class::Unproven).await.unwrap();
        let mut crowd: Vec<_> = (0..3).map(|_| waits(&turns, 1)).collect();
        assert!(is_refused(turns.take(peer(1), Class::Unproven).now_or_never().as_ref()));
        let _second = waits(&turns, 2);
        assert!(is_refused((&mut crowd[2]).now_or_never().as_ref()), "the last of the crowd makes room");
        let _third = waits(&turns, 3);
        assert!(is_refused((&mut crowd[1]).now_or_never().as_ref()));
        assert!(is_refused(turns.take(peer(4), Class::Unproven).now_or_never().as_ref()), "each has one now");
        assert!((&mut crowd[0]).now_or_never().is_none());
    }

    #[tokio::test]
    async fn who_gives_up_takes_no_place_and_no_room() {
        let turns = Turns::new("work", 1, 2);
        let first = turns.take(peer(1), Class::Unproven).await.unwrap();
        for _ in 0..5 {
            drop((waits(&turns, 1), waits(&turns, 2)));
        }
        let last = waits(&turns, 1);
        drop(first);
        drop(last.await.unwrap());
        assert!(turns.take(peer(1), Class::Unproven).now_or_never().is_some());
    }

    /// One of the networks of a site, which has a /48.
    fn network(site: u16, number: u16) -> Whose {
        Peer::of(Some(Ipv6Addr::new(0x2001, 0xdb8, site, number, 0, 0, 0, 1).into())).into()
    }

    #[tokio::test]
    async fn whoever_fills_the_queue_out_of_many_networks_makes_room_for_others_and_not_for_themselves() {
        let turns = Turns::new("work", 1, 8);
        let _first = turns.take(peer(1), Class::Unproven).await.unwrap();
        let other = waits_as(&turns, network(2, 0), Class::Unproven);
        let mut crowd: Vec<_> = (0..7).map(|number| waits_as(&turns, network(1, number), Class::Unproven)).collect();
        let again = turns.take(network(1, 7), Class::Unproven);
        assert!(is_refused(again.now_or_never().as_ref()), "each of theirs has one, and together they have most");
        let _newcomers = [peer(1), network(3, 0), network(2, 1)].map(|whose| waits_as(&turns, whose, Class::Unproven));
        let refused: Vec<_> = crowd.iter_mut().filter_map(FutureExt::now_or_never).collect();
        assert!(refused.len() == 3 && refused.iter().all(|outcome| is_refused(Some(outcome))));
        drop(other);
    }

    #[tokio::test]
    async fn who_has_shown_who_they_are_has_every_second_turn_and_half_of_the_queue() {
        let turns = Turns::new("work", 1, 4);
        let first = turns.take(peer(1), Class::Unproven).await.unwrap();
        // From all over the world, one each.
        let site = |number| network(number, 0);
        let mut crowd: Vec<_> = (0..4).map(|number| waits_as(&turns, site(number), Class::Unproven)).collect();
        let refused = turns.take(site(9), Class::Unproven).now_or_never();
        assert!(is_refused(refused.as_ref()), "nobody has more than one");
        let mut known: Vec<_> = (4..6).map(|number| waits_as(&turns, site(number), Class::Proven)).collect();
        let third = turns.take(site(7), Class::Proven).now_or_never();
        assert!(is_refused(third.as_ref()), "more than half is for whoever comes first");
        let still_there: Vec<_> =
            crowd.drain(..).filter_map(|mut one| (&mut one).now_or_never().is_none().then_some(one)).collect();
        assert_eq!(still_there.len(), 2);
        crowd = still_there;
        let mut turn = first;
        for _ in 0..2 {
            drop(turn);
            turn = known.remove(0).await.unwrap();
            assert!((&mut crowd[0]).now_or_never().is_none());
            drop(turn);
            turn = crowd.remove(0).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_says_now_and_then_how_many_wait_of_how_many_peers() {
        let (log, _logging) = Log::start();
        let turns = Turns::new("work", 1, 3);
        let _first = turns.take(peer(1), Class::Unproven).await.unwrap();
        let _crowd = [1, 1, 2].map(|number| waits(&turns, number));
        for _ in 0..3 {
            assert!(is_refused(turns.take(peer(1), Class::Unproven).now_or_never().as_ref()));
        }
        let text = log.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in ["WARN", "what=\"work\"", "waiting=3", "peers=2", "429"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        tokio::time::advance(TELL_EVERY).await;
        assert!(is_refused(turns.take(peer(1), Class::Unproven).now_or_never().as_ref()));
        assert_eq!(log.text().lines().count(), 2);
    }
}
