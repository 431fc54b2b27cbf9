//! The open connections of a listener: their limits, and the choice of the one to evict.
//!
//! A new connection beyond a limit takes the place of another one, in this order:
//!
//! 1. the connection that has been idle longest (between two requests, or without a byte since it was accepted);
//! 2. the connection whose TLS handshake or request head has been incomplete longest;
//! 3. the connection whose client has longest owed the rest of a body or not read an answer, if its peer has more than
//!    its share;
//! 4. none: a connection with a request that the server works on is never evicted, and the new connection is refused.
//!
//! Peers with more than an equal share of the listener lose connections first. So many peers can't evict the idle
//! connections of a peer with few, such as an API server. A peer at its own limit replaces only its own connections.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::{connection_end::ConnectionEnd, connection_limits::ConnectionLimits, peer::Peer};
use crate::fair_quota::{Lease, Quota};
use crate::telemetry::Metrics;

/// The maximum number of candidates that one scan of all connections finds. A scan takes some 100 us, so that a flood
/// of connections must not cause one for each.
const CANDIDATES: usize = 32;

/// The activity of a connection, in the order in which connections are evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// The connection is between two requests, or no byte has arrived.
    Idle,
    /// A TLS handshake or the head of a request is incomplete.
    Incomplete,
    /// A request is in flight, and the client has to send more of it or to read the answer.
    AwaitingClient,
    /// A request is in flight, and the server works on it.
    InFlight,
}

/// The connections of a listener, from all its workers.
pub(super) struct Connections {
    listener: &'static str,
    limits: ConnectionLimits,
    epoch: Instant,
    state: Mutex<State>,
    metrics: Option<Arc<Metrics>>,
    streams: Arc<Quota<Peer>>,
    wide_windows: Arc<Quota<Peer>>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: HashMap<u64, Arc<Connection>>,
    anonymous: Pool,
    certified: Pool,
    /// The anonymous connections of each peer.
    peers: HashMap<Peer, Pool>,
}

/// Connections that share a limit.
#[derive(Debug, Default)]
struct Pool {
    count: usize,
    /// The candidates to evict next, with their activity at the time of the scan.
    candidates: VecDeque<(u64, Arc<Connection>)>,
}

/// The listener's record of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    id: u64,
    peer: Peer,
    /// The peer is a proxy that brings the connections of many clients.
    shared: bool,
    /// The phase (in the lowest two bits), and its start (in milliseconds).
    doing: AtomicU64,
    certified: AtomicBool,
    evicted: AtomicBool,
    waker: AtomicWaker,
}

impl Connection {
    fn phase(doing: u64) -> Phase {
        match doing & 3 {
            0 => Phase::Idle,
            1 => Phase::Incomplete,
            2 => Phase::AwaitingClient,
            _ => Phase::InFlight,
        }
    }

    /// Returns whether this connection has been evicted. If not, wakes `waker` when it is.
    pub(super) fn is_evicted(&self, waker: &Waker) -> bool {
        self.waker.register(waker);
        self.evicted.load(Ordering::Acquire)
    }
}

/// The connections that share a limit.
#[derive(Clone, Copy)]
enum Scope {
    Peer(Peer),
    Anonymous,
    Certified,
}

impl Scope {
    fn has(self, connection: &Connection) -> bool {
        let certified = connection.certified.load(Ordering::Relaxed);
        match self {
            Self::Peer(peer) => !certified && connection.peer == peer,
            Self::Anonymous => !certified,
            Self::Certified => certified,
        }
    }
}

impl State {
    fn pool(&mut self, scope: Scope) -> &mut Pool {
        match scope {
            Scope::Peer(peer) => self.peers.entry(peer).or_default(),
            Scope::Anonymous => &mut self.anonymous,
            Scope::Certified => &mut self.certified,
        }
    }

    /// Removes a connection from the counts. Returns `false` if it was removed before.
    fn remove(&mut self, connection: &Connection) -> bool {
        if self.open.remove(&connection.id).is_none() {
            return false;
        }
        if connection.certified.load(Ordering::Relaxed) {
            self.certified.count -= 1;
        } else {
            self.anonymous.count -= 1;
            if let Entry::Occupied(mut peer) = self.peers.entry(connection.peer) {
                peer.get_mut().count -= 1;
                if peer.get().count == 0 {
                    peer.remove();
                }
            }
        }
        true
    }

