//! One policy document: from what is written to what is meant.

mod checker;
mod exemptions;
mod keys;
mod requirements;
mod rules;
mod scopes;

use std::{collections::HashMap, path::Path};

use self::{checker::Checker, keys::ReadFile, rules::CheckedRule};
use super::{
    document::{Kind, RawDocument},
    layer::KeyWarning,
    rule::Exemption,
};
use crate::diagnostic::{Diagnostic, quoted};
use crate::yaml::{Lenient, YamlSource};

/// A document without its place among others.
pub(super) struct CheckedDocument {
    pub(super) kind: Kind,
    pub(super) name: Box<str>,
    pub(super) namespace: Option<Box<str>>,
    pub(super) rules: Vec<CheckedRule>,
    pub(super) exemptions: Vec<Exemption>,
    pub(super) key_warnings: Vec<KeyWarning>,
}
/// Checks a document. What is good in it comes with what is not, so that it can be checked against other documents.
pub(super) fn check_document(
    source: YamlSource<'_>,
    folder: &Path,
    raw: RawDocument,
    read_key: &mut ReadFile<'_>,
) -> (CheckedDocument, Vec<Diagnostic>) {
    let RawDocument { kind, metadata, spec, .. } = raw;
    let mut checker = Checker {
        source,
        mistakes: Vec::new(),
        signers: HashMap::new(),
        key_warnings: Vec::new(),
        document: String::new(),
    };
    checker.check_name(&metadata.name, "a policy");
    let namespace = checker.check_namespace(kind, metadata.namespace.as_ref(), metadata.name.key);
    checker.document = match &namespace {
        Some(namespace) => format!("{namespace}/{}", *metadata.name),
        None => metadata.name.value.to_string(),
    };
    checker.check_keys(spec.keys, folder, read_key);
    if spec.rules.is_empty() && spec.exemptions.is_empty() {
        let message = format!("policy {} has neither rules nor exemptions", quoted(&metadata.name.value));
        checker.mistakes.push(source.mistake(metadata.name.place, message).suggest("add rules, or delete it"));
    }
    let mut names = HashMap::new();
    let mut rules = Vec::new();
    for raw in spec.rules.into_iter().filter_map(|Lenient(rule)| rule) {
        checker.check_unique_name(&mut names, &raw.name, "rules");
        rules.extend(checker.check_rule(raw, spec.mode.map(Into::into)));
    }
    let mut names = HashMap::new();
    let mut exemptions = Vec::new();
    for raw in spec.exemptions.into_iter().filter_map(|Lenient(exemption)| exemption) {
        checker.check_unique_name(&mut names, &raw.name, "exemptions");
        exemptions.extend(checker.check_exemption(raw, namespace.as_deref()));
    }
    let Checker { mistakes, key_warnings, .. } = checker;
    let document = CheckedDocument { kind, name: metadata.name.value, namespace, rules, exemptions, key_warnings };
    (document, mistakes)
}
