//! Quotas that all peers of a listener share. One peer always leaves a part for the others.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::peer::Peer;

/// The factor by which a peer may use more than what is left free. Alone, a peer gets three quarters; each further peer
/// finds a free part.
const TIMES_THE_REST: usize = 3;

/// The amount of a resource that is taken, by all workers of a listener together.
#[derive(Debug, Default)]
pub(crate) struct Quota(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// The amounts of peers that have taken something; at most as many as have requests in flight.
    by_peer: HashMap<Peer, usize>,
}

impl Quota {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn is_unused(&self) -> bool {
        let taken = self.taken();
        taken.all == 0 && taken.by_peer.is_empty()
    }
}

/// The amount of a [`Quota`] that one request has taken, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    quota: Arc<Quota>,
    peer: Peer,
    taken: usize,
}

impl Lease {
    /// Makes a lease that has taken nothing yet.
    pub(crate) fn new(quota: &Arc<Quota>, peer: Peer) -> Self {
        Self { quota: Arc::clone(quota), peer, taken: 0 }
    }

    /// Takes `amount` more. Returns `false`, and takes nothing, if all peers together would have more than `limit`, or
    /// this peer more than its share.
    pub(crate) fn take(&mut self, amount: usize, limit: usize) -> bool {
        let mut taken = self.quota.taken();
        let Some(all) = taken.all.checked_add(amount).filter(|all| *all <= limit) else { return false };
        let of_peer = taken.by_peer.get(&self.peer).copied().unwrap_or(0);
        // A peer without any gets some as long as there is any.
        if of_peer > 0 && of_peer + amount > (limit - all).saturating_mul(TIMES_THE_REST) {
            return false;
        }
        taken.all = all;
        *taken.by_peer.entry(self.peer).or_default() += amount;
        self.taken += amount;
        true
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut taken = self.quota.taken();
        taken.all -= self.taken;
        if let Entry::Occupied(mut of_peer) = taken.by_peer.entry(self.peer) {
            *of_peer.get_mut() -= self.taken;
            if *of_peer.get() == 0 {
                of_peer.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(number: u8) -> Peer {
        Peer::of([192, 0, 2, number].into())
    }

    /// Takes as often as it is let.
    fn fill(quota: &Arc<Quota>, number: u8, amount: usize, limit: usize) -> Lease {
        let mut lease = Lease::new(quota, peer(number));
        while lease.take(amount, limit) {}
        lease
    }

    #[test]
    fn what_is_taken_is_bounded_and_given_back() {
        let quota = Arc::default();
        {
            let (mut one, mut two) = (Lease::new(&quota, peer(1)), Lease::new(&quota, peer(2)));
            assert!(one.take(60, 100));
            assert!(!two.take(50, 100));
            assert!(two.take(40, 100));
            assert!(!one.take(usize::MAX, 100));
        }
        assert!(quota.is_unused());
        assert!(Lease::new(&quota, peer(1)).take(1, 1), "the last one is for whom has none");
    }

    #[test]
    fn one_peer_leaves_a_quarter_and_many_leave_something() {
        let quota = Arc::default();
        let one = fill(&quota, 1, 1, 1000);
        assert_eq!(one.taken, 750);
        let leases: Vec<_> = (2..5).map(|number| fill(&quota, number, 1, 1000)).collect();
        assert!(leases.iter().all(|lease| lease.taken > 0));
        assert!(Lease::new(&quota, peer(200)).take(1, 1000));
    }

    proptest! {
        /// However peers take and give back, the whole is bounded, and counts are those of the leases.
        #[test]
        fn counts_are_those_of_the_leases(steps in prop::collection::vec((0u8..4, 0usize..60, any::<bool>()), 1..200)) {
            let quota = Arc::default();
            let mut leases: Vec<Lease> = Vec::new();
            for (number, amount, gives_back) in steps {
                if gives_back && !leases.is_empty() {
                    drop(leases.swap_remove(amount % leases.len()));
                } else {
                    let mut lease = Lease::new(&quota, peer(number));
                    lease.take(amount, 100);
                    leases.push(lease);
                }
                let all: usize = leases.iter().map(|lease| lease.taken).sum();
                prop_assert!(all <= 100);
                prop_assert_eq!(quota.taken().all, all);
            }
            leases.clear();
            prop_assert!(quota.is_unused());
        }
    }
}
