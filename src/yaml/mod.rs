//! YAML that people write, read so that every mistake is found at its place, and many at once.
//!
//! [`parse`] makes a tree whose nodes know where they stand; [`read`] turns a tree into a raw type by serde. Fields that
//! a struct does not have are always refused, with the nearest name. [`Lenient`] marks the places where reading goes on
//! after a mistake, so that one slip does not hide another.

mod located;
mod node;
mod reader;

pub use located::{Entries, Lenient, Located};
pub use node::{Node, Value, parse};
pub use reader::read;

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