    /// Evicts a connection of this scope. `new_peers` is 1 if the new connection's peer has none yet, else 0. Returns
    /// `false` if no connection may be evicted.
    fn evict(&mut self, scope: Scope, new_peers: usize) -> bool {
        let Some(connection) = self.next_victim(scope, new_peers) else { return false };
        self.remove(&connection);
        connection.evicted.store(true, Ordering::Release);
        connection.waker.wake();
        true
    }

    /// Returns the connection to evict.
    fn next_victim(&mut self, scope: Scope, new_peers: usize) -> Option<Arc<Connection>> {
        if let Some(connection) = self.candidate(scope) {
            return Some(connection);
        }
        let doing = |connection: &Arc<Connection>| connection.doing.load(Ordering::Relaxed);
        // The new peer counts: two peers with half of the listener each have more than an equal share as soon as a
        // third one arrives.
        let equal_share = (self.anonymous.count / (self.peers.len() + new_peers).max(1)).max(1);
        let has_too_many = |connection: &Connection| match scope {
            Scope::Peer(_) => true,
            Scope::Anonymous if connection.shared => false,
            Scope::Anonymous => self.peers.get(&connection.peer).is_some_and(|peer| peer.count > equal_share),
            Scope::Certified => false,
        };
        let mut found: Vec<_> = (self.open.values())
            .filter(|connection| scope.has(connection))
            .map(|connection| {
                let doing = doing(connection);
                ((!has_too_many(connection), Connection::phase(doing)), doing, connection)
            })
            .filter(|((has_its_share, phase), ..)| match phase {
                Phase::Idle | Phase::Incomplete => true,
                Phase::AwaitingClient => !has_its_share,
                Phase::InFlight => false,
            })
            .collect();
        // The milliseconds are in the higher bits, so the phase has to be compared first.
        found.sort_unstable_by_key(|(rank, doing, _)| (*rank, *doing));
        // Only candidates of one rank are kept: the next scan may find others of this rank, or of a lower one.
        let first = found.first().map(|(rank, ..)| *rank)?;
        let candidates: VecDeque<_> = found
            .into_iter()
            .take(CANDIDATES)
            .take_while(|(rank, ..)| *rank == first)
            .map(|(_, doing, connection)| (doing, Arc::clone(connection)))
            .collect();
        self.pool(scope).candidates = candidates;
        self.candidate(scope)
    }

    /// Returns the next candidate whose activity has not changed since the scan. A connection that became idle later
    /// has been idle for less time.
    fn candidate(&mut self, scope: Scope) -> Option<Arc<Connection>> {
        while let Some((doing, connection)) = self.pool(scope).candidates.pop_front() {
            let is_open = self.open.contains_key(&connection.id) && scope.has(&connection);
            if is_open && connection.doing.load(Ordering::Relaxed) == doing {
                return Some(connection);
            }
        }
        None
    }
}

