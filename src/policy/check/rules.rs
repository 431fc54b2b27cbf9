//! Rules: their scopes, and exactly one of `require`, `allow` and `deny`.

use std::sync::Arc;

use super::checker::Checker;
use crate::diagnostic::{Span, quoted};
use crate::image::Scope;
use crate::policy::{
    document::{RawPlatforms, RawReason, RawRule},
    rule::{Action, Mode, Platforms, Requirements, Rule, RuleId},
};

/// A rule with its scopes and where they stand.
pub(super) type CheckedRule = (Arc<Rule>, Vec<(Scope, Span)>);

impl Checker<'_> {
    pub(super) fn check_rule(&mut self, raw: RawRule, mode: Option<Mode>) -> Option<CheckedRule> {
        let RawRule { name, images, mode: own_mode, require, platforms, allow, deny } = raw;
        let scopes = self.parse_scopes(&images, &format!("rule {}", quoted(&name.value)));
        let said: Vec<(&str, Span)> = [
            require.as_ref().map(|require| ("require", require.key)),
            allow.as_ref().map(|allow| ("allow", allow.key)),
            deny.as_ref().map(|deny| ("deny", deny.key)),
        ]
        .into_iter()
        .flatten()
        .collect();
        match said.as_slice() {
            [_] => {}
            [] => {
                let message = format!("rule {} does not say what it does", quoted(&name.value));
                self.note_mistake_with_help(name.place, message, "add one of require, allow and deny");
            }
            [(first_word, first), .., (word, second)] => {
                let message = format!("rule {} has both {first_word} and {word}", quoted(&name.value));
                let mistake = self.source.mistake(*second, message);
                let mistake = mistake.related(self.source.name, *first, "the other one");
                self.mistakes.push(mistake.suggest("a rule has exactly one of require, allow and deny"));
            }
        }
        if let (Some(platforms), None) = (&platforms, &require) {
            let message = "platforms says which signatures of an index count; without require there are none to count";
            self.note_mistake_with_help(platforms.key, message, "leave it out");
        }
        let platforms = match platforms.map(|platforms| platforms.value) {
            None => Platforms::IndexOrEach,
            Some(RawPlatforms::Index) => Platforms::Index,
            Some(RawPlatforms::Each) => Platforms::Each,
        };
        let allow = allow.map(|allow| self.check_reason(&allow.value));
        let deny = deny.map(|deny| self.check_reason(&deny.value));
        let require = require.map(|require| self.check_requirements(require, &name));
        let action = match (require, allow, deny) {
            (Some(all), None, None) => Action::Require(Requirements { all: all?, platforms }),
            (None, Some(reason), None) => Action::Allow { reason: reason? },
            (None, None, Some(reason)) => Action::Deny { reason: reason? },
            _ => return None,
        };
        let id = RuleId::new(&self.document, &name);
        Some((Arc::new(Rule { id, mode: own_mode.map(Into::into).or(mode), action }), scopes))
    }

    fn check_reason(&mut self, raw: &RawReason) -> Option<Arc<str>> {
        self.check_not_blank(&raw.reason, "a reason").then(|| raw.reason.value.trim().into())
    }
}
