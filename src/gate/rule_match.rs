//! The rules of a layer that cover an image, or could cover it: by its tag, by its digest, and by its other digest.

use std::sync::Arc;

use crate::image::Digest;
use crate::policy::{Action, Dialect, Layer, Mode, Rule, RuleId};

use super::decision_context::{DecisionContext, stricter};

/// A layer, and its rule for the image.
#[derive(Clone, Copy)]
pub(super) struct MatchedLayer<'a> {
    pub(super) layer: &'a Layer,
    pub(super) rule: RuleMatch<'a>,
    /// True if the image may be refused by its digest of another algorithm than the reference has: the manifest is read
    /// then, and both digests count.
    pub(super) by_other_digest: bool,
}

#[derive(Clone, Copy)]
pub(super) enum RuleMatch<'a> {
    Rule(&'a Arc<Rule>),
    /// It has none.
    None,
    /// Its rules name single digests of the repository, and the reference names none.
    ByDigest,
}

impl DecisionContext<'_> {
    /// The layer, with its rule for the image as far as that is known without a registry.
    pub(super) fn match_layer<'a>(&self, layer: &'a Layer) -> MatchedLayer<'a> {
        let rule = if self.is_by_digest(layer) {
            RuleMatch::ByDigest
        } else {
            layer.rules.get(&self.image).map_or(RuleMatch::None, RuleMatch::Rule)
        };
        let by_other_digest = self.refusing_by_other_digest(layer).next().is_some();
        MatchedLayer { layer, rule, by_other_digest }
    }

    /// The rules that may refuse the image by a digest of another algorithm than the reference has; of any, if it has none. A
    /// rule that allows is left out: a manifest's other digest lifts nothing that is said of the one by which it is asked for.
    pub(super) fn refusing_by_other_digest<'a>(&self, layer: &'a Layer) -> impl Iterator<Item = &'a Arc<Rule>> {
        let own = self.image.digest().map(Digest::algorithm);
        // policy.json's scopes are compared with the reference as it was asked for.
        let digests = (layer.dialect == Dialect::Sealgate).then(|| layer.rules.digests_of(self.image.repository()));
        let others = digests.into_iter().flatten().filter(move |(digest, _)| Some(digest.algorithm()) != own);
        others.map(|(_, rule)| rule).filter(|rule| may_refuse(rule))
    }

    /// Returns whether the layer has rules for single digests of this repository: then a tag's digest is needed to find
    /// the rule.
    pub(super) fn is_by_digest(&self, layer: &Layer) -> bool {
        layer.dialect == Dialect::Sealgate
            && self.image.digest().is_none()
            && layer.rules.has_digests_of(self.image.repository())
    }

    /// The rules of a layer that is by digest under which the image may fall, whatever its tag names.
    pub(super) fn may_apply<'a>(&'a self, layer: &'a Layer) -> impl Iterator<Item = &'a Arc<Rule>> {
        let by_digest = layer.rules.digests_of(self.image.repository()).map(|(_, rule)| rule);
        by_digest.chain(layer.rules.get(&self.image))
    }

    /// The mode of what the cluster's layer says where none of its rules covers the image: it may be without one for
    /// another digest.
    pub(super) fn may_have_no_rule(&self, layer: &Layer) -> Option<Mode> {
        (self.is_cluster(layer) && layer.rules.get(&self.image).is_none()).then_some(self.engine.settings.mode)
    }

    /// Of all that could refuse the image if its tag named another digest, what has the strictest mode: a rule, or that there
    /// is none.
    pub(super) fn guard(&self, layer: &Layer) -> Option<(Option<RuleId>, Mode)> {
        let refusing = self.may_apply(layer).filter(|rule| may_refuse(rule));
        let refusing = refusing.map(|rule| (Some(rule.id.clone()), self.mode(rule)));
        let all = refusing.chain(self.may_have_no_rule(layer).map(|mode| (None, mode)));
        all.reduce(|one, other| if stricter(one.1, other.1) == one.1 { one } else { other })
    }
}

pub(super) fn may_refuse(rule: &Rule) -> bool {
    !matches!(rule.action, Action::Allow { .. })
}
