//! The settings of a listener: protocols, bounds and time limits.

use std::time::Duration;

use rustls::ServerConfig;

use super::connection_limits::ConnectionLimits;

/// The protocols that a listener offers over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2, and HTTP/1.1 for clients without HTTP/2.
    Http2AndHttp1,
}

/// The TLS settings of a listener.
#[derive(Clone)]
pub struct Tls {
    /// The certificates, and the CA of clients.
    pub config: ServerConfig,
    /// The protocols to offer.
    pub protocols: Protocols,
}

/// Time limits for clients. Each applies to every request of a connection, and on HTTP/2 to every stream.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// The time limit of the TLS handshake.
    pub handshake: Duration,
    /// The time limit of a request's head, from its first byte; also for the first byte of the first request.
    pub head: Duration,
    /// The idle timeout between two requests.
    pub idle: Duration,
    /// The time for which a client may read nothing of what is sent.
    pub write: Duration,
}

/// Bounds of a listener.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// The listener's name in metrics and logs.
    pub name: &'static str,
    /// The limits on connections.
    pub connections: ConnectionLimits,
    /// The time limits for clients.
    pub timeouts: Timeouts,
    /// A client that has closed its side on HTTP/1.1 still gets an answer; otherwise it counts as gone.
    pub serve_half_closed: bool,
    /// The number of worker threads.
    pub workers: usize,
    /// The time limit of requests in flight after shutdown, in whole seconds, at least one.
    pub stop_within: Duration,
}
