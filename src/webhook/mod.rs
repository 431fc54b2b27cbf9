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

pub use server::run;

/// What the webhook needs of the gate.
pub trait Decide: Send + Sync + 'static {
    /// Decides about every image, in the order in which they were given, by the deadline.
    fn decide<'a>(&'a self, admission: &'a Admission<'a>) -> impl Future<Output = Vec<Decision>> + 'a;
}

impl Decide for Gate {
    fn decide<'a>(&'a self, admission: &'a Admission<'a>) -> impl Future<Output = Vec<Decision>> + 'a {
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
    /// The most reviews that are decided about at once; further ones are refused as `overloaded`.
    pub reviews_at_once: usize,
    /// The most bytes of all reviews that are being received or decided about.
    pub bytes_at_once: usize,
    /// The most connections of one worker; further ones wait to be accepted.
    pub connections_per_worker: usize,
    /// How long a client may take over a TLS handshake, and over the head of a request.
    pub client_timeout: Duration,
    /// How long running reviews may take after the server was told to stop. In whole seconds.
    pub stop_within: Duration,
    /// Texts in templates that other webhooks replace in pods; nobody is asked about them.
    pub placeholders: Vec<Box<str>>,
    /// Threads.
    pub workers: usize,
}

impl Settings {
    /// The bounds that a configuration asks for, and defaults where it has no word for them.
    pub fn new(configuration: &Configuration) -> Self {
        let Limits { review_bytes, .. } = configuration.limits;
        let Webhook { deadline, ref placeholders, .. } = configuration.webhook;
        let placeholders = placeholders.clone();
        Self { review_bytes, deadline, stop_within: deadline, placeholders, ..Self::default() }
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
            bytes_at_once: 256 << 20,
            connections_per_worker: 4096,
            client_timeout: Duration::from_secs(5),
            stop_within: deadline,
            placeholders: Vec::new(),
            workers: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
        }
    }
}
