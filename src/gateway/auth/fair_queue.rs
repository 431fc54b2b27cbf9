//! A fair queue: limits concurrent work, and gives each client its share of it.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{AccessError, ClientNetwork};
use crate::telemetry::LogThrottle;

/// The minimum time between two log lines about one kind of trouble.
pub(super) const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// The identity by which the queue tells clients apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum QueueKey {
    /// A client that is not authenticated yet.
    Network(Option<IpAddr>),
    /// An authenticated caller, by name.
    Caller(Box<str>),
}

impl QueueKey {
    /// Returns the network that may belong to one client: an IPv6 /48 contains 65,536 networks, and an IPv4 /24 often
    /// has one owner.
    fn neighbourhood(&self) -> Self {
        match self {
            Self::Network(Some(IpAddr::V4(address))) => {
                Self::Network(Some(Ipv4Addr::from_bits(address.to_bits() & !0xff).into()))
            }
            Self::Network(Some(IpAddr::V6(address))) => {
                Self::Network(Some(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80)).into()))
            }
            other => other.clone(),
        }
    }
}

impl From<ClientNetwork> for QueueKey {
    fn from(peer: ClientNetwork) -> Self {
        Self::Network(peer.0)
    }
}

/// The priority of a request, by whether its credentials were accepted before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// The credentials were accepted recently.
    Proven,
    /// The credentials may be a guess.
    Unproven,
}

/// A limited number of permits, and a queue of limited length in front of them. Each priority has every second permit
/// and half of the queue, and the part of both that the other priority leaves. Within a priority, clients get one
/// permit each in turn. If the queue is full, the neighbourhood with most waiting requests makes room for one with
/// fewer.
#[derive(Clone, Debug)]
pub(super) struct FairQueue(Arc<QueueInner>);

#[derive(Debug)]
struct QueueInner {
    /// The name of the work, for the log.
    what: &'static str,
    waiting: usize,
    state: Mutex<State>,
    log: LogThrottle,
}

#[derive(Debug)]
struct State {
    free: usize,
    proven: Lanes,
    unproven: Lanes,
    /// The priority of the last permit that a request waited for.
    last: Priority,
}

/// The waiting requests of one priority, by client, in the order of their turns. No lane is empty.
#[derive(Debug, Default)]
struct Lanes(VecDeque<Lane>);

#[derive(Debug)]
struct Lane {
    key: QueueKey,
    /// The waiting requests; the first one is the next.
    waiting: VecDeque<oneshot::Sender<Permit>>,
}

/// Permission to work, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit(Option<Arc<QueueInner>>);

impl FairQueue {
    /// Makes a queue with `places` permits for `what`, and room for `waiting` requests.
    pub(super) fn new(what: &'static str, places: usize, waiting: usize) -> Self {
        let (proven, unproven) = (Lanes::default(), Lanes::default());
        let state = Mutex::new(State { free: places, proven, unproven, last: Priority::Unproven });
        Self(Arc::new(QueueInner { what, waiting, state, log: LogThrottle::every(LOG_INTERVAL) }))
    }

    /// Waits for a permit. Returns [`AccessError::Busy`] if too many wait, of this client or of all.
    pub(super) async fn acquire(&self, key: QueueKey, priority: Priority) -> Result<Permit, AccessError> {
        let permit = {
            let mut state = self.0.state();
            if state.free > 0 {
                state.free -= 1;
                return Ok(Permit(Some(Arc::clone(&self.0))));
            }
            state.enqueue(key, priority, self.0.waiting)
        };
        let permit = permit.ok_or_else(|| self.busy())?;
        permit.await.map_err(|_| self.busy())
    }

    /// Returns the error of a request that gets no permit in time, and sometimes logs how many requests wait.
    pub(super) fn busy(&self) -> AccessError {
        if self.0.log.take().is_some() {
            let mut state = self.0.state();
            state.forget_who_left();
            let (waiting, peers) = (state.waiting(), state.proven.0.len() + state.unproven.0.len());
            drop(state);
            tracing::warn!(
                what = self.0.what,
                waiting,
                peers,
                "too many requests wait in the queue: some are refused (429)"
            );
        }
        AccessError::busy()
    }
}

impl State {
    fn of(&mut self, priority: Priority) -> &mut Lanes {
        match priority {
            Priority::Proven => &mut self.proven,
            Priority::Unproven => &mut self.unproven,
        }
    }

    /// Appends a request to its client's lane. Returns `None` if there is no room.
    fn enqueue(&mut self, key: QueueKey, priority: Priority, most: usize) -> Option<oneshot::Receiver<Permit>> {
        if self.waiting() >= most {
            self.forget_who_left();
        }
        if self.waiting() >= most {
            if self.of(priority).waiting() < most / 2 {
                // The other priority has more than its half.
                self.of(priority.other()).evict(None)?;
            } else {
                self.of(priority).evict(Some(&key))?;
            }
        }
        Some(self.of(priority).push(key))
    }

