//! The question that verification answers.

use jiff::Timestamp;

use crate::image::{Digest, Reference};
use crate::policy::{Requirements, RuleId};

/// The image, the requirements and the time by which signatures are judged.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The image as it was asked for, canonical: identities are compared with this.
    pub image: &'a Reference,
    /// The digest that was computed over the manifest's bytes.
    pub digest: Digest,
    /// The rule that applies.
    pub rule: &'a RuleId,
    /// The requirements of the rule.
    pub requirements: &'a Requirements,
    /// The time that it is now.
    pub now: Timestamp,
    /// The number of signatures that may be tried; more may be there.
    pub tries: usize,
}
