//! The answers of the signature sources about one image.

use std::sync::Arc;

use crate::refusal::LookupError;
use crate::signature::UntrustedSignature;

/// All that could be found about one image, from all sources, and what became of each request.
#[derive(Clone, Debug, Default)]
pub struct FoundSignatures {
    /// The signatures, in the order of their sources.
    pub signatures: Vec<UntrustedSignature>,
    /// Each source that was asked.
    pub asked: Vec<AskedSource>,
}

/// One signature source that was asked, and its outcome.
#[derive(Clone, Debug)]
pub struct AskedSource {
    /// The URL.
    pub url: Arc<str>,
    /// The number of signatures, or why that could not be learned. "None" is `Ok(0)`.
    pub outcome: Result<usize, LookupError>,
}

impl FoundSignatures {
    /// Makes the list for which no source answered: no signatures, and `error` for the request to `url`.
    pub fn unanswered(url: Arc<str>, error: LookupError) -> Self {
        Self { signatures: Vec::new(), asked: vec![AskedSource { url, outcome: Err(error) }] }
    }

    /// The first source that could not be asked. While there is one, the absence of a signature proves nothing.
    pub fn failure(&self) -> Option<&LookupError> {
        self.asked.iter().find_map(|asked| asked.outcome.as_ref().err())
    }
}
