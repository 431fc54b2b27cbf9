//! Caches around the gate's traits.
