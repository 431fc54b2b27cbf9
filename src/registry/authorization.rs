//! The `Authorization` of a request, and the challenge that it answers.

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

/// The `Authorization` of a request, and its source.
#[derive(Clone)]
pub(crate) struct Authorization {
    /// `None` if the request carries no `Authorization`.
    pub(crate) header: Option<HeaderValue>,
    /// The header stems from credentials.
    pub(crate) with_credentials: bool,
    /// The reason why configured credentials were not sent.
    pub(crate) withheld: Option<&'static str>,
    pub(super) life: Duration,
}

impl Authorization {
    pub(crate) const NONE: Self = Self { header: None, with_credentials: false, withheld: None, life: Duration::ZERO };
}
