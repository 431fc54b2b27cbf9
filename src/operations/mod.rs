//! What operators see: metrics, health, logs.

pub mod health;
pub mod logging;
pub mod metrics;

pub use health::Readiness;
pub use metrics::{CacheResult, Metrics, RequestKind};
