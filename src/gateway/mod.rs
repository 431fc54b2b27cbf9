//! The gateway: the extension endpoint and the signature store, in front of a registry.
//!
//! `/extensions/v2/` is answered from the [store](store::SignatureStore). `/v2/` and all paths below it pass through to
//! the registry.

mod answer_memory;
mod api;
mod audit_log;
pub mod auth;
mod browser;
mod error;
pub mod export_format;
mod extension;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod headers;
mod path;
mod proxy;
mod rate_limit;
mod request;
mod server;
mod stall_guard;
pub mod store;
mod submission;
#[cfg(test)]
mod test_log;
mod token_endpoint;
mod upstream;

pub use server::{GatewayError, Prepared};
