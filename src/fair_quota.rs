//! Quotas that many callers share. One caller always leaves a part for the others.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The factor by which a caller may use more than what is left free. Alone, a caller gets three quarters; each further caller
/// finds a free part.
const TIMES_THE_REST: usize = 3;

/// The amount of a resource that is taken, by all callers together and by each. `K` tells callers apart.
#[derive(Debug)]
pub(crate) struct Quota<K>(Mutex<Taken<K>>);

#[derive(Debug)]
struct Taken<K> {
    all: usize,
    /// The amounts of callers that have taken something; at most as many as have work in progress.
    by_caller: HashMap<K, usize>,
}

impl<K> Default for Quota<K> {
    fn default() -> Self {
        Self(Mutex::new(Taken { all: 0, by_caller: HashMap::new() }))
    }
}

impl<K> Quota<K> {
    fn taken(&self) -> MutexGuard<'_, Taken<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn is_unused(&self) -> bool {
        let taken = self.taken();
        taken.all == 0 && taken.by_caller.is_empty()
    }
}

/// The amount of a [`Quota`] that one piece of work has taken, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Lease<K: Clone + Eq + Hash> {
    quota: Arc<Quota<K>>,
    caller: K,
    taken: usize,
}

impl<K: Clone + Eq + Hash> Lease<K> {
    /// Makes a lease that has taken nothing yet.
    pub(crate) fn new(quota: &Arc<Quota<K>>, caller: K) -> Self {
        Self { quota: Arc::clone(quota), caller, taken: 0 }
    }

    /// Takes `amount` more. Returns `false`, and takes nothing, if all callers together would have more than `limit`, or
    /// this caller more than its share.
    pub(crate) fn take(&mut self, amount: usize, limit: usize) -> bool {
        let mut taken = self.quota.taken();
        let Some(all) = taken.all.checked_add(amount).filter(|all| *all <= limit) else { return false };
        let of_caller = taken.by_caller.get(&self.caller).copied().unwrap_or(0);
        // A caller without any gets some as long as there is any.
        if of_caller > 0 && of_caller + amount > (limit - all).saturating_mul(TIMES_THE_REST) {
            return false;
        }
        taken.all = all;
        *taken.by_caller.entry(self.caller.clone()).or_default() += amount;
        self.taken += amount;
        true
    }
}

impl<K: Clone + Eq + Hash> Drop for Lease<K> {
    fn drop(&mut self) {
        let mut taken = self.quota.taken();
        taken.all -= self.taken;
        if let Entry::Occupied(mut of_caller) = taken.by_caller.entry(self.caller.clone()) {
            *of_caller.get_mut() -= self.taken;
            if *of_caller.get() == 0 {
                of_caller.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes as often as it is let.
    fn fill(quota: &Arc<Quota<u8>>, number: u8, amount: usize, limit: usize) -> Lease<u8> {
        let mut lease = Lease::new(quota, number);
        while lease.take(amount, limit) {}
        lease
    }

    #[test]
    fn what_is_taken_is_bounded_and_given_back() {
        let quota = Arc::default();
        {
            let (mut one, mut two) = (Lease::new(&quota, 1), Lease::new(&quota, 2));
            assert!(one.take(60, 100));
            assert!(!two.take(50, 100));
            assert!(two.take(40, 100));
            assert!(!one.take(usize::MAX, 100));
        }
        assert!(quota.is_unused());
        assert!(Lease::new(&quota, 1).take(1, 1), "the last one is for whom has none");
    }

    #[test]
    fn one_caller_leaves_a_quarter_and_many_leave_something() {
        let quota = Arc::default();
        let one = fill(&quota, 1, 1, 1000);
        assert_eq!(one.taken, 750);
        let leases: Vec<_> = (2..5).map(|number| fill(&quota, number, 1, 1000)).collect();
        assert!(leases.iter().all(|lease| lease.taken > 0));
        assert!(Lease::new(&quota, 200).take(1, 1000));
    }

    proptest! {
        /// However callers take and give back, the whole is bounded, and counts are those of the leases.
        #[test]
        fn counts_are_those_of_the_leases(steps in prop::collection::vec((0u8..4, 0usize..60, any::<bool>()), 1..200)) {
            let quota = Arc::default();
            let mut leases: Vec<Lease<u8>> = Vec::new();
            for (number, amount, gives_back) in steps {
                if gives_back && !leases.is_empty() {
                    drop(leases.swap_remove(amount % leases.len()));
                } else {
                    let mut lease = Lease::new(&quota, number);
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
