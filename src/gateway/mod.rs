//! The store: the extension endpoint, in front of a registry.

pub mod store;
