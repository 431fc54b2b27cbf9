//! What operators see: metrics, health, logs, the limit of descriptors.

pub mod descriptors;
pub mod health;
pub mod logging;
pub mod metrics;

pub use descriptors::{descriptor_limit, raise_descriptor_limit};
pub use health::Readiness;
pub use metrics::{CacheResult, Metrics, OutboundQuota, RequestKind};
