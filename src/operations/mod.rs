//! What operators see: metrics, health, logs.

pub mod metrics;

pub use metrics::{CacheResult, Metrics, RequestKind};
