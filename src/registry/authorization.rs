//! What a request carries in `Authorization`, and what a server asks for.

use std::time::Duration;

use reqwest::header::HeaderValue;

use super::{access::Access, challenge::Challenge};

/// What a server asks for, and what it is needed for.
pub(crate) struct AuthRequest<'a> {
    pub(crate) challenge: &'a Challenge,
    pub(crate) access: &'a Access,
    /// What it did not take.
    pub(crate) refused: Option<&'a HeaderValue>,
}

/// A token, or whatever else goes into `Authorization`.
#[derive(Clone)]
pub(crate) struct Authorization {
    /// Nothing: the request goes without.
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
