//! Errors of authentication and authorization.

use std::time::Duration;

use super::{credentials::MalformedCredentials, token::TokenError};

/// The reason why a caller is not authenticated or authorized. Messages contain no text from outside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The credentials are invalid: 401, with a challenge.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Too many checks wait, of this caller or of all: 429, with `Retry-After`.
    #[error("too many requests wait for authentication; try again in {} s", retry_after.as_secs())]
    Busy {
        /// The time until a retry.
        retry_after: Duration,
    },
    /// The backend can't be asked now: 503, with `Retry-After`. The log has the reason.
    #[error("permissions can't be checked now; try again in {} s", retry_after.as_secs())]
    Unavailable {
        /// The time until a retry.
        retry_after: Duration,
    },
}

impl AccessError {
    /// Makes the error with a delay in which a backend may recover.
    pub(super) fn unavailable() -> Self {
        Self::Unavailable { retry_after: Duration::from_secs(5) }
    }

    /// Makes the error with a delay in which the queue gets shorter.
    pub(super) fn busy() -> Self {
        Self::Busy { retry_after: Duration::from_secs(2) }
    }
}

/// The reason why credentials are invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The credentials are malformed.
    #[error(transparent)]
    Malformed(#[from] MalformedCredentials),
    /// The name or the password is wrong. The message does not tell which, nor whether the user exists.
    #[error("the user name or the password is wrong")]
    Password,
    /// The backend does not know the token.
    #[error("the token is not known here, or has expired")]
    Unknown,
    /// A token of a store is invalid here.
    #[error(transparent)]
    Token(#[from] TokenError),
}
