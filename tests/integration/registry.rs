//! The registry client with real and with lying registries.
