//! A text to read.

use crate::diagnostic::{Diagnostic, Span};

/// A text and its name, to make diagnostics about.
#[derive(Clone, Copy, Debug)]
pub struct YamlSource<'a> {
    /// The file's name.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}

impl YamlSource<'_> {
    /// A mistake at this place, without the line: see [`Diagnostic::showing`].
    pub fn mistake(&self, place: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at_place(self.name, place, message)
    }
}
