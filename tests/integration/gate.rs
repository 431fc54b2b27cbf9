//! The gate with real signatures.
