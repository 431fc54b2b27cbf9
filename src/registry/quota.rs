//! Quotas of outbound requests: connections, memory, and threads that resolve names.
//!
//! Users who may create pods choose which registries are asked, and a registry chooses how long its answer takes. So
//! each registry has a share of each resource, and all registries together that neither a rule nor a registries entry
//! names have another share. A slow registry takes nothing from the others' shares.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::telemetry::{Metrics, OutboundQuota};

/// The registry that a request counts for, wherever redirects and token realms lead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tenant {
    pub(crate) registry: Arc<str>,
    /// A rule or a registries entry names the registry.
    pub(crate) named: bool,
}

/// The maximum amounts of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// The amount for all registries together.
    pub(crate) all: usize,
    /// The amount for one named registry.
    pub(crate) each: usize,
    /// The amount for all unnamed registries together.
    pub(crate) unnamed: usize,
    /// The amount for one unnamed registry.
    pub(crate) each_unnamed: usize,
}

/// The share that was used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exhausted {
    All,
    OfRegistry,
    OfUnnamed,
}

/// A resource that all outbound requests share.
///
/// Permits go to one registry's requests in their order, and to registries in turn. A permit is acquired as a whole; a
/// request that waits holds nothing.
pub(crate) struct Quota {
    of: OutboundQuota,
    shares: Shares,
    metrics: Arc<Metrics>,
    state: Mutex<QuotaState>,
}

#[derive(Default)]
struct QuotaState {
    used: usize,
    used_by_unnamed: usize,
    tenants: HashMap<Tenant, Usage>,
    /// The tenants that wait, by their turn: first the named ones, then the others.
    turns: [BTreeMap<u64, Tenant>; 2],
    /// The next number of a turn or waiter.
    next: u64,
}

/// A tenant's permits and waiters. Removed when it has neither.
#[derive(Default)]
struct Usage {
    used: usize,
    waiting: VecDeque<Waiter>,
    turn: Option<u64>,
}

struct Waiter {
    number: u64,
    amount: usize,
    granted: oneshot::Sender<QuotaPermit>,
}

/// A part of the resource, held until it is dropped.
pub(crate) struct QuotaPermit {
    quota: Arc<Quota>,
    tenant: Tenant,
    amount: usize,
}

/// Removes a waiter from the queue when its caller stops waiting.
struct WaitGuard<'a> {
    quota: &'a Arc<Quota>,
    tenant: &'a Tenant,
    number: u64,
}

