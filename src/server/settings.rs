//! What a listener is served with: protocols, bounds and time limits.

use std::time::Duration;

use rustls::ServerConfig;

use super::connection_limits::ConnectionLimits;

/// The protocols that a listener offers over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2, and HTTP/1.1 for clients that don't know it.
    Http2AndHttp1,
}

/// A listener's TLS.
#[derive(Clone)]
pub struct Tls {
    /// Certificates and whose clients are let in.
    pub config: ServerConfig,
    /// The protocols that are offered.
    pub protocols: Protocols,
}

/// How long a client may take. Each holds for every request of a connection, and on HTTP/2 for every stream.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Over the TLS handshake.
    pub handshake: Duration,
    /// Over the head of a request, from its first byte on; and until the first byte of the first request.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// Without taking anything of what is sent to it.
    pub write: Duration,
}

/// Bounds of a listener.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// The listener's name in metrics and logs.
    pub name: &'static str,
    /// How many connections there are.
    pub connections: ConnectionLimits,
    /// How long clients may take.
    pub timeouts: Timeouts,
    /// Whether a client that has closed its side still gets an answer on HTTP/1.1, or is gone.
    pub serve_half_closed: bool,
    /// Threads.
    pub workers: usize,
    /// How long requests in flight may take after the server was told to stop. In whole seconds, at least one.
    pub stop_within: Duration,
}