    fn waiting(&self) -> usize {
        self.proven.waiting() + self.unproven.waiting()
    }

    fn forget_who_left(&mut self) {
        self.proven.forget_who_left();
        self.unproven.forget_who_left();
    }

    /// Removes the next request from the queue.
    fn next(&mut self) -> Option<oneshot::Sender<Permit>> {
        for priority in [self.last.other(), self.last] {
            if let Some(next) = self.of(priority).next() {
                self.last = priority;
                return Some(next);
            }
        }
        None
    }
}

impl Priority {
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

    fn push(&mut self, key: QueueKey) -> oneshot::Receiver<Permit> {
        let (sender, receiver) = oneshot::channel();
        match self.0.iter_mut().find(|lane| lane.key == key) {
            Some(lane) => lane.waiting.push_back(sender),
            None => self.0.push_back(Lane { key, waiting: [sender].into() }),
        }
        receiver
    }

    fn next(&mut self) -> Option<oneshot::Sender<Permit>> {
        let mut lane = self.0.pop_front()?;
        let next = lane.waiting.pop_front();
        if !lane.waiting.is_empty() {
            self.0.push_back(lane);
        }
        next
    }

    /// Removes the last request of the client with most requests. For a newcomer, that client must have more than the
    /// newcomer. Returns `None` if there is no such client.
    fn evict(&mut self, newcomer: Option<&QueueKey>) -> Option<()> {
        let mut sizes: HashMap<QueueKey, usize> = HashMap::new();
        for lane in &self.0 {
            *sizes.entry(lane.key.neighbourhood()).or_default() += lane.waiting.len();
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
                    // No network has many more than the newcomer's, so the newcomer's own network makes room.
                    let own = self.0.iter().find(|lane| lane.key == *newcomer).map_or(0, |lane| lane.waiting.len());
                    (home, own + 1)
                }
            }
        };
        let neighbours = self.0.iter().enumerate().filter(|(_, lane)| lane.key.neighbourhood() == near);
        let (place, lane) = neighbours.max_by_key(|(_, lane)| lane.waiting.len())?;
        if lane.waiting.len() <= own {
            return None;
        }
        // Its receiver reports the removal.
        self.0[place].waiting.pop_back();
        if self.0[place].waiting.is_empty() {
            self.0.remove(place);
        }
        Some(())
    }
}

