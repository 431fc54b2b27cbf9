//! Reasons why an image must name its digest, or its registry.

use crate::policy::RuleId;

/// Why an image must name its digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpinned {
    /// Signatures are of a digest.
    #[error("it is not pinned to the digest that rule {rule} verified")]
    Verified {
        /// The rule that requires them.
        rule: RuleId,
    },
    /// A rule allows it, and for another digest another rule might hold.
    #[error("it is not pinned to the digest for which rule {rule} allows it")]
    Allowed {
        /// The rule.
        rule: RuleId,
    },
    /// The rule for the digest that its tag names now lets it run, but a stricter rule may cover the next digest.
    #[error("it is not pinned, and {} the next digest that its tag names", may_fall_under(rule.as_ref()))]
    MayFallUnder {
        /// The rule; `None`: no rule might cover it.
        rule: Option<RuleId>,
    },
    /// A rule allows it for its registry, and the pod does not name that.
    #[error("its registry is not written, and a node may look for it in another than the one that rule {rule} allows")]
    ShortName {
        /// The rule.
        rule: RuleId,
    },
    /// An exemption covers it in its registry, and the pod does not name that.
    #[error(
        "its registry is not written, and a node may look for it in another than the one that exemption {exemption} is for"
    )]
    ExemptedShortName {
        /// The exemption.
        exemption: RuleId,
    },
    /// An exemption is for one digest.
    #[error("it is not pinned to the digest that exemption {exemption} is for")]
    Exempted {
        /// The exemption.
        exemption: RuleId,
    },
}

fn may_fall_under(rule: Option<&RuleId>) -> String {
    rule.map_or_else(|| "no rule may cover".to_owned(), |rule| format!("rule {rule} may refuse"))
}
