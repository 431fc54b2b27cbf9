//! Bounds of the webhook's server.

use std::time::Duration;

use crate::configuration::{Configuration, Limits, Webhook};
use crate::server::capacity;

/// The maximum time for reviews in flight after shutdown. Together with the five seconds in which a replica still
/// serves after SIGTERM (`startup::shutdown`), it is below the manifests' `terminationGracePeriodSeconds` of 30. It
/// cuts off a review with a longer deadline.
const MAX_STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// The maximum number of connections, if memory and descriptors allow it. An API server without HTTP/2 opens one for
/// each request in flight, by default up to 600; there may be several API servers.
const MAX_CONNECTIONS: usize = 4096;
/// The idle timeout of a connection. It is longer than the 90 s after which Go's clients close an idle connection: the
/// API server must be the side that closes first. A review on a connection that is just being closed is lost, and with
/// it the pod's creation.
const IDLE_TIMEOUT: Duration = Duration::from_mins(3);

/// Bounds of the server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The maximum size of a review, in bytes.
    pub review_bytes: usize,
    /// The time limit of a review; less if the caller's `?timeout=` leaves less.
    pub deadline: Duration,
    /// The time limit for a review to arrive, at most half of its whole time. On a busy machine, hundreds of reviews on
    /// one HTTP/2 connection wait for each other here.
    pub receive_within: Duration,
    /// The maximum number of reviews in flight; further ones are refused as `overloaded`. `connections` may lower it:
    /// that number follows from the memory limit, which so bounds reviews, too.
    pub reviews_at_once: usize,
    /// The maximum size of all reviews in flight, in bytes.
    pub bytes_at_once: usize,
    /// The maximum number of connections.
    pub connections: usize,
    /// Callers must show a client certificate (`webhook.clientCa`); they have a share of the connections for
    /// themselves.
    pub client_certificates: bool,
    /// The time limit of a TLS handshake.
    pub handshake_within: Duration,
    /// The time limit for the head of each request.
    pub head_within: Duration,
    /// The idle timeout of a connection.
    pub idle_within: Duration,
    /// The time limit of reviews in flight after shutdown, in whole seconds.
    pub stop_within: Duration,
    /// Placeholders in templates that other webhooks replace in pods; the gate is not asked about them.
    pub placeholders: Vec<Box<str>>,
    /// The number of worker threads.
    pub workers: usize,
}

impl Settings {
    /// Returns the bounds from a configuration, with defaults for the others.
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
