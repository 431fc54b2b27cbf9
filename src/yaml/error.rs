//! The mistake that serde reports, with its place in the file.

use std::fmt;

use serde::de::{self, Unexpected};

use crate::diagnostic::{Span, did_you_mean, quoted};

/// A mistake on its way up; it gets its place from the innermost node that it passes.
#[derive(Debug)]
pub(super) struct YamlError {
    pub(super) place: Option<Span>,
    pub(super) message: String,
    pub(super) suggestion: Option<String>,
}

impl YamlError {
    pub(super) fn or_at(mut self, place: Span) -> Self {
        self.place.get_or_insert(place);
        self
    }
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for YamlError {}

impl de::Error for YamlError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { place: None, message: message.to_string(), suggestion: None }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format!("{expected} is expected, found {found}"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let message = format!("{} is not known here", quoted(variant));
        let suggestion = match did_you_mean(variant, expected.iter().copied()) {
            Some(word) => format!("did you mean {word}?"),
            None => format!("write one of: {}", expected.join(", ")),
        };
        Self { place: None, message, suggestion: Some(suggestion) }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let suggestion = match did_you_mean(field, expected.iter().copied()) {
            Some(word) => format!("did you mean {word}?"),
            None if expected.is_empty() => "no field is known here".to_owned(),
            None => format!("the fields that are known here: {}", expected.join(", ")),
        };
        Self { place: None, message: format!("unknown field {}", quoted(field)), suggestion: Some(suggestion) }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("the field {field:?} is missing"))
    }
}
