//! The store in front of a real registry.
