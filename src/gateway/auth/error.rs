//! Why a request is not authenticated or authorized.

use std::time::Duration;

use super::{credentials::MalformedCredentials, token::TokenError};

/// Why a caller is not authenticated or authorized. None of the words come from outside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The credentials are not valid: 401, with a challenge.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Too many checks wait, of this caller or of all: 429, with `Retry-After`.
    #[error("too many ask at once who they are; try again in {} s", retry_after.as_secs())]
    Busy {
        /// When to ask again.
        retry_after: Duration,
    },
    /// The backend can't be asked now: 503, with `Retry-After`. The log has the reason.
    #[error("who may do this can't be told now; try again in {} s", retry_after.as_secs())]
    Unavailable {
        /// When to ask again.
        retry_after: Duration,
    },
}

impl AccessError {
    /// Makes one with a delay that a client accepts and in which a backend may recover.
    pub(super) fn unavailable() -> Self {
        Self::Unavailable { retry_after: Duration::from_secs(5) }
    }

    /// Makes one with a delay in which the queue gets shorter.
    pub(super) fn busy() -> Self {
        Self::Busy { retry_after: Duration::from_secs(2) }
    }
}

/// Why credentials are not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// They are malformed.
    #[error(transparent)]
    Malformed(#[from] MalformedCredentials),
    /// The name or the password is wrong. Which of the two, and whether there is such a user, is not said.
    #[error("the user name or the password is wrong")]
    Password,
    /// The backend does not know the token.
    #[error("the token is not known here, or has expired")]
    Unknown,
    /// A token of a store is not valid here.
    #[error(transparent)]
    Token(#[from] TokenError),
}
