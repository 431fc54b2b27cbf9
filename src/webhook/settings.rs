//! Bounds of the webhook's server.

use std::time::Duration;

use crate::configuration::{Configuration, Limits, Webhook};
use crate::server::capacity;

/// With the time in which a replica still serves after SIGTERM (five seconds, `startup::signals`), below the manifests'
/// `terminationGracePeriodSeconds` of 30. A review with a longer deadline is cut off by it.
const MAX_STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Connections, where memory and descriptors allow it. An API server without HTTP/2 opens one for each request in flight, 600 at
/// the most by default; there may be several API servers.
const MAX_CONNECTIONS: usize = 4096;
/// Longer than the 90 s after which Go's clients give up an idle connection: the API server must be the side that closes first.
/// A review that meets a connection just being closed is lost, and with it the pod's creation.
const IDLE_TIMEOUT: Duration = Duration::from_mins(3);

/// Bounds of the server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The most bytes of one review.
    pub review_bytes: usize,
    /// How long a review may take; less where the caller's `?timeout=` leaves less.
    pub deadline: Duration,
    /// How long it may take to arrive; at most half of the time that it has in all. On a busy machine, hundreds of reviews on
    /// one HTTP/2 connection wait for each other here.
    pub receive_within: Duration,
    /// The most reviews that are decided about at once; further ones are refused as `overloaded`. Fewer where `connections` leave
    /// room for fewer: they follow from the memory limit, which so bounds reviews, too.
    pub reviews_at_once: usize,
    /// The most bytes of all reviews that are being received or decided about.
    pub bytes_at_once: usize,
    /// The most connections.
    pub connections: usize,
    /// Whether callers show a client certificate (`webhook.clientCa`); they have a share of the connections for themselves.
    pub client_certificates: bool,
    /// How long a client may take over a TLS handshake.
    pub handshake_within: Duration,
    /// How long a client may take over the head of each request.
    pub head_within: Duration,
    /// How long a connection may be without a request.
    pub idle_within: Duration,
    /// How long running reviews may take after the server was told to stop. In whole seconds.
    pub stop_within: Duration,
    /// Texts in templates that other webhooks replace in pods; the gate is not asked about them.
    pub placeholders: Vec<Box<str>>,
    /// Threads.
    pub workers: usize,
}

impl Settings {
    /// The bounds that a configuration asks for, and defaults where it has no word for them.
    pub fn new(configuration: &Configuration) -> Self {
        let Limits { review_bytes, .. } = configuration.limits;
        let Webhook { deadline, ref placeholders, ref client_ca, .. } = configuration.webhook;
        let default = Self::default();
        let bytes_at_once = default.bytes_at_once.max(review_bytes.saturating_mul(2));
        let (stop_within, placeholders) = (deadline.min(MAX_STOP_TIMEOUT), placeholders.clone());
        let client_certificates = client_ca.is_some();
        Self { review_bytes, deadline, bytes_at_once, client_certificates, stop_within, placeholders, ..default }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let Limits { review_bytes, .. } = Limits::default();
        let deadline = Duration::from_secs(8);
        Self {
            review_bytes,
            deadline,
            reviews_at_once: MAX_CONNECTIONS,
            // With the caches (128 MiB) and connections, well below the memory that the manifests give.
            bytes_at_once: 64 << 20,
            client_certificates: false,
            connections: capacity::connections(MAX_CONNECTIONS),
            receive_within: Duration::from_secs(5),
            handshake_within: Duration::from_secs(3),
            head_within: Duration::from_secs(5),
            idle_within: IDLE_TIMEOUT,
            stop_within: deadline,
            placeholders: Vec::new(),
            workers: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{configuration, policy::SourceFile};

    #[test]
    fn a_stop_ends_within_the_grace_period_whatever_the_deadline() {
        for (deadline, stop_within) in [("8s", 8), ("20s", 20), ("29s", 20)] {
            let text = format!(
                "apiVersion: sealgate.dev/v1\nkind: Configuration\nwebhook: {{deadline: {deadline}}}\n\
                 limits: {{reviewBytes: 100MiB}}\n"
            );
            let file = SourceFile { name: "test.yaml".into(), folder: ".".into(), bytes: text.into() };
            let settings = Settings::new(&configuration::load(&file).unwrap());
            assert_eq!(settings.stop_within, Duration::from_secs(stop_within));
            assert_eq!(settings.bytes_at_once, 200 << 20, "room for more than one of the largest reviews");
        }
    }
}
