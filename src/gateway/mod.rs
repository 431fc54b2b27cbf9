//! The store: the extension endpoint, in front of a registry.
//!
//! `/extensions/v2/` is answered from the [store](store::SignatureStore); `/v2/` and all below goes through to the registry.

pub mod access;
mod answer;
mod extension;
mod headers;
mod path;
mod proxy;
mod server;
pub mod store;
mod submission;
mod upstream;

pub use server::{GatewayError, serve};
pub use upstream::UpstreamError;
