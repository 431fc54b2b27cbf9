//! The state of a check, and the names that every part of a document has.

use std::{collections::HashMap, sync::Arc};

use crate::diagnostic::{Diagnostic, Span, quoted};
use crate::policy::{document::Kind, layer::KeyWarning, rule::Signer};
use crate::yaml::{Located, YamlSource};

/// The longest name of a document, rule, key or exemption.
const MAX_NAME_LENGTH: usize = 63;

/// The check of one document: its mistakes, and its keys, which rules name.
pub(super) struct Checker<'a> {
    pub(super) source: YamlSource<'a>,
    pub(super) mistakes: Vec<Diagnostic>,
    /// The signers by name. `None` where a key could not be read, which is a mistake by itself.
    pub(super) signers: HashMap<Box<str>, Option<Arc<Signer>>>,
    pub(super) key_warnings: Vec<KeyWarning>,
    /// The part of a rule's name before the slash.
    pub(super) document: String,
}

impl Checker<'_> {
    pub(super) fn note_mistake(&mut self, place: Span, message: impl Into<String>) {
        self.mistakes.push(self.source.mistake(place, message));
    }

    pub(super) fn note_mistake_with_help(
        &mut self,
        place: Span,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        self.mistakes.push(self.source.mistake(place, message).suggest(suggestion));
    }

    pub(super) fn check_name(&mut self, name: &Located<Box<str>>, of: &str) {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@' | b'+');
        if name.is_empty() || name.len() > MAX_NAME_LENGTH || !name.bytes().all(word) {
            let message = format!("the name of {of} has 1 to {MAX_NAME_LENGTH} characters of A-Z a-z 0-9 . _ - @ +");
            self.note_mistake(name.place, message);
        }
    }

    pub(super) fn check_unique_name(
        &mut self,
        names: &mut HashMap<Box<str>, Span>,
        name: &Located<Box<str>>,
        what: &str,
    ) {
        self.check_name(name, if what == "rules" { "a rule" } else { "an exemption" });
        match names.get(&name.value) {
            Some(&first) => {
                let mistake = self
                    .source
                    .mistake(name.place, format!("two {what} of this policy are called {}", quoted(&name.value)));
                self.mistakes.push(mistake.related(self.source.name, first, "the other one"));
            }
            None => drop(names.insert(name.value.clone(), name.place)),
        }
    }

    pub(super) fn check_namespace(
        &mut self,
        kind: Kind,
        namespace: Option<&Located<Box<str>>>,
        metadata: Span,
    ) -> Option<Box<str>> {
        match (kind, namespace) {
            (Kind::ClusterSealPolicy, None) => None,
            (Kind::ClusterSealPolicy, Some(namespace)) => {
                let message = "a ClusterSealPolicy has no namespace: it holds for the whole cluster";
                self.note_mistake_with_help(
                    namespace.key,
                    message,
                    "write kind: SealPolicy for the policy of one namespace",
                );
                None
            }
            (Kind::SealPolicy, None) => {
                let message = "a SealPolicy needs a namespace";
                self.note_mistake_with_help(metadata, message, "add namespace: ..., or write kind: ClusterSealPolicy");
                None
            }
            (Kind::SealPolicy, Some(namespace)) => {
                self.check_namespace_name(namespace);
                Some(namespace.value.clone())
            }
        }
    }

    /// A DNS label, as Kubernetes has it (RFC 1123).
    pub(super) fn check_namespace_name(&mut self, name: &Located<Box<str>>) {
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 63 || !name.bytes().all(word) || name.starts_with('-') || name.ends_with('-')
        {
            let message = "a namespace's name has 1 to 63 characters of a-z 0-9 -, and no dash at an end";
            self.note_mistake(name.place, message);
        }
    }

    pub(super) fn check_not_blank(&mut self, text: &Located<Box<str>>, what: &str) -> bool {
        let blank = text.trim().is_empty();
        if blank {
            self.note_mistake_with_help(
                text.place,
                format!("{what} is expected, found a blank text"),
                "people will ask: say why",
            );
        }
        !blank
    }
}
