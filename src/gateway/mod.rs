//! The store: the extension endpoint, in front of a registry.
//!
//! `/extensions/v2/` is answered from the [store](store::SignatureStore); `/v2/` and all below goes through to the registry.

pub mod access;
mod error;
mod browser;
mod desk;
mod extension;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod headers;
pub mod export_format;
#[cfg(test)]
mod test_log;
mod api;
mod path;
mod proxy;
mod server;
pub mod store;
mod submission;
mod token_endpoint;
mod stall_guard;
mod upstream;

pub use server::{GatewayError, Prepared};
