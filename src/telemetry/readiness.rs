//! Whether the gate is ready for reviews.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether reviews should be sent here: policies and certificates are loaded, and the end has not begun.
///
/// Registries play no part in it. Were they to, one that is down would take every replica out of service, and with them
/// each image that needs no registry.
#[derive(Debug, Default)]
pub struct Readiness(AtomicBool);

impl Readiness {
    /// From now on, ready or not.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// Ready or not.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
