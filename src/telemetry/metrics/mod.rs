//! Prometheus metrics.
//!
//! The number of time series is bounded: `registry` is a configured scope or `other`, and image names appear only in
//! logs and audit annotations, so that an attacker can't multiply the values of a label.

mod fixed_counters;
mod labels;
mod recording;
mod registration;

pub use labels::{OutboundQuota, RequestKind};
pub use registration::Metrics;
