//! A rule applied to an image, as a key of caches.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use crate::image::Reference;
use crate::policy::{Action, Dialect, Platforms, Requirements, Rule};

/// A rule that requires signatures, applied to an image: all that an examination depends on, but the digest and the time.
#[derive(Clone, Debug)]
pub(super) struct AppliedRule {
    pub(super) generation: u64,
    /// Known by its address: no two rules of a policy are one, whatever their names and layers, and while it stands here no
    /// other can get its address.
    pub(super) rule: Arc<Rule>,
    pub(super) platforms: Platforms,
    pub(super) image: Reference,
}

impl AppliedRule {
    /// Returns `None` if the rule requires no signatures.
    pub(super) fn new(generation: u64, rule: &Arc<Rule>, dialect: Dialect, image: &Reference) -> Option<Self> {
        let Action::Require(requirements) = &rule.action else { return None };
        let platforms = match dialect {
            Dialect::Sealgate => requirements.platforms,
            // containers/image looks only at the instance that it is about to run; whichever that is, it is checked here.
            Dialect::PolicyJson => Platforms::Each,
        };
        Some(Self { generation, rule: Arc::clone(rule), platforms, image: image.clone() })
    }

    pub(super) fn requirements(&self) -> Option<&Requirements> {
        match &self.rule.action {
            Action::Require(requirements) => Some(requirements),
            Action::Allow { .. } | Action::Deny { .. } => None,
        }
    }
}

impl PartialEq for AppliedRule {
    fn eq(&self, other: &Self) -> bool {
        let Self { generation, rule, platforms, image } = self;
        *generation == other.generation
            && Arc::ptr_eq(rule, &other.rule)
            && *platforms == other.platforms
            && *image == other.image
    }
}

impl Eq for AppliedRule {}

impl Hash for AppliedRule {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.generation.hash(state);
        Arc::as_ptr(&self.rule).hash(state);
        self.image.hash(state);
    }
}
