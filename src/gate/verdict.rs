//! Verdicts: why an image may run.

use std::sync::Arc;

use crate::image::Digest;
use crate::policy::{Exemption, Mode, RuleId};
use crate::refusal::Refusal;
use crate::verification::VerifiedImage;

/// Why an image may run. Only [`Verdict::Verified`] proves a signature. An image that an update does not change has no
/// verdict: the gate is not asked about it.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Its signatures fulfil the rules of every layer.
    Verified(VerifiedImage),
    /// A rule lets it run unsigned.
    AllowedByRule {
        /// The rule.
        rule: RuleId,
        /// The reason that the rule gives.
        reason: Arc<str>,
    },
    /// It would be refused, but for an exemption.
    Exempted {
        /// The exemption.
        exemption: Arc<Exemption>,
        /// The refusal that it lifts.
        refusal: Box<Refusal>,
    },
    /// It would be refused, but the mode only warns or records.
    NotEnforced {
        /// Warn or audit.
        mode: Mode,
        /// The refusal that is not enforced.
        refusal: Box<Refusal>,
        /// The digest, where the signatures of another layer's rule proved it all the same.
        digest: Option<Digest>,
    },
}

impl Verdict {
    /// The metric label: `verified`, `allowed_by_rule`, `exempted`, `not_enforced`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Verified(_) => "verified",
            Self::AllowedByRule { .. } => "allowed_by_rule",
            Self::Exempted { .. } => "exempted",
            Self::NotEnforced { .. } => "not_enforced",
        }
    }

    /// Returns the refusal that an exemption lifts or the mode does not enforce.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Exempted { refusal, .. } | Self::NotEnforced { refusal, .. } => Some(refusal),
            Self::Verified(_) | Self::AllowedByRule { .. } => None,
        }
    }
}
