//! The memory that answers may take while they are under way, all together.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::quota::{Permit, Quota, Shares, Tenant};
use crate::operations::{Metrics, OutboundQuota};

/// Bytes that every answer may have without asking: most manifests and lists are far smaller.
pub(super) const FREE: usize = 64 << 10;
/// Bytes of all answers together, where no single one may need more than a quarter of it.
const ALL: usize = 96 << 20;
/// Longer than any request lasts: each ends at a deadline of its own.
const FOR_EVER: Duration = Duration::from_hours(24);

/// Room for the bodies of answers that are larger than [`FREE`].
pub(super) struct Room {
    quota: Arc<Quota>,
}

/// Some of the room, until it is dropped.
pub(crate) type Reserved = Permit;

impl Room {
    /// `largest` is what a single answer may need.
    pub(super) fn new(largest: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { quota: Quota::new(OutboundQuota::Memory, shares_of(largest), metrics) })
    }

    /// Waits for room for so many bytes of a host's. It waits for ever where they are more than a quarter of the room.
    pub(super) async fn take(&self, bytes: usize, host: &str, named: bool) -> Reserved {
        let tenant = Tenant { registry: host.into(), named };
        match self.quota.acquire_until(bytes, &tenant, Instant::now() + FOR_EVER).await {
            Ok(reserved) => reserved,
            Err(_) => pending().await,
        }
    }
}

/// A host gets a quarter of the room, and all hosts together that nobody named get half of it.
fn shares_of(largest: usize) -> Shares {
    let all = ALL.max(largest.saturating_mul(4));
    Shares { all, each: all / 4, unnamed: all / 2, each_unnamed: all / 4 }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_of_the_limit_has_room_be_its_host_named_or_not() {
        for largest in [4 << 20, ALL] {
            let room = Room::new(largest, Arc::default());
            for named in [true, false] {
                let reserved = room.take(largest, "r.example.com", named).now_or_never();
                assert!(reserved.is_some(), "{largest} {named}");
            }
        }
    }

    #[test]
    fn four_of_the_largest_answers_fit_and_hosts_that_nobody_named_have_half() {
        for largest in [1, 4 << 20, ALL, usize::MAX] {
            let Shares { all, each, unnamed, each_unnamed } = shares_of(largest);
            assert!(each >= largest || all == usize::MAX);
            assert!(all >= ALL && each == all / 4 && each_unnamed == each && unnamed == all / 2);
        }
    }
}
