//! The store: the extension endpoint, in front of a registry.
//!
//! `/extensions/v2/` is answered from the [store](store::SignatureStore); `/v2/` and all below goes through to the registry.

pub mod access;
mod answer;
mod browser;
mod desk;
mod extension;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod headers;
pub mod lines;
#[cfg(test)]
mod logged;
mod own;
mod path;
mod proxy;
mod server;
pub mod store;
mod submission;
mod tokens;
mod transfer;
mod upstream;

pub use server::{GatewayError, Prepared};
