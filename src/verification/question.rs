//! What verification is asked.

use jiff::Timestamp;

use crate::image::{Digest, Reference};
use crate::policy::{Requirements, RuleId};

/// What is asked of the signatures.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The image as it was asked for, canonical: identities are compared with this.
    pub image: &'a Reference,
    /// The digest that was computed over the manifest's bytes.
    pub digest: Digest,
    /// The rule that applies.
    pub rule: &'a RuleId,
    /// What it requires.
    pub requirements: &'a Requirements,
    /// The time that it is now.
    pub now: Timestamp,
    /// How many signatures may be tried (not: be there).
    pub tries: usize,
}
