//! What a request carries in `Authorization`, and what a server asks for.

use std::time::Duration;

use reqwest::header::HeaderValue;

use super::{access::Access, challenge::Challenge};

/// A server's challenge, and the access that the request needs.
pub(crate) struct AuthRequest<'a> {
    pub(crate) challenge: &'a Challenge,
    pub(crate) access: &'a Access,
    /// The header that the server refused.
    pub(crate) refused: Option<&'a HeaderValue>,
}

/// The value of `Authorization` for a request, and where it comes from.
#[derive(Clone)]
pub(crate) struct Authorization {
    /// `None` if the request carries no `Authorization`.
    pub(crate) header: Option<HeaderValue>,
    /// Whether credentials stand behind it.
    pub(crate) with_credentials: bool,
    /// Why credentials that are configured were not sent.
    pub(crate) withheld: Option<&'static str>,
    pub(super) life: Duration,
}

impl Authorization {
    pub(crate) const NONE: Self = Self { header: None, with_credentials: false, withheld: None, life: Duration::ZERO };
}
