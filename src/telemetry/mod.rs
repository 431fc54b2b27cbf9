//! Telemetry: metrics, readiness, logs, and the limit of file descriptors.

pub mod descriptors;
pub mod log_throttle;
pub mod logging;
pub mod metrics;
pub mod readiness;
mod supervise;

pub use descriptors::{descriptor_limit, raise_descriptor_limit};
pub use log_throttle::LogThrottle;
pub use metrics::{Metrics, OutboundQuota, RequestKind};
pub use readiness::Readiness;
pub(crate) use supervise::{catch_panic, supervise};