impl QueueInner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    /// Passes the permit on to the next request that waits.
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
                // The receiver has given up: the permit goes to the next request.
                Err(mut permit) => drop(permit.0.take()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt;

    use super::*;
    use crate::gateway::test_log::Log;

    fn peer(number: u8) -> QueueKey {
        QueueKey::Network(Some(IpAddr::from([192, 0, 2, number])))
    }

    #[test]
    fn the_neighbourhood_of_an_address_is_its_24_or_its_48() {
        let of = |text: &str| QueueKey::Network(Some(text.parse().unwrap()));
        assert!(of("192.0.2.77").neighbourhood() == of("192.0.2.0"));
        assert!(of("2001:db8:1:2:3::4").neighbourhood() == of("2001:db8:1::"));
    }

    type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Permit, AccessError>> + 'a>>;

    /// One who stands in the queue.
    fn waits(queue: &FairQueue, number: u8) -> Waiting<'_> {
        waits_as(queue, peer(number), Priority::Unproven)
    }

    fn waits_as(queue: &FairQueue, key: QueueKey, priority: Priority) -> Waiting<'_> {
        let mut waiting: Waiting<'_> = Box::pin(queue.acquire(key, priority));
        assert!((&mut waiting).now_or_never().is_none(), "it waits");
        waiting
    }

    fn is_refused(outcome: Option<&Result<Permit, AccessError>>) -> bool {
        matches!(outcome, Some(Err(AccessError::Busy { .. })))
    }

    #[tokio::test]
    async fn who_finds_the_queue_full_is_told_so_and_the_others_have_their_turn() {
        let queue = FairQueue::new("work", 1, 1);
        let first = queue.acquire(peer(1), Priority::Unproven).await.unwrap();
        let second = waits(&queue, 1);
        assert!(is_refused(queue.acquire(peer(1), Priority::Unproven).now_or_never().as_ref()));
        drop(first);
        drop(second.await.unwrap());
        queue.acquire(peer(1), Priority::Unproven).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_comes_with_many_waits_behind_the_first_of_everybody_else() {
        let queue = FairQueue::new("work", 1, 8);
        let first = queue.acquire(peer(1), Priority::Unproven).await.unwrap();
        let mut crowd: Vec<_> = (0..4).map(|_| waits(&queue, 1)).collect();
        let other = waits(&queue, 2);
        drop(first);
        let one_of_the_crowd = crowd.remove(0).await.unwrap();
        drop(one_of_the_crowd);
        let permit = other.await.unwrap();
        assert!(crowd.iter_mut().all(|one| one.now_or_never().is_none()));
        drop(permit);
        crowd.remove(0).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_fills_the_queue_makes_room_for_others_and_not_for_themselves() {
        let queue = FairQueue::new("work", 1, 3);
        let _first = queue.acquire(peer(1), Priority::Unproven).await.unwrap();
        let mut crowd: Vec<_> = (0..3).map(|_| waits(&queue, 1)).collect();
        assert!(is_refused(queue.acquire(peer(1), Priority::Unproven).now_or_never().as_ref()));
        let _second = waits(&queue, 2);
        assert!(is_refused((&mut crowd[2]).now_or_never().as_ref()), "the last of the crowd makes room");
        let _third = waits(&queue, 3);
        assert!(is_refused((&mut crowd[1]).now_or_never().as_ref()));
        assert!(is_refused(queue.acquire(peer(4), Priority::Unproven).now_or_never().as_ref()), "each has one now");
        assert!((&mut crowd[0]).now_or_never().is_none());
    }

    #[tokio::test]
    async fn who_gives_up_takes_no_place_and_no_room() {
        let queue = FairQueue::new("work", 1, 2);
        let first = queue.acquire(peer(1), Priority::Unproven).await.unwrap();
        for _ in 0..5 {
            drop((waits(&queue, 1), waits(&queue, 2)));
        }
        let last = waits(&queue, 1);
        drop(first);
        drop(last.await.unwrap());
        assert!(queue.acquire(peer(1), Priority::Unproven).now_or_never().is_some());
    }

    /// One of the networks of a site, which has a /48.
    fn network(site: u16, number: u16) -> QueueKey {
        ClientNetwork::of(Some(Ipv6Addr::new(0x2001, 0xdb8, site, number, 0, 0, 0, 1).into())).into()
    }

    #[tokio::test]
    async fn a_client_that_fills_the_queue_from_many_networks_makes_room_for_others() {
        let queue = FairQueue::new("work", 1, 8);
        let _first = queue.acquire(peer(1), Priority::Unproven).await.unwrap();
        let other = waits_as(&queue, network(2, 0), Priority::Unproven);
        let mut crowd: Vec<_> = (0..7).map(|number| waits_as(&queue, network(1, number), Priority::Unproven)).collect();
        let again = queue.acquire(network(1, 7), Priority::Unproven);
        assert!(is_refused(again.now_or_never().as_ref()), "each of theirs has one, and together they have most");
        let _newcomers = [peer(1), network(3, 0), network(2, 1)].map(|key| waits_as(&queue, key, Priority::Unproven));
        let refused: Vec<_> = crowd.iter_mut().filter_map(FutureExt::now_or_never).collect();
        assert!(refused.len() == 3 && refused.iter().all(|outcome| is_refused(Some(outcome))));
        drop(other);
    }

    #[tokio::test]
    async fn who_has_shown_who_they_are_has_every_second_turn_and_half_of_the_queue() {
        let queue = FairQueue::new("work", 1, 4);
        let first = queue.acquire(peer(1), Priority::Unproven).await.unwrap();
        // From all over the world, one each.
        let site = |number| network(number, 0);
        let mut crowd: Vec<_> = (0..4).map(|number| waits_as(&queue, site(number), Priority::Unproven)).collect();
        let refused = queue.acquire(site(9), Priority::Unproven).now_or_never();
        assert!(is_refused(refused.as_ref()), "nobody has more than one");
        let mut known: Vec<_> = (4..6).map(|number| waits_as(&queue, site(number), Priority::Proven)).collect();
        let third = queue.acquire(site(7), Priority::Proven).now_or_never();
        assert!(is_refused(third.as_ref()), "more than half is for whoever comes first");
        let still_there: Vec<_> =
            crowd.drain(..).filter_map(|mut one| (&mut one).now_or_never().is_none().then_some(one)).collect();
        assert_eq!(still_there.len(), 2);
        crowd = still_there;
        let mut permit = first;
        for _ in 0..2 {
            drop(permit);
            permit = known.remove(0).await.unwrap();
            assert!((&mut crowd[0]).now_or_never().is_none());
            drop(permit);
            permit = crowd.remove(0).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_says_now_and_then_how_many_wait_of_how_many_peers() {
        let (log, _logging) = Log::start();
        let queue = FairQueue::new("work", 1, 3);
        let _first = queue.acquire(peer(1), Priority::Unproven).await.unwrap();
        let _crowd = [1, 1, 2].map(|number| waits(&queue, number));
        for _ in 0..3 {
            assert!(is_refused(queue.acquire(peer(1), Priority::Unproven).now_or_never().as_ref()));
        }
        let text = log.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in ["WARN", "what=\"work\"", "waiting=3", "peers=2", "429"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        tokio::time::advance(LOG_INTERVAL).await;
        assert!(is_refused(queue.acquire(peer(1), Priority::Unproven).now_or_never().as_ref()));
        assert_eq!(log.text().lines().count(), 2);
    }
}
