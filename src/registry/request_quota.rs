//! The quota of requests in flight.

use std::sync::Arc;

use super::quota::{Quota, Shares};
use crate::telemetry::{Metrics, OutboundQuota, descriptor_limit};

/// The maximum number of requests in flight to all registries, however many descriptors there are.
const MAX_REQUESTS: u64 = 1024;
/// The minimum, however few descriptors there are.
const MIN_REQUESTS: u64 = 32;

/// Makes the quota of requests in flight. Each takes a descriptor.
pub(crate) fn requests_in_flight(metrics: Arc<Metrics>) -> Arc<Quota> {
    Quota::new(OutboundQuota::Requests, shares_of(descriptor_limit()), metrics)
}

/// Returns the shares of a quarter of the descriptors. The others are for idle connections, callers and files.
fn shares_of(descriptors: u64) -> Shares {
    let all = usize::try_from((descriptors / 4).clamp(MIN_REQUESTS, MAX_REQUESTS)).unwrap_or(usize::MAX);
    Shares { all, each: all / 4, unnamed: all / 2, each_unnamed: all / 16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_take_a_part_of_the_descriptors_and_everyone_has_a_share() {
        for (descriptors, expected) in
            [(1 << 20, 1024), (4096, 1024), (1024, 256), (256, 64), (64, 32), (u64::MAX, 1024)]
        {
            let Shares { all, each, unnamed, each_unnamed } = shares_of(descriptors);
            assert_eq!(all, expected, "{descriptors}");
            assert!(each_unnamed > 0 && each_unnamed < each && each < all && unnamed < all, "{descriptors}");
        }
    }
}
