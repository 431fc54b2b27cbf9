//! The answer of one signature source.

use std::sync::Arc;

use crate::refusal::LookupError;
use crate::signature::UntrustedSignature;
use crate::verification::AskedSource;

/// The signatures of one source, and the outcome of asking it.
#[derive(Default)]
pub(super) struct SourceAnswer {
    pub(super) signatures: Vec<UntrustedSignature>,
    pub(super) asked: Vec<AskedSource>,
}

/// Returns the URL of a failed request.
pub(super) fn url_of(error: &LookupError) -> Arc<str> {
    match error {
        LookupError::ManifestUnknown { url, .. }
        | LookupError::UnsupportedManifest { url, .. }
        | LookupError::IndexTooLarge { url, .. }
        | LookupError::Unauthorized { url, .. }
        | LookupError::CredentialsUnusable { url, .. }
        | LookupError::LookasideDenied { url, .. }
        | LookupError::Unavailable { url, .. }
        | LookupError::Misbehaved { url, .. }
        | LookupError::TimedOut { url, .. }
        | LookupError::NotAsked { url, .. } => Arc::from(&**url),
    }
}
