//! The limits of a listener on connections, streams and requests.

use crate::configuration::Network;

/// The limits of a listener on connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// The maximum number of connections.
    pub total: usize,
    /// Callers must show a client certificate. Those with one have half of all connections for themselves, without a
    /// limit for each peer. The other half is for handshakes.
    pub client_certificates: bool,
    /// The proxies that bring the connections of many clients. They have no limit for each peer.
    pub shared_peers: Vec<Network>,
}

impl ConnectionLimits {
    /// Returns the maximum number of connections of callers without a client certificate.
    pub(super) fn anonymous(&self) -> usize {
        if self.client_certificates { (self.total / 2).max(1) } else { self.total }
    }

    /// Returns the maximum number of connections of callers with a client certificate.
    pub(super) fn certified(&self) -> usize {
        if self.client_certificates { self.total - self.anonymous() } else { 0 }
    }

    /// Returns the maximum number of HTTP/2 streams of all connections, because the number of connections does not
    /// bound their cost. One connection may always have its maximum, however few connections there are.
    pub(super) fn streams(&self) -> usize {
        self.total.saturating_mul(4).max(1024)
    }

    /// Returns the maximum number of requests that the server may work on at once, if its work can take long. A
    /// connection with such a request is never evicted. So this number is lower than that of connections: whatever a
    /// few peers ask, a new connection finds a place.
    pub(crate) fn requests(&self) -> usize {
        (self.total / 4 * 3).max(1)
    }

    /// The maximum number of HTTP/2 connections with a wide window, of all peers. Each takes 2 MiB at most, 32 MiB in
    /// all.
    pub(super) const MAX_WIDE_WINDOWS: usize = 16;

    /// Returns the maximum number of connections of one peer without a client certificate. It is large, since an API
    /// server without HTTP/2 opens one for each request in flight.
    pub(super) fn per_peer(&self) -> usize {
        (self.anonymous() / 4 * 3).max(1)
    }
}
