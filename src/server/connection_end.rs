//! The reasons why connections end, for metrics and logs.

/// The reason why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionEnd {
    /// The connection was closed regularly.
    Closed,
    HandshakeFailed,
    HandshakeTimeout,
    HeadTimeout,
    IdleTimeout,
    WriteTimeout,
    /// A newer connection took its place.
    Evicted,
    /// The peer has too many connections, and all are in use.
    RefusedPeer,
    /// The listener has too many connections, and all are in use.
    RefusedFull,
    /// The client sent too many frames that cost the server work.
    Flood,
}

impl ConnectionEnd {
    /// All reasons that are counted: those that were not the client's decision.
    pub(crate) const ALL: [Self; 9] = [
        Self::HandshakeFailed,
        Self::HandshakeTimeout,
        Self::HeadTimeout,
        Self::IdleTimeout,
        Self::WriteTimeout,
        Self::Evicted,
        Self::RefusedPeer,
        Self::RefusedFull,
        Self::Flood,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HandshakeFailed => "handshake_failed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HeadTimeout => "head_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::Evicted => "evicted",
            Self::RefusedPeer => "refused_peer",
            Self::RefusedFull => "refused_full",
            Self::Flood => "flood",
        }
    }
}
