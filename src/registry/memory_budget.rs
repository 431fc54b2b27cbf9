//! The memory budget of all answers in flight.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    failure::Failure,
    quota::{Quota, QuotaPermit, Shares, Tenant},
};
use crate::telemetry::{Metrics, OutboundQuota};

/// The size up to which an answer needs no reservation, in bytes. Most manifests and lists are far smaller.
pub(super) const FREE_BYTES: usize = 64 << 10;
/// The budget of all answers together, in bytes, if no single one may need more than a quarter of it.
const TOTAL_BYTES: usize = 96 << 20;

/// The memory for bodies that are larger than [`FREE_BYTES`].
pub(super) struct MemoryBudget {
    quota: Arc<Quota>,
}

/// A part of the budget, held until it is dropped.
pub(crate) type MemoryReservation = QuotaPermit;

impl MemoryBudget {
    /// Makes a budget. `largest` is the maximum that a single answer may need.
    pub(super) fn new(largest: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { quota: Quota::new(OutboundQuota::Memory, shares_of(largest), metrics) })
    }

    /// Waits for a reservation of memory for an answer.
    ///
    /// # Errors
    /// There was none until the deadline, or the answer needs more than one registry's share.
    pub(super) async fn take(
        &self,
        bytes: usize,
        tenant: &Tenant,
        deadline: Instant,
    ) -> Result<MemoryReservation, Failure> {
        let reserved = self.quota.acquire_until(bytes, tenant, deadline).await;
        reserved.map_err(|share| Failure::Exhausted(OutboundQuota::Memory, share))
    }
}

/// Gives each host a quarter of the memory, and all unnamed hosts together half of it.
fn shares_of(largest: usize) -> Shares {
    let all = TOTAL_BYTES.max(largest.saturating_mul(4));
    Shares { all, each: all / 4, unnamed: all / 2, each_unnamed: all / 4 }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_of_the_limit_has_room_be_its_host_named_or_not() {
        for largest in [4 << 20, TOTAL_BYTES] {
            let room = MemoryBudget::new(largest, Arc::default());
            for named in [true, false] {
                let tenant = Tenant { registry: "r.example.com".into(), named };
                let reserved = room.take(largest, &tenant, Instant::now()).now_or_never();
                assert!(matches!(reserved, Some(Ok(_))), "{largest} {named}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_memory_in_vain_is_not_told_that_the_registry_is_slow() {
        let room = MemoryBudget::new(4 << 20, Arc::default());
        let tenant = Tenant { registry: "r.example.com".into(), named: true };
        let deadline = Instant::now() + std::time::Duration::from_secs(8);
        let held = room.take(TOTAL_BYTES / 4, &tenant, deadline).await;
        let outcome = room.take(1, &tenant, deadline).await.map(drop);
        assert!(matches!(outcome, Err(Failure::Exhausted(OutboundQuota::Memory, _))), "{outcome:?}");
        drop(held);
        assert!(room.take(1, &tenant, deadline).await.is_ok());
    }

    #[test]
    fn four_of_the_largest_answers_fit_and_hosts_that_nobody_named_have_half() {
        for largest in [1, 4 << 20, TOTAL_BYTES, usize::MAX] {
            let Shares { all, each, unnamed, each_unnamed } = shares_of(largest);
            assert!(each >= largest || all == usize::MAX);
            assert!(all >= TOTAL_BYTES && each == all / 4 && each_unnamed == each && unnamed == all / 2);
        }
    }
}
