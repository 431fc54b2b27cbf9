//! Sealgate: only images with the right seal pass the gate. ARCHITECTURE.md is the map.

// The domain. Each module imports only those before it. clippy.toml forbids it clocks, the environment, files, the
// network, threads and async runtimes.
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod image;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod policy;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod refusal;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod signature;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod verification;

// Pure readers of text.
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
mod base64_text;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod diagnostic;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
mod json;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
mod redact;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
mod text;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod yaml;

// Everything else.
pub mod cli;
pub mod configuration;
mod fair_quota;
pub mod files;
pub mod gate;
pub mod gateway;
pub mod image_files;
pub mod kubernetes;
pub mod push;
pub mod registry;
pub mod server;
pub mod signature_sources;
pub mod signing;
mod single_flight;
pub mod startup;
mod store_transfer;
pub mod telemetry;
pub mod tls;
pub mod webhook;
