//! Errors of making a client from a configuration.

use super::ca_certs::CaError;
use crate::image::ScopeError;

/// The reason why no client can be made from a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// A CA file can't be used.
    #[error("{of}: {source}")]
    Ca {
        /// The entry or field that names the file.
        of: Box<str>,
        /// The reason.
        source: CaError,
    },
    /// A mirror is not `host[:port][/path]`.
    #[error("the mirror {mirror} of registries entry {scope} must be host[:port][/path]")]
    Mirror {
        /// The entry.
        scope: Box<str>,
        /// The mirror.
        mirror: Box<str>,
        /// The reason.
        #[source]
        source: Option<Box<ScopeError>>,
    },
    /// TLS can't be set up.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The HTTP client can't be made.
    #[error("the HTTP client can't be set up: {0}")]
    Http(#[from] reqwest::Error),
}
