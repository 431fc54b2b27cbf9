//! Values of labels.

/// The purpose of a request to a registry: the label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// `GET /v2/`.
    Ping,
    /// A request for a token.
    Token,
    /// A request for a manifest.
    Manifest,
    /// An upload of a layer or configuration.
    Blob,
    /// A request for signatures, to an extension or a lookaside.
    Signatures,
}

/// A resource that all requests to registries and signature sources share: the label `quota`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundQuota {
    /// Requests in flight, with their connections.
    Requests,
    /// Memory for large answers.
    Memory,
    /// Threads that resolve host names.
    Lookups,
}

/// The background tasks of a gate whose panics are counted.
pub(super) const BACKGROUND_TASKS: [&str; 3] = ["certificates", "policy-watcher", "policy-monitor"];

/// The labels of reviews: operation (`none` if the request is no review) and verdict.
pub(super) const REVIEWS: ([&str; 5], [&str; 5]) =
    (["create", "update", "delete", "connect", "none"], ["allowed", "refused", "patched", "untouched", "malformed"]);
/// The labels of waits for a quota of outbound requests.
pub(super) const OUTBOUND: ([&str; 3], [&str; 2]) = (["requests", "memory", "lookups"], ["named", "unnamed"]);
/// The labels of look-ups in caches.
pub(super) const CACHE_REQUESTS: ([&str; 4], [&str; 2]) =
    (["tag", "manifest", "signatures", "verdict"], ["hit", "miss"]);

impl RequestKind {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Token => "token",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Signatures => "signatures",
        }
    }
}

impl OutboundQuota {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Memory => "memory",
            Self::Lookups => "lookups",
        }
    }
}

pub(super) fn share(named: bool) -> &'static str {
    if named { "named" } else { "unnamed" }
}

/// Returns the label of a status. Statuses that registries are known to answer have their own; all others have their
/// class, since a registry may send any number.
pub(super) fn status_label(status: Option<u16>, digits: &mut String) -> &str {
    match status {
        None => "error",
        Some(
            status @ (200..=206
            | 300..=304
            | 307
            | 308
            | 400..=406
            | 408..=417
            | 422
            | 426
            | 429
            | 431
            | 451
            | 500..=505
            | 507
            | 520..=526),
        ) => {
            *digits = status.to_string();
            digits
        }
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(500..=599) => "5xx",
        Some(_) => "other",
    }
}
