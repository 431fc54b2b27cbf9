//! Why connections end, as metrics and logs say it.

/// Why a connection ended, where it was not the client's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionEnd {
    /// It came to its end, as it should.
    Closed,
    HandshakeFailed,
    HandshakeTimeout,
    HeadTimeout,
    IdleTimeout,
    WriteTimeout,
    /// A newer connection took its place.
    Evicted,
    /// Its peer has too many, and all are in use.
    RefusedPeer,
    /// The listener has too many, and all are in use.
    RefusedFull,
    /// It sent frames that cost more than they are worth.
    Flood,
}

impl ConnectionEnd {
    /// All that are counted: each end that was not the client's doing.
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
