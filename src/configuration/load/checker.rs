//! Collects the mistakes of a configuration file.

use std::path::Path;

use crate::diagnostic::{Diagnostic, Span};
use crate::yaml::YamlSource;

/// A check of one configuration file, with the mistakes found so far.
pub(super) struct Checker<'a> {
    pub(super) source: YamlSource<'a>,
    pub(super) folder: &'a Path,
    pub(super) mistakes: Vec<Diagnostic>,
}

impl Checker<'_> {
    /// Records a mistake.
    pub(super) fn mistake(&mut self, place: Span, message: impl Into<String>) {
        self.mistakes.push(self.source.mistake(place, message));
    }

    /// Records a mistake, with a suggestion how to correct it.
    pub(super) fn mistake_with_help(&mut self, place: Span, message: impl Into<String>, suggestion: impl Into<String>) {
        self.mistakes.push(self.source.mistake(place, message).suggest(suggestion));
    }
}

/// Turns a setting that may be left out (`None`) or wrong (`Some(None)`) into `None` if it is wrong.
#[allow(clippy::option_option)]
pub(super) fn flatten<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(None) => None,
        Some(good) => Some(good),
    }
}
