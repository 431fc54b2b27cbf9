//! How many connections, streams and requests a listener has.

use crate::configuration::Network;

/// How many connections a listener has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// All of them.
    pub total: usize,
    /// Whether callers have to show a client certificate. Those that did have half of all connections for themselves, and no
    /// limit for each peer; the other half is for handshakes.
    pub client_certificates: bool,
    /// Proxies that bring the connections of many clients: no limit for each peer.
    pub shared_peers: Vec<Network>,
}

impl ConnectionLimits {
    /// Connections of all callers without a client certificate.
    pub(super) fn anonymous(&self) -> usize {
        if self.client_certificates { (self.total / 2).max(1) } else { self.total }
    }

    /// Connections of all callers with a client certificate.
    pub(super) fn certified(&self) -> usize {
        if self.client_certificates { self.total - self.anonymous() } else { 0 }
    }

    /// HTTP/2 streams of all connections: what one costs is not bounded by the number of connections. One connection may have
    /// all of its own, however few connections there are.
    pub(super) fn streams(&self) -> usize {
        self.total.saturating_mul(4).max(1024)
    }

    /// Requests that the server may work on at once, where its work on one can take long. A connection with such a request is never
    /// ended for a new one. So there are fewer of them than connections: whatever few peers ask, there is room for another one.
    pub(crate) fn requests(&self) -> usize {
        (self.total / 4 * 3).max(1)
    }

    /// HTTP/2 connections with a wide window at once, of all peers: they take 2 MiB each at the most, 32 MiB in all.
    pub(super) const MAX_WIDE_WINDOWS: usize = 16;

    /// Connections of one peer without a client certificate. Large, since an API server without HTTP/2 opens one for each
    /// request in flight.
    pub(super) fn per_peer(&self) -> usize {
        (self.anonymous() / 4 * 3).max(1)
    }
}
