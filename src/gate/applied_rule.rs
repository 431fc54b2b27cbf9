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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::RuleId;

    #[test]
    fn rules_that_differ_in_anything_are_not_one_key() {
        let rule = || {
            let action = Action::Require(Requirements { all: Vec::new(), platforms: Platforms::Index });
            Arc::new(Rule { id: RuleId::new("production", "acme"), mode: None, action })
        };
        let (first, second) = (rule(), rule());
        let image = |tag: &str| Reference::for_image(&format!("registry.example.com/acme/web:{tag}")).unwrap();
        let applied =
            |generation, rule, dialect, tag| AppliedRule::new(generation, rule, dialect, &image(tag)).unwrap();
        let one = applied(1, &first, Dialect::Sealgate, "1");
        assert!(one == applied(1, &first, Dialect::Sealgate, "1"));
        for other in [
            applied(2, &first, Dialect::Sealgate, "1"),
            applied(1, &second, Dialect::Sealgate, "1"),
            applied(1, &first, Dialect::PolicyJson, "1"),
            applied(1, &first, Dialect::Sealgate, "2"),
        ] {
            assert!(one != other, "{other:?}");
        }
    }
}
