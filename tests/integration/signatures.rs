//! Signature sources.
