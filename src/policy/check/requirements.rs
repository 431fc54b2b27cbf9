//! The requirements of a rule: signers, threshold, identity and age.

use std::{collections::HashMap, num::NonZeroUsize, time::Duration};

use super::checker::Checker;
use crate::diagnostic::{Span, did_you_mean, is_short, quoted};
use crate::image::{Reference, Repository};
use crate::policy::{
    document::{RawIdentity, RawMatch, RawRemap, RawRequirement},
    rule::{Identity, Requirement},
};
use crate::yaml::{Lenient, Located};

/// The longest that a signature may be said to hold, which is to say: for ever.
const MAX_SIGNATURE_AGE: Duration = Duration::from_hours(876_600);
impl Checker<'_> {
    /// Every requirement, or nothing if one is not good.
    pub(super) fn check_requirements(
        &mut self,
        raw: Located<Vec<Lenient<RawRequirement>>>,
        rule: &Located<Box<str>>,
    ) -> Option<Vec<Requirement>> {
        if raw.is_empty() {
            let message = format!("rule {} requires nothing", quoted(&rule.value));
            self.note_mistake_with_help(raw.key, message, "add - signedBy: [...], or write allow: {reason: ...}");
            return None;
        }
        let written = raw.len();
        let good: Vec<Requirement> =
            raw.value.into_iter().filter_map(|Lenient(raw)| raw.and_then(|raw| self.check_requirement(raw))).collect();
        (good.len() == written).then_some(good)
    }

    fn check_requirement(&mut self, raw: RawRequirement) -> Option<Requirement> {
        let RawRequirement { signed_by, threshold, identity, max_age } = raw;
        let before = self.mistakes.len();
        if signed_by.is_empty() {
            self.note_mistake_with_help(signed_by.key, "signedBy names no key", "name keys of this document's keys");
        }
        let mut seen: HashMap<&str, Span> = HashMap::new();
        let mut signers = Vec::new();
        for name in &signed_by.value {
            if let Some(&first) = seen.get(&*name.value) {
                let mistake =
                    self.source.mistake(name.place, format!("{} stands twice in signedBy", quoted(&name.value)));
                self.mistakes.push(mistake.related(self.source.name, first, "it stands here first"));
                continue;
            }
            seen.insert(&name.value, name.place);
            match self.signers.get(&name.value) {
                Some(signer) => signers.push(signer.clone()),
                None => self.note_unknown_key(name),
            }
        }
        let threshold = match threshold {
            None => Some(NonZeroUsize::MIN),
            Some(threshold) => self.check_threshold(&threshold, seen.len()),
        };
        let identity = match identity {
            None => Some(Identity::RepoDigestOrExact),
            Some(identity) => self.check_identity(identity.value),
        };
        let max_age = max_age.map(|max_age| self.check_max_age(&max_age));
        if self.mistakes.len() > before {
            return None;
        }
        Some(Requirement {
            signed_by: signers.into_iter().collect::<Option<_>>()?,
            threshold: threshold?,
            identity: identity?,
            max_age: match max_age {
                None => None,
                Some(max_age) => Some(max_age?),
            },
        })
    }

    fn note_unknown_key(&mut self, name: &Located<Box<str>>) {
        let message = format!("this policy has no key called {}", quoted(&name.value));
        let mut known: Vec<&str> = self.signers.keys().map(|key| &**key).filter(|key| is_short(key)).collect();
        known.sort_unstable();
        let suggestion = match did_you_mean(&name.value, known.iter().copied()) {
            Some(key) => format!("did you mean {key}?"),
            None if !is_short(name) => "name keys of this document's keys; the keys themselves stand there".to_owned(),
            None if known.is_empty() => format!("add it: keys: {{{}: {{file: ...}}}}", name.value),
            None if known.len() > 10 => "keys are declared in the same document".to_owned(),
            None => format!("its keys: {}", known.join(", ")),
        };
        self.note_mistake_with_help(name.place, message, suggestion);
    }

    fn check_threshold(&mut self, threshold: &Located<i64>, names: usize) -> Option<NonZeroUsize> {
        let number = usize::try_from(threshold.value).ok().and_then(NonZeroUsize::new);
        match number {
            None => self.note_mistake(threshold.place, format!("a threshold is at least 1, found {}", threshold.value)),
            Some(number) if number.get() > names => {
                let message = format!("a threshold of {number} can't be met: signedBy has {names} different names");
                self.note_mistake_with_help(threshold.place, message, "name more keys, or lower the threshold");
            }
            Some(number) => return Some(number),
        }
        None
    }

    fn check_max_age(&mut self, text: &Located<Box<str>>) -> Option<Duration> {
        let duration = humantime::parse_duration(text);
        match duration {
            // Signatures know whole seconds; and where a signature is a hundred years old, its age is not what is wrong.
            Ok(duration) if duration < Duration::from_secs(1) || duration > MAX_SIGNATURE_AGE => {
                self.note_mistake(text.place, "maxAge is at least 1s, and at most 100y");
                None
            }
            Ok(duration) => Some(duration),
            Err(error) => {
                self.note_mistake_with_help(
                    text.place,
                    format!("{} is not a duration: {error}", quoted(text)),
                    "write it like 90d or 12h",
                );
                None
            }
        }
    }

    fn check_identity(&mut self, raw: RawIdentity) -> Option<Identity> {
        Some(match raw {
            RawIdentity::RepoDigestOrExact | RawIdentity::Match(RawMatch::RepoDigestOrExact) => {
                Identity::RepoDigestOrExact
            }
            RawIdentity::Exact | RawIdentity::Match(RawMatch::Exact) => Identity::Exact,
            RawIdentity::Repository | RawIdentity::Match(RawMatch::Repository) => Identity::Repository,
            RawIdentity::ExactReference(text) => match Reference::parse(&text) {
                Ok(reference) if reference.tag().is_none() && reference.digest().is_none() => {
                    let message = "exactReference needs a tag or a digest";
                    self.note_mistake_with_help(text.place, message, "add one, or write exactRepository");
                    return None;
                }
                Ok(reference) => Identity::ExactReference(reference),
                Err(error) => {
                    self.note_mistake(text.place, format!("{} is not an image reference: {error}", quoted(&text)));
                    return None;
                }
            },
            RawIdentity::ExactRepository(text) => match Repository::parse(&text) {
                Ok(repository) => Identity::ExactRepository(repository),
                Err(error) => {
                    self.note_mistake(text.place, format!("{} is not a repository: {error}", quoted(&text)));
                    return None;
                }
            },
            RawIdentity::Remap(RawRemap { from, to }) => {
                let (from, to) = (self.parse_prefix(&from), self.parse_prefix(&to));
                Identity::Remap { from: from?, to: to? }
            }
        })
    }
}
