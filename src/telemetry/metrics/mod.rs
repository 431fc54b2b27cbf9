//! Prometheus metrics.
//!
//! No label takes a value from a request that an attacker can multiply: `registry` is a configured scope or `other`, and
//! image names are in logs and audit annotations only.

mod fixed_counters;
mod labels;
mod recording;
mod registration;

pub use labels::{OutboundQuota, RequestKind};
pub use registration::Metrics;
