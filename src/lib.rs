//! Sealgate: only images with the right seal pass the gate. ARCHITECTURE.md is the map.

mod base64_text;
pub mod cli;
pub mod configuration;
pub mod diagnostic;
pub mod files;
pub mod gate;
pub mod gateway;
pub mod image;
mod json;
pub mod kubernetes;
pub mod telemetry;
pub mod policy;
pub mod push;
mod redact;
pub mod registry;
pub mod server;
pub mod signature;
pub mod signature_sources;
pub mod signing;
pub mod image_files;
pub mod startup;
mod text;
pub mod tls;
mod store_transfer;
pub mod verdict;
pub mod webhook;
pub mod yaml;