impl Connections {
    pub(super) fn new(listener: &'static str, limits: ConnectionLimits, metrics: Option<Arc<Metrics>>) -> Arc<Self> {
        let epoch = Instant::now();
        if let Some(metrics) = &metrics {
            metrics.listener_opened(listener, ConnectionEnd::ALL.iter().map(|end| end.label()));
        }
        Arc::new(Self {
            listener,
            limits,
            epoch,
            state: Mutex::default(),
            metrics,
            streams: Arc::default(),
            wide_windows: Arc::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doing(&self, phase: Phase, since: Instant) -> u64 {
        let since = u64::try_from(since.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX >> 2);
        since << 2 | phase as u64
    }

    /// Counts a new connection, and evicts another one if a limit requires it. Returns `None` if the new one is
    /// refused.
    pub(super) fn accept(self: &Arc<Self>, peer: IpAddr) -> Option<Open> {
        let shared = self.limits.shared_peers.iter().any(|network| network.contains(peer));
        let peer = Peer::of(peer);
        let mut state = self.state();
        let of_peer = state.peers.get(&peer).map_or(0, |pool| pool.count);
        let (scope, refused) = if !shared && of_peer >= self.limits.per_peer() {
            (Some(Scope::Peer(peer)), ConnectionEnd::RefusedPeer)
        } else if state.anonymous.count >= self.limits.anonymous() {
            (Some(Scope::Anonymous), ConnectionEnd::RefusedFull)
        } else {
            (None, ConnectionEnd::RefusedFull)
        };
        if let Some(scope) = scope
            && !state.evict(scope, usize::from(of_peer == 0))
        {
            drop(state);
            self.record(refused);
            return None;
        }
        let id = state.next;
        state.next += 1;
        let connection = Arc::new(Connection {
            id,
            peer,
            shared,
            doing: AtomicU64::new(self.doing(Phase::Idle, Instant::now())),
            certified: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        state.open.insert(id, Arc::clone(&connection));
        state.anonymous.count += 1;
        state.peers.entry(peer).or_default().count += 1;
        drop(state);
        if let Some(metrics) = &self.metrics {
            metrics.connection_opened(self.listener);
        }
        Some(Open { connections: Arc::clone(self), connection })
    }

    pub(super) fn record(&self, end: ConnectionEnd) {
        if let Some(metrics) = &self.metrics {
            metrics.connection_ended(self.listener, end.label());
        }
    }
}

/// An open connection, counted until this is dropped.
pub(super) struct Open {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
}

impl Open {
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Counts an HTTP/2 stream until the lease is dropped. Returns `None` if there are too many.
    pub(super) fn begin_stream(&self) -> Option<Lease<Peer>> {
        let mut lease = Lease::new(&self.connections.streams, self.connection.peer);
        lease.take(1, self.connections.limits.streams()).then_some(lease)
    }

    /// Counts an HTTP/2 connection with a wide window until the lease is dropped. Returns `None` if there are too many.
    pub(super) fn widen_window(&self) -> Option<Lease<Peer>> {
        let mut lease = Lease::new(&self.connections.wide_windows, self.connection.peer);
        lease.take(1, ConnectionLimits::MAX_WIDE_WINDOWS).then_some(lease)
    }

    /// Records the activity of the connection, and its start.
    pub(super) fn set(&self, phase: Phase, since: Instant) {
        self.connection.doing.store(self.connections.doing(phase, since), Ordering::Relaxed);
    }

    /// Counts the connection among those of callers with a client certificate. Returns `false` if there are too many.
    pub(super) fn certify(&self) -> bool {
        let mut state = self.connections.state();
        let full = state.certified.count >= self.connections.limits.certified();
        if full && !state.evict(Scope::Certified, 0) {
            drop(state);
            self.connections.record(ConnectionEnd::RefusedFull);
            return false;
        }
        if state.remove(&self.connection) {
            self.connection.certified.store(true, Ordering::Relaxed);
            state.open.insert(self.connection.id, Arc::clone(&self.connection));
            state.certified.count += 1;
        }
        true
    }

    pub(super) fn record(&self, end: ConnectionEnd) {
        self.connections.record(end);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.state().remove(&self.connection);
        if let Some(metrics) = &self.connections.metrics {
            metrics.connection_closed(self.connections.listener);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::task::noop_waker;
    use proptest::prelude::*;

    use super::*;
    use crate::configuration::Network;

    const ONE: &str = "192.0.2.1";
    const OTHER: &str = "192.0.2.2";

    fn connections(total: usize) -> Arc<Connections> {
        with(ConnectionLimits { total, client_certificates: false, shared_peers: Vec::new() })
    }

    fn with(limits: ConnectionLimits) -> Arc<Connections> {
        Connections::new("test", limits, None)
    }

    fn open(connections: &Arc<Connections>, peer: &str) -> Option<Open> {
        connections.accept(peer.parse().unwrap())
    }

    fn ended(open: &Open) -> bool {
        open.connection.is_evicted(&noop_waker())
    }

    /// A full listener with two peers' connections: each in one phase since one second, in milliseconds.
    fn full(phases: &[(Phase, u64)]) -> (Arc<Connections>, Vec<Open>) {
        let connections = connections(phases.len());
        let opened = phases.iter().enumerate().map(|(index, (phase, since))| {
            let opened = open(&connections, &format!("192.0.2.{index}")).unwrap();
            opened.set(*phase, connections.epoch + Duration::from_millis(*since));
            opened
        });
        let opened = opened.collect();
        (connections, opened)
    }

    #[test]
    fn a_full_listener_ends_the_connection_that_has_been_idle_longest() {
        use Phase::{Idle, InFlight, Incomplete};
        for (phases, expected) in [
            (vec![(Idle, 20), (Idle, 10), (Idle, 30)], Some(1)),
            (vec![(InFlight, 1), (Incomplete, 2), (Idle, 900)], Some(2)),
            (vec![(InFlight, 1), (Incomplete, 20), (Incomplete, 10)], Some(2)),
            (vec![(InFlight, 1), (InFlight, 2)], None),
        ] {
            let (connections, opened) = full(&phases);
            let new = open(&connections, "198.51.100.1");
            assert_eq!(new.is_some(), expected.is_some(), "{phases:?}");
            assert_eq!(opened.iter().position(ended), expected, "{phases:?}");
        }
    }

    #[test]
    fn one_peer_leaves_others_a_quarter_and_replaces_only_its_own_connections() {
        let connections = connections(100);
        let others: Vec<_> = (0..25).map(|_| open(&connections, OTHER).unwrap()).collect();
        let own: Vec<_> = (0..1200).map(|_| open(&connections, ONE).unwrap()).collect();
        assert_eq!(others.iter().filter(|open| ended(open)).count(), 0);
        assert_eq!(own.iter().filter(|open| !ended(open)).count(), 75);
        assert_eq!(connections.state().open.len(), 100);
    }

    #[test]
    fn peers_with_many_connections_lose_theirs_before_a_peer_with_few_loses_an_idle_one() {
        let connections = connections(16);
        let epoch = connections.epoch;
        let few: Vec<_> = (0..2).map(|_| open(&connections, "198.51.100.1").unwrap()).collect();
        // Theirs are newer, and none is idle.
        let phases = [Phase::Incomplete, Phase::AwaitingClient];
        let mut many = Vec::new();
        for number in 0..200_u64 {
            let Some(open) = open(&connections, &format!("192.0.2.{}", number % 3)) else { continue };
            open.set(phases[usize::from(number > 100)], epoch + Duration::from_secs(number + 1));
            many.push(open);
        }
        assert_eq!(many.len(), 200, "each took the place of another");
        assert!(!few.iter().any(ended));
        assert!(open(&connections, "198.51.100.1").is_some());
        assert!(!few.iter().any(ended));
    }

    #[test]
    fn a_connection_that_awaits_its_client_ends_for_others_only_above_its_peers_share() {
        for (of_one, of_other, by_whom, ends) in [
            (3, 1, "198.51.100.1", true),
            // With a third one, each of the two has more than its share.
            (2, 2, "198.51.100.1", true),
            (1, 1, "198.51.100.1", false),
            (2, 2, OTHER, false),
        ] {
            let connections = connections(of_one + of_other);
            let all: Vec<_> = [(ONE, of_one), (OTHER, of_other)]
                .into_iter()
                .flat_map(|(peer, count)| std::iter::repeat_n(peer, count))
                .map(|peer| {
                    let open = open(&connections, peer).unwrap();
                    open.set(Phase::AwaitingClient, Instant::now());
                    open
                })
                .collect();
            assert_eq!(open(&connections, by_whom).is_some(), ends, "{of_one} {of_other} {by_whom}");
            assert_eq!(all.iter().filter(|open| ended(open)).count(), usize::from(ends));
            assert!(of_one == of_other || !all[of_one..].iter().any(ended), "not of the other peer");
        }
    }

    #[test]
    fn streams_are_counted_for_all_connections_and_one_peer_leaves_others_some() {
        let connections = connections(8);
        let (one, other) = (open(&connections, ONE).unwrap(), open(&connections, OTHER).unwrap());
        let streams: Vec<_> = std::iter::from_fn(|| one.begin_stream()).collect();
        assert_eq!(streams.len(), 1024 / 4 * 3);
        assert!(other.begin_stream().is_some());
        drop(streams);
        assert!(connections.streams.is_unused());
    }

    #[test]
    fn wide_windows_are_counted_for_all_connections_and_one_peer_leaves_others_some() {
        let connections = connections(64);
        let (one, other) = (open(&connections, ONE).unwrap(), open(&connections, OTHER).unwrap());
        let wide: Vec<_> = std::iter::from_fn(|| one.widen_window()).collect();
        assert_eq!(wide.len(), 12);
        assert!(other.widen_window().is_some());
        drop(wide);
        assert!(connections.wide_windows.is_unused());
    }

    #[test]
    fn a_peer_whose_requests_are_all_in_flight_is_refused_more_and_others_are_not() {
        let connections = connections(8);
        let busy: Vec<_> = (0..6).map(|_| open(&connections, ONE).unwrap()).collect();
        for open in &busy {
            open.set(Phase::InFlight, Instant::now());
        }
        assert!(open(&connections, ONE).is_none());
        assert!(open(&connections, OTHER).is_some());
    }

    proptest! {
        /// However two peers fill the listener, with as many requests in flight as they get: there is room for a third one,
        /// whether what else they have is slow to send, slow to take, or idle.
        #[test]
        fn two_peers_never_keep_a_third_one_out(
            total in 4usize..80,
            phases in prop::collection::vec(prop::sample::select(vec![Phase::Idle, Phase::Incomplete, Phase::AwaitingClient]), 80),
            of_one in 0usize..80,
        ) {
            let connections = connections(total);
            let (quota, limit) = (Arc::default(), connections.limits.requests());
            let mut all = Vec::new();
            for number in 0..total * 2 {
                let peer = if number < of_one { ONE } else { OTHER };
                let Some(open) = open(&connections, peer) else { continue };
                let mut lease = Lease::new(&quota, open.connection.peer);
                let phase = if lease.take(1, limit) { Phase::InFlight } else { phases[number % phases.len()] };
                open.set(phase, Instant::now());
                all.push((open, phase, lease));
            }
            prop_assert!(open(&connections, "198.51.100.1").is_some());
            prop_assert!(all.iter().all(|(open, phase, _)| *phase != Phase::InFlight || !ended(open)));
        }
    }

    #[test]
    fn the_addresses_that_one_host_can_have_are_one_peer() {
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8::1", "2001:db8::ffff:1:2:3", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            assert_eq!(Peer::of(one.parse().unwrap()) == Peer::of(other.parse().unwrap()), same, "{one} {other}");
        }
    }

    #[test]
    fn a_trusted_proxy_may_fill_the_listener() {
        let shared_peers = vec![Network::parse("192.0.2.0/24").unwrap()];
        let connections = with(ConnectionLimits { total: 8, client_certificates: false, shared_peers });
        let all: Vec<_> = (0..8).map(|_| open(&connections, ONE).unwrap()).collect();
        assert!(!all.iter().any(ended));
    }

    #[test]
    fn callers_with_a_certificate_keep_their_share_whatever_others_open() {
        let limits = ConnectionLimits { total: 100, client_certificates: true, shared_peers: Vec::new() };
        let connections = with(limits);
        let certified: Vec<_> = (0..50)
            .map(|_| {
                let open = open(&connections, ONE).unwrap();
                assert!(open.certify());
                open
            })
            .collect();
        let anonymous: Vec<_> = (0..1200).filter_map(|_| open(&connections, OTHER)).collect();
        assert!(!certified.iter().any(ended));
        assert_eq!(anonymous.iter().filter(|open| !ended(open)).count(), 36);
        // A further one takes the place of one of its own kind.
        let further = open(&connections, ONE).unwrap();
        assert!(further.certify());
        assert_eq!(certified.iter().filter(|open| ended(open)).count(), 1);
    }

    #[test]
    fn what_was_counted_is_given_back() {
        let connections = connections(4);
        {
            let _all: Vec<_> =
                (0..20).map(|number| open(&connections, &format!("192.0.2.{number}")).unwrap()).collect();
            assert_eq!(connections.state().open.len(), 4);
        }
        let state = connections.state();
        assert!(state.open.is_empty() && state.peers.is_empty() && state.anonymous.count == 0);
    }

    proptest! {
        /// However connections come, go and change, the counts are those of what is open, and bounded; and nothing in flight
        /// ends while something idle is there.
        #[test]
        fn counts_hold_and_what_is_in_flight_goes_on(steps in prop::collection::vec((0u8..4, 0u8..5, 0usize..40), 1..300)) {
            let limits = ConnectionLimits { total: 16, client_certificates: true, shared_peers: Vec::new() };
            let connections = with(limits.clone());
            let mut opened: Vec<(Open, Phase)> = Vec::new();
            for (step, peer, which) in steps {
                match step {
                    0 => if let Some(open) = open(&connections, &format!("192.0.2.{peer}")) {
                        opened.push((open, Phase::Idle));
                    },
                    1 if !opened.is_empty() => drop(opened.swap_remove(which % opened.len())),
                    2 if !opened.is_empty() => {
                        let count = opened.len();
                        let phase = [Phase::Idle, Phase::Incomplete, Phase::InFlight][usize::from(peer) % 3];
                        opened[which % count].0.set(phase, Instant::now());
                        opened[which % count].1 = phase;
                    }
                    3 if !opened.is_empty() => { opened[which % opened.len()].0.certify(); }
                    _ => {}
                }
                // Those in flight went on, whatever came.
                prop_assert!(opened.iter().all(|(open, phase)| *phase != Phase::InFlight || !ended(open)));
                opened.retain(|(open, _)| !ended(open));
                let state = connections.state();
                prop_assert!(state.anonymous.count <= limits.anonymous() && state.certified.count <= limits.certified());
                prop_assert_eq!(state.anonymous.count + state.certified.count, state.open.len());
                prop_assert_eq!(state.peers.values().map(|pool| pool.count).sum::<usize>(), state.anonymous.count);
                prop_assert!(state.peers.values().all(|pool| (1..=limits.per_peer()).contains(&pool.count)));
                prop_assert_eq!(state.open.len(), opened.len());
            }
        }
    }
}
