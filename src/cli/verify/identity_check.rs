//! A check against an identity, and its outcome for each manifest.

use super::candidate_keys::CandidateKeys;
use crate::cli::image_tree::ManifestNode;
use crate::image::Reference;
use crate::verification::{Examination, FoundSignatures};

/// The identity and the keys that signatures are checked against.
pub(super) struct IdentityCheck {
    pub(super) identity: Reference,
    pub(super) keys: CandidateKeys,
    pub(super) save: bool,
}

/// A part of the image, with its signatures and their examination.
pub(super) struct ExaminedManifest<'a> {
    pub(super) part: &'a ManifestNode,
    pub(super) found: CollectedSignatures,
    pub(super) examination: Examination,
}

/// The signatures of one digest from all sources.
#[derive(Default)]
pub(super) struct CollectedSignatures {
    pub(super) all: FoundSignatures,
    /// The source of each signature, by its number.
    pub(super) sources: Vec<usize>,
}
