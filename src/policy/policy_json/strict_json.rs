//! JSON read one level at a time, each value with the place where it stands, members that come twice refused.

use std::{collections::HashSet, ops::Range};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::Members;

/// A value that is valid JSON, and where it begins in the document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    text: &'a str,
    offset: usize,
}

/// A member of an object.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) name: String,
    /// The range of bytes of the name, with its quotation marks.
    pub(super) place: Range<usize>,
    pub(super) value: Value<'a>,
}

/// A mistake in the document, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// The bytes of the document that it is about.
    pub(super) place: Range<usize>,
    pub(super) message: String,
    pub(super) suggestion: Option<String>,
}

impl Problem {
    pub(super) fn at(place: Range<usize>, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), suggestion: None }
    }

    pub(super) fn suggesting(self, suggestion: impl Into<String>) -> Self {
        Self { suggestion: Some(suggestion.into()), ..self }
    }
}

impl<'a> Value<'a> {
    /// The one value of a whole document. Its syntax is checked here down to the last level.
    pub(super) fn of_document(document: &'a str) -> Result<Self, Problem> {
        let raw: &RawValue = serde_json::from_str(document).map_err(|error| syntax(document, 0, &error))?;
        Ok(Self::within(document, raw))
    }

    /// Returns the range of bytes that the value takes up.
    pub(super) fn place(&self) -> Range<usize> {
        self.offset..self.offset + self.text.len()
    }

    fn within(document: &'a str, raw: &'a RawValue) -> Self {
        // Raw values are slices of the text that they were read from.
        Self { text: raw.get(), offset: raw.get().as_ptr() as usize - document.as_ptr() as usize }
    }

    fn inner(&self, raw: &'a RawValue) -> Self {
        let inner = Self::within(self.text, raw);
        Self { offset: self.offset + inner.offset, ..inner }
    }

    /// The members of an object, in their order, none of them twice.
    pub(super) fn object(&self, what: &str) -> Result<Vec<Member<'a>>, Problem> {
        self.expect('{', what, "an object")?;
        let Members(members) = self.read::<Members<'a, &'a RawValue, { usize::MAX }>>()?;
        let mut names = HashSet::new();
        let mut found = Vec::with_capacity(members.len());
        for (raw_name, raw_value) in members {
            let name = self.inner(raw_name);
            let place = name.place();
            let name: String = name.read()?;
            if !names.insert(name.clone()) {
                return Err(Problem::at(place, format!("{} stands in {what} twice", quoted(&name))));
            }
            found.push(Member { name, place, value: self.inner(raw_value) });
        }
        Ok(found)
    }

    /// The entries of a list.
    pub(super) fn list(&self, what: &str) -> Result<Vec<Self>, Problem> {
        self.expect('[', what, "a list")?;
        let entries: Vec<&'a RawValue> = self.read()?;
        Ok(entries.into_iter().map(|raw| self.inner(raw)).collect())
    }

    /// A string.
    pub(super) fn string(&self, what: &str) -> Result<String, Problem> {
        self.expect('"', what, "a string")?;
        self.read()
    }

    fn expect(&self, first: char, what: &str, expected: &str) -> Result<(), Problem> {
        let found = match self.text.as_bytes().first() {
            Some(&byte) if char::from(byte) == first => return Ok(()),
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b'"') => "a string",
            Some(b'n') => "null",
            Some(b't' | b'f') => "a boolean",
            _ => "a number",
        };
        Err(Problem::at(self.place(), format!("{what} must be {expected}, found {found}")))
    }

    fn read<T: Deserialize<'a>>(&self) -> Result<T, Problem> {
        serde_json::from_str(self.text).map_err(|error| syntax(self.text, self.offset, &error))
    }
}

/// A member's name as it can stand in a message: short, and without control characters.
pub(super) fn quoted(name: &str) -> String {
    let short: String = name.chars().take(80).collect();
    format!("{short:?}{}", if short.len() < name.len() { "…" } else { "" })
}

fn syntax(text: &str, offset: usize, error: &serde_json::Error) -> Problem {
    let line_start: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    // The column counts bytes from 1; at the end of the text it is one too many.
    let mut within = (line_start + error.column().saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(within) {
        within -= 1;
    }
    let full = error.to_string();
    let message = full.split(" at line ").next().unwrap_or(&full);
    Problem::at(offset + within..offset + within + 1, format!("this is not JSON: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_knows_where_it_stands() {
        let text = "\n { \"a\" : [1, \"é\"],\n  \"b\\u0041\":{\"c\":\"d\"} }\n";
        let document = Value::of_document(text).unwrap();
        let members = document.object("it").unwrap();
        assert_eq!(&text[members[0].place.clone()], "\"a\"");
        assert_eq!(members[1].name, "bA");
        let inner = members[1].value.object("b").unwrap();
        assert_eq!(&text[inner[0].value.place()], "\"d\"");
        assert_eq!(inner[0].value.string("c").unwrap(), "d");
        let entries = members[0].value.list("a").unwrap();
        assert_eq!(entries[1].string("entry").unwrap(), "é");
        assert_eq!(entries[0].string("entry").unwrap_err().message, "entry must be a string, found a number");
    }

    #[test]
    fn what_has_another_type_is_named() {
        for (text, found) in [
            ("{}", "an object"),
            ("[]", "a list"),
            ("null", "null"),
            ("true", "a boolean"),
            ("false", "a boolean"),
            ("-1", "a number"),
        ] {
            let problem = Value::of_document(text).unwrap().string("it").unwrap_err();
            assert_eq!(problem.message, format!("it must be a string, found {found}"));
        }
        let problem = Value::of_document("\"a\"").unwrap().object("it").unwrap_err();
        assert_eq!(problem.message, "it must be an object, found a string");
    }

    #[test]
    fn a_place_of_bad_syntax_is_one_byte_wide() {
        let place = |text: &str| Value::of_document(text).unwrap_err().place;
        assert_eq!(place("{\n  x"), 4..5);
        assert_eq!(place("é"), 0..1);
    }

    #[test]
    fn a_member_that_comes_twice_is_refused_however_it_is_spelt() {
        let text = r#"{"a": 1, "\u0061": 2}"#;
        let problem = Value::of_document(text).unwrap().object("it").unwrap_err();
        assert_eq!(problem, Problem::at(9..17, r#""a" stands in it twice"#));
    }

    #[test]
    fn a_slip_is_found_where_it_is() {
        let problem = Value::of_document("{\n  \"a\": 1,\n}").unwrap_err();
        assert_eq!((problem.place.start, problem.message.as_str()), (12, "this is not JSON: key must be a string"));
        assert!(Value::of_document("").unwrap_err().message.contains("EOF"));
        assert!(Value::of_document("{} {}").unwrap_err().message.contains("trailing characters"));
        assert!(Value::of_document("\u{feff}{}").is_err());
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_in_nothing_panics(text in ".{0,60}") {
            if let Ok(value) = Value::of_document(&text) {
                let _ = value.object("it");
                let _ = value.list("it");
                let _ = value.string("it");
            }
        }
    }
}
