//! The admission webhook: HTTP in, decisions of the gate out.
//!
//! `/mutate` never refuses: it pins what verifies and leaves the rest as it is. `/validate` alone decides. [`server`] has
//! the transport and its bounds, [`review`] reads what is asked, [`patch`] and [`response`] write the answer.

pub mod patch;
pub mod response;
pub mod review;
pub mod server;
mod text;

use std::{future::Future, time::Duration};

use crate::configuration::{Configuration, Limits, Webhook};
use crate::gate::{Admission, Decision, Gate};
use crate::verdict::Refusal;

pub use server::run;

/// What the webhook needs of the gate.
pub trait Decide: Send + Sync + 'static {
    /// Decides about every image, in the order in which they were given, by the deadline; or refuses them together.
    fn decide<'a>(&'a self, admission: &'a Admission<'a>) -> impl Future<Output = Result<Vec<Decision>, Refusal>> + 'a;
}

impl Decide for Gate {
    fn decide<'a>(&'a self, admission: &'a Admission<'a>) -> impl Future<Output = Result<Vec<Decision>, Refusal>> + 'a {
        Gate::decide(self, admission)
    }
}

/// Bounds of the server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The most bytes of one review.
    pub review_bytes: usize,
    /// How long a review may take; less where the caller's `?timeout=` leaves less.
    pub deadline: Duration,
    /// How long it may take to arrive; at most half of the time that it has in all.
    pub receive_within: Duration,
    /// The most reviews that are decided about at once; further ones are refused as `overloaded`.
    pub reviews_at_once: usize,
    /// The most bytes of all reviews that are being received or decided about.
    pub bytes_at_once: usize,
    /// The most connections of one worker; further ones wait to be accepted.
    pub connections_per_worker: usize,
    /// How long a client may take over a TLS handshake.
    pub handshake_within: Duration,
    /// How long a client may take over the head of a request.
    pub head_within: Duration,
    /// How long running reviews may take after the server was told to stop. In whole seconds.
    pub stop_within: Duration,
    /// Threads.
    pub workers: usize,
}

impl Settings {
    /// The bounds that a configuration asks for, and defaults where it has no word for them.
    pub fn new(configuration: &Configuration) -> Self {
        let Limits { review_bytes, .. } = configuration.limits;
        let Webhook { deadline, .. } = configuration.webhook;
        let default = Self::default();
        let bytes_at_once = default.bytes_at_once.max(review_bytes.saturating_mul(2));
        Self { review_bytes, bytes_at_once, deadline, stop_within: deadline, ..default }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let Limits { review_bytes, .. } = Limits::default();
        let deadline = Duration::from_secs(8);
        Self {
            review_bytes,
            deadline,
            // An API server runs at most 600 mutating and other requests at once by default; there may be several.
            reviews_at_once: 4096,
            // With the caches (128 MiB) and connections, well below the memory that the manifests give.
            bytes_at_once: 64 << 20,
            connections_per_worker: 2048,
            receive_within: Duration::from_secs(2),
            handshake_within: Duration::from_secs(3),
            head_within: Duration::from_secs(5),
            stop_within: deadline,
            workers: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
        }
    }
}
