//! Readiness of the gate.

use std::sync::atomic::{AtomicBool, Ordering};

/// The readiness of the gate for reviews: policies and certificates are loaded, and shutdown has not begun.
///
/// It does not depend on registries. Otherwise one registry that is down would take every replica out of service, and
/// with it the images that need no registry.
#[derive(Debug, Default)]
pub struct Readiness(AtomicBool);

impl Readiness {
    /// Sets the readiness.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// Returns the readiness.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