impl Quota {
    pub(crate) fn new(of: OutboundQuota, shares: Shares, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { of, shares, metrics, state: Mutex::default() })
    }

    /// Waits for a permit until the deadline.
    ///
    /// # Errors
    /// Returns the share that was used up, or that is smaller than the amount.
    pub(crate) async fn acquire_until(
        self: &Arc<Self>,
        amount: usize,
        tenant: &Tenant,
        deadline: Instant,
    ) -> Result<QuotaPermit, Exhausted> {
        let (number, granted) = {
            let mut state = self.state();
            // A request that already waits for this registry comes first.
            let waits = state.tenants.get(tenant).is_some_and(|usage| !usage.waiting.is_empty());
            if !waits && self.exhausted(&state, amount, tenant).is_none() {
                return Ok(self.take(&mut state, amount, tenant));
            }
            state.enqueue(amount, tenant)
        };
        self.metrics.outbound_wait(self.of, tenant.named);
        let waiting = WaitGuard { quota: self, tenant, number };
        if let Ok(Ok(permit)) = timeout_at(deadline, granted).await {
            return Ok(permit);
        }
        drop(waiting);
        self.metrics.outbound_refusal(self.of, tenant.named);
        // A permit may have been released after the deadline; the request is too late all the same.
        Err(self.exhausted(&self.state(), amount, tenant).unwrap_or(Exhausted::OfRegistry))
    }

    fn exhausted(&self, state: &QuotaState, amount: usize, tenant: &Tenant) -> Option<Exhausted> {
        let Shares { all, each, unnamed, each_unnamed } = self.shares;
        let each = if tenant.named { each } else { each_unnamed };
        let fits = |used: usize, share: usize| used.checked_add(amount).is_some_and(|sum| sum <= share);
        if !fits(state.tenants.get(tenant).map_or(0, |usage| usage.used), each) {
            Some(Exhausted::OfRegistry)
        } else if !tenant.named && !fits(state.used_by_unnamed, unnamed) {
            Some(Exhausted::OfUnnamed)
        } else if !fits(state.used, all) {
            Some(Exhausted::All)
        } else {
            None
        }
    }

    fn take(self: &Arc<Self>, state: &mut QuotaState, amount: usize, tenant: &Tenant) -> QuotaPermit {
        state.used += amount;
        if !tenant.named {
            state.used_by_unnamed += amount;
        }
        state.tenants.entry(tenant.clone()).or_default().used += amount;
        QuotaPermit { quota: Arc::clone(self), tenant: tenant.clone(), amount }
    }

    /// Grants free permits to waiters. The caller sends them after it releases the lock, since a permit for a waiter
    /// that has left is dropped, and its drop takes the lock.
    fn grant(self: &Arc<Self>, state: &mut QuotaState) -> Vec<(oneshot::Sender<QuotaPermit>, QuotaPermit)> {
        let mut granted = Vec::new();
        for class in 0..state.turns.len() {
            let mut next = state.turns[class].first_key_value().map(|(turn, _)| *turn);
            while let Some(turn) = next {
                let tenant = state.turns[class].get(&turn).cloned();
                let head = tenant.as_ref().and_then(|tenant| state.tenants.get(tenant)?.waiting.front());
                if let (Some(amount), Some(tenant)) = (head.map(|waiter| waiter.amount), tenant) {
                    match self.exhausted(state, amount, &tenant) {
                        // No other tenant of this class can get anything either.
                        Some(Exhausted::All | Exhausted::OfUnnamed) if amount == 1 => break,
                        Some(_) => {}
                        None => {
                            let waiter = state.dequeue(&tenant);
                            let permit = self.take(state, amount, &tenant);
                            granted.extend(waiter.map(|waiter| (waiter.granted, permit)));
                        }
                    }
                }
                next = state.turns[class].range(turn + 1..).next().map(|(turn, _)| *turn);
            }
        }
        granted
    }

    /// Makes a change that may free permits, and grants them.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut QuotaState)) {
        let granted = {
            let mut state = self.state();
            change(&mut state);
            self.grant(&mut state)
        };
        for (waiter, permit) in granted {
            // If the waiter has left, `send` returns the permit, which is dropped here.
            drop(waiter.send(permit));
        }
    }

    fn state(&self) -> MutexGuard<'_, QuotaState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QuotaState {
    fn enqueue(&mut self, amount: usize, tenant: &Tenant) -> (u64, oneshot::Receiver<QuotaPermit>) {
        let (granted, receiver) = oneshot::channel();
        let number = self.number();
        let usage = self.tenants.entry(tenant.clone()).or_default();
        usage.waiting.push_back(Waiter { number, amount, granted });
        if usage.turn.is_none() {
            usage.turn = Some(number);
            self.turns[class(tenant)].insert(number, tenant.clone());
        }
        (number, receiver)
    }

    /// Removes the first waiter of a tenant, and moves the tenant behind all others.
    fn dequeue(&mut self, tenant: &Tenant) -> Option<Waiter> {
        let next = self.number();
        let usage = self.tenants.get_mut(tenant)?;
        let waiter = usage.waiting.pop_front();
        if let Some(turn) = usage.turn.take() {
            self.turns[class(tenant)].remove(&turn);
        }
        if !usage.waiting.is_empty() {
            usage.turn = Some(next);
            self.turns[class(tenant)].insert(next, tenant.clone());
        }
        waiter
    }

    /// Removes a waiter from any position.
    fn remove(&mut self, tenant: &Tenant, number: u64) {
        let Some(usage) = self.tenants.get_mut(tenant) else { return };
        usage.waiting.retain(|waiter| waiter.number != number);
        if usage.waiting.is_empty() {
            if let Some(turn) = usage.turn.take() {
                self.turns[class(tenant)].remove(&turn);
            }
            self.forget_if_idle(tenant);
        }
    }

    fn forget_if_idle(&mut self, tenant: &Tenant) {
        if self.tenants.get(tenant).is_some_and(|usage| usage.used == 0 && usage.waiting.is_empty()) {
            self.tenants.remove(tenant);
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

fn class(tenant: &Tenant) -> usize {
    usize::from(!tenant.named)
}

impl Drop for QuotaPermit {
    fn drop(&mut self) {
        let Self { quota, tenant, amount } = self;
        quota.change(|state| {
            state.used -= *amount;
            if !tenant.named {
                state.used_by_unnamed -= *amount;
            }
            if let Some(usage) = state.tenants.get_mut(tenant) {
                usage.used -= *amount;
            }
            state.forget_if_idle(tenant);
        });
    }
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        // A waiter behind this one may want less, and get it now.
        self.quota.change(|state| state.remove(self.tenant, self.number));
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::Pin, time::Duration};

    use futures_util::{FutureExt, future::BoxFuture};

    use super::*;

    const SHARES: Shares = Shares { all: 16, each: 8, unnamed: 8, each_unnamed: 2 };

    fn quota() -> Arc<Quota> {
        Quota::new(OutboundQuota::Requests, SHARES, Arc::default())
    }

    fn tenant(registry: impl Into<Arc<str>>, named: bool) -> Tenant {
        Tenant { registry: registry.into(), named }
    }

    fn wait(quota: &Arc<Quota>, amount: usize, tenant: &Tenant) -> BoxFuture<'static, Result<QuotaPermit, Exhausted>> {
        let (quota, tenant) = (Arc::clone(quota), tenant.clone());
        async move { quota.acquire_until(amount, &tenant, Instant::now() + Duration::from_mins(1)).await }.boxed()
    }

    /// Takes what is there at once.
    fn take(quota: &Arc<Quota>, amount: usize, tenant: &Tenant) -> Option<QuotaPermit> {
        wait(quota, amount, tenant).now_or_never()?.ok()
    }

    fn fill(quota: &Arc<Quota>, tenant: impl Fn(usize) -> Tenant) -> Vec<QuotaPermit> {
        (0..).map_while(|number| take(quota, 1, &tenant(number))).collect()
    }

    /// Lets a future that waits come to where it waits.
    fn starts<T>(future: &mut Pin<Box<dyn Future<Output = T> + Send>>) {
        assert!(future.as_mut().now_or_never().is_none());
    }

    fn is_empty(quota: &Quota) -> bool {
        let state = quota.state();
        let QuotaState { used, used_by_unnamed, tenants, turns, next: _ } = &*state;
        *used == 0 && *used_by_unnamed == 0 && tenants.is_empty() && turns.iter().all(BTreeMap::is_empty)
    }

    #[tokio::test(start_paused = true)]
    async fn each_has_its_share_and_those_that_nobody_names_have_less() {
        let quota = quota();
        let unnamed = fill(&quota, |_| tenant("slow.example.org", false));
        assert_eq!(unnamed.len(), SHARES.each_unnamed);
        let many = fill(&quota, |number| tenant(format!("{number}.example.org"), false));
        assert_eq!(unnamed.len() + many.len(), SHARES.unnamed);
        let named = fill(&quota, |_| tenant("r.example.com", true));
        assert_eq!(named.len(), SHARES.each, "whatever the others hold");
        assert!(take(&quota, 1, &tenant("s.example.com", true)).is_none());
        drop((unnamed, many));
        let rest = fill(&quota, |number| tenant(format!("{number}.example.com"), true));
        assert_eq!(named.len() + rest.len(), SHARES.all);
        drop((named, rest));
        assert!(is_empty(&quota));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_at_the_deadline_and_says_which_share_was_used_up() {
        let quota = quota();
        let soon = || Instant::now() + Duration::from_secs(1);
        let slow = tenant("slow.example.org", false);
        let held = fill(&quota, |_| slow.clone());
        assert_eq!(quota.acquire_until(1, &slow, soon()).await.err(), Some(Exhausted::OfRegistry));
        let others = fill(&quota, |number| tenant(format!("{number}.example.org"), false));
        let other = tenant("other.example.org", false);
        assert_eq!(quota.acquire_until(1, &other, soon()).await.err(), Some(Exhausted::OfUnnamed));
        let named = fill(&quota, |number| tenant(format!("{number}.example.com"), true));
        let more = tenant("more.example.com", true);
        assert_eq!(quota.acquire_until(1, &more, soon()).await.err(), Some(Exhausted::All));
        assert_eq!(quota.acquire_until(SHARES.each + 1, &more, soon()).await.err(), Some(Exhausted::OfRegistry));
        drop((held, others, named));
        assert!(is_empty(&quota));
    }

    #[tokio::test]
    async fn registries_have_their_turns_however_many_wait_for_one_of_them() {
        let quota = Quota::new(
            OutboundQuota::Requests,
            Shares { all: 1, each: 1, unnamed: 1, each_unnamed: 1 },
            Arc::default(),
        );
        let held = take(&quota, 1, &tenant("first.example.com", true)).unwrap();
        let greedy = tenant("greedy.example.com", true);
        let mut crowd: Vec<_> = (0..100).map(|_| wait(&quota, 1, &greedy)).collect();
        crowd.iter_mut().for_each(starts);
        let mut modest = wait(&quota, 1, &tenant("modest.example.com", true));
        starts(&mut modest);
        drop(held);
        let first = crowd[0].as_mut().now_or_never().expect("it came first").unwrap();
        starts(&mut modest);
        drop(first);
        assert!(modest.as_mut().now_or_never().expect("the next turn is its").is_ok());
        assert!(crowd[1].as_mut().now_or_never().is_some(), "in order");
        drop(crowd);
        assert!(is_empty(&quota));
    }

    #[tokio::test]
    async fn those_that_nobody_names_never_keep_the_others_waiting() {
        let quota = quota();
        let hung = fill(&quota, |number| tenant(format!("{number}.example.org"), false));
        let mut crowd: Vec<_> =
            (0..1000).map(|number| wait(&quota, 1, &tenant(format!("w{number}.example.org"), false))).collect();
        crowd.iter_mut().for_each(starts);
        let named = fill(&quota, |_| tenant("r.example.com", true));
        assert_eq!(named.len(), SHARES.each);
        drop((hung, crowd, named));
        assert!(is_empty(&quota));
    }

    #[tokio::test]
    async fn who_stops_waiting_takes_nothing_and_lets_those_behind_pass() {
        let quota = quota();
        let registry = tenant("r.example.com", true);
        let held = take(&quota, 6, &registry).unwrap();
        let mut large = wait(&quota, 4, &registry);
        starts(&mut large);
        let mut small = wait(&quota, 2, &registry);
        starts(&mut small);
        drop(large);
        let small = small.as_mut().now_or_never().expect("it fits").unwrap();
        drop(held);
        // One that was given a permit, and left before it looked.
        let all = fill(&quota, |_| registry.clone());
        let mut late = wait(&quota, 1, &registry);
        starts(&mut late);
        drop((small, all, late));
        assert!(is_empty(&quota));
    }

    #[tokio::test]
    async fn all_who_wait_have_their_turn() {
        let quota = quota();
        let mut all = tokio::task::JoinSet::new();
        for number in 0..400 {
            let waiting = wait(&quota, 1 + number % 2, &tenant(format!("{}.example.com", number % 7), number % 3 == 0));
            all.spawn(async move {
                let permit = waiting.await;
                tokio::task::yield_now().await;
                permit.map(drop)
            });
        }
        while let Some(done) = all.join_next().await {
            assert_eq!(done.unwrap(), Ok(()));
        }
        assert!(is_empty(&quota));
    }
}
