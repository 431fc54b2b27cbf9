//! Mistakes in files that users write, reported with their place and the next step.

use std::fmt;

use crate::redact::shown_line;

/// Limits the mistakes of one file or folder that are shown; the count of the others is shown after them.
pub(crate) const MAX_DIAGNOSTICS: usize = 50;
/// The maximum number of characters of a source line that are shown.
const MAX_SNIPPET_CHARS: usize = 120;

/// One mistake in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as the reader knows it.
    pub file: Box<str>,
    /// The place of the mistake; `None` if it is about the whole file.
    pub place: Option<Span>,
    /// The mistake: what was expected, and what was found.
    pub message: String,
    /// The source line.
    pub snippet: Option<Snippet>,
    /// Other places that the mistake involves.
    pub related: Vec<RelatedPlace>,
    /// The next step.
    pub suggestion: Option<String>,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The number of characters that the mark covers; at least 1.
    pub width: usize,
}

/// A source line with a mark under a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snippet {
    /// The line, cut to what can be shown; no control characters.
    pub line: String,
    /// The number of characters before the mark.
    pub before: usize,
    /// The number of characters under the mark; at least 1.
    pub width: usize,
}

/// Another place that a mistake involves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelatedPlace {
    /// The file.
    pub file: Box<str>,
    /// The place in the file.
    pub place: Span,
    /// The note about it.
    pub message: String,
}

impl Span {
    /// Returns the place of the bytes `range` of a text. A range beyond the end is at the end.
    pub fn of_bytes(text: &str, range: std::ops::Range<usize>) -> Self {
        let start = floor_char_boundary(text, range.start);
        let end = floor_char_boundary(text, range.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            width: text[start..end].lines().next().map_or(0, |line| line.chars().count()).max(1),
        }
    }
}

fn floor_char_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

impl Diagnostic {
    /// Makes a diagnostic about a whole file.
    pub fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            place: None,
            message: message.into(),
            snippet: None,
            related: Vec::new(),
            suggestion: None,
        }
    }

    /// Makes a diagnostic about a place in a file whose text is `text`.
    pub fn at(file: &str, text: &str, place: Span, message: impl Into<String>) -> Self {
        Self::at_place(file, place, message).showing(text)
    }

    /// Makes a diagnostic about a place in a file, without the source line. Finding the line takes a pass over the
    /// file, and only the first of many mistakes are shown; see [`Diagnostic::showing`].
    pub fn at_place(file: &str, place: Span, message: impl Into<String>) -> Self {
        Self { place: Some(place), ..Self::of_file(file, message) }
    }

    /// Adds the source line from the file, whose text is `text`.
    #[must_use]
    pub fn showing(mut self, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let line = |place: Span| text.lines().nth(place.line.saturating_sub(1)).map(|line| Snippet::new(line, place));
        self.snippet = self.place.and_then(line);
        self
    }

    /// Adds the next step.
    #[must_use]
    pub fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// Adds the next step, if it is known.
    #[must_use]
    pub fn suggest_maybe(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion.or(self.suggestion);
        self
    }

    /// Adds another place that the mistake involves.
    #[must_use]
    pub fn related(mut self, file: &str, place: Span, message: impl Into<String>) -> Self {
        self.related.push(RelatedPlace { file: file.into(), place, message: message.into() });
        self
    }
}

impl Snippet {
    fn new(line: &str, place: Span) -> Self {
        let length = line.chars().count();
        let before = (place.column.max(1) - 1).min(length);
        let width = place.width.clamp(1, (length - before).max(1));
        // A long line (JSON often is one) is cut around the mark.
        let skipped = if length <= MAX_SNIPPET_CHARS { 0 } else { before.saturating_sub(MAX_SNIPPET_CHARS / 3) };
        let line = without_key_material(&shown_line(line));
        let shown = line.chars().skip(skipped).take(MAX_SNIPPET_CHARS);
        let shown = shown.map(|character| match character {
            '\t' => ' ',
            character if character.is_control() => char::REPLACEMENT_CHARACTER,
            character => character,
        });
        Self {
            line: shown.collect(),
            before: before - skipped,
            width: width.min(MAX_SNIPPET_CHARS - (before - skipped)),
        }
    }
}

/// The minimum length of a run of base64 that may be part of a key.
const MIN_KEY_MATERIAL_CHARS: usize = 32;

/// Replaces what may be part of a key in a line, without changing its length: a private key that was pasted by mistake
/// must not get into a log. Digests and fingerprints are hexadecimal, and stay.
fn without_key_material(line: &str) -> String {
    let is_base64 = |character: char| character.is_ascii_alphanumeric() || matches!(character, '+' | '/' | '=');
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while !rest.is_empty() {
        let (run, after) = rest.split_at(rest.find(|character| !is_base64(character)).unwrap_or(rest.len()));
        if run.len() >= MIN_KEY_MATERIAL_CHARS && !run.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            shown.extend(std::iter::repeat_n('*', run.len()));
        } else {
            shown.push_str(run);
        }
        let (other, after) = after.split_at(after.find(is_base64).unwrap_or(after.len()));
        shown.push_str(other);
        rest = after;
    }
    shown
}

/// Quotes a text of a user for a message. A text that is long or has several lines could be a key, and becomes "this
/// text".
pub fn quoted(text: &str) -> String {
    if is_short(text) { format!("{text:?}") } else { "this text".to_owned() }
}

/// Returns whether a text is short enough to be repeated in a message.
pub fn is_short(text: &str) -> bool {
    text.chars().count() <= 60 && !text.contains(char::is_control)
}

/// Formats as `file:line:column: message`, then the marked line, notes and help.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(place) = self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        write!(f, ": {}", self.message)?;
        if let (Some(place), Some(snippet)) = (self.place, &self.snippet) {
            let number = place.line.to_string();
            let margin = " ".repeat(number.len());
            write!(f, "\n{margin} |\n{number} | {}\n{margin} | ", snippet.line.trim_end())?;
            write!(f, "{}{}", " ".repeat(snippet.before), "^".repeat(snippet.width))?;
        }
        for RelatedPlace { file, place, message } in &self.related {
            write!(f, "\n  note: {file}:{}:{}: {message}", place.line, place.column)?;
        }
        if let Some(suggestion) = &self.suggestion {
            write!(f, "\n  help: {suggestion}")?;
        }
        Ok(())
    }
}

/// Several diagnostics, formatted one below the other.
#[derive(Clone, Copy, Debug)]
pub struct Diagnostics<'a>(pub &'a [Diagnostic]);

impl fmt::Display for Diagnostics<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

/// Returns the word among `known` that `found` is most likely a misspelling of; `None` if none is close enough.
pub fn did_you_mean<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if !is_short(found) {
        return None;
    }
    let folded = found.to_lowercase().replace(['-', '_'], "");
    known
        .into_iter()
        .filter_map(|word| {
            let candidate = word.to_lowercase().replace(['-', '_'], "");
            let distance = strsim::damerau_levenshtein(&folded, &candidate);
            // A third of the letters may differ.
            let near = distance * 3 <= candidate.chars().count().max(folded.chars().count());
            near.then_some((distance, word))
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_shown_without_the_secrets_of_its_urls() {
        let text = "lookaside: https://u:pass@h.example.com/s?sig=abc # x";
        let place = Span { line: 1, column: 12, width: 42 };
        let shown = Diagnostic::at("f.yaml", text, place, "no").to_string();
        let expected =
            "f.yaml:1:12: no\n  |\n1 | lookaside: https://******@h.example.com/s?******* # x\n  |            ^";
        assert!(shown.starts_with(expected), "{shown}");
    }

    #[test]
    fn a_diagnostic_shows_the_place_the_line_and_what_to_do() {
        let text = "a: 1\nrules:\n- signdBy: [x]\n";
        let start = text.find("signdBy").unwrap();
        let diagnostic =
            Diagnostic::at("p.yaml", text, Span::of_bytes(text, start..start + 7), "unknown field \"signdBy\"")
                .related("p.yaml", Span { line: 1, column: 1, width: 1 }, "something is here")
                .suggest("did you mean signedBy?");
        assert_eq!(
            diagnostic.to_string(),
            "p.yaml:3:3: unknown field \"signdBy\"\n  |\n3 | - signdBy: [x]\n  |   ^^^^^^^\n  note: p.yaml:1:1: something is here\n  help: did you mean signedBy?"
        );
    }

    #[test]
    fn a_diagnostic_about_a_file_has_no_place() {
        assert_eq!(Diagnostic::of_file("p.yaml", "nothing is in it").to_string(), "p.yaml: nothing is in it");
    }

    #[test]
    fn of_a_long_line_only_the_part_around_the_mark_is_shown() {
        let text = format!("{}here{}", "-".repeat(5_000), "_".repeat(5_000));
        let diagnostic = Diagnostic::at("p.json", &text, Span::of_bytes(&text, 5_000..5_004), "bad");
        let snippet = diagnostic.snippet.unwrap();
        assert_eq!(snippet.line.chars().count(), MAX_SNIPPET_CHARS);
        let marked: String = snippet.line.chars().skip(snippet.before).take(snippet.width).collect();
        assert_eq!(marked, "here");
    }

    #[test]
    fn a_part_of_a_key_is_not_shown_and_the_mark_stays_where_it_is() {
        let digest = "sha256:4028782c08eae4a8c9a28bf661c0a8d1c2fc8e19dbaae2b018b21011197e1484";
        let key = "lQWGBGX8eJ4BDADNOTtoBeShownAnywhereAtAllxyz";
        let text = format!("{{\"image\":\"{digest}\",\"keyData\":\"{key}\",\"x\":1}}");
        let start = text.find("\"x\"").unwrap();
        let shown = Diagnostic::at("p.json", &text, Span::of_bytes(&text, start..start + 3), "unknown").to_string();
        assert!(!shown.contains("NOTtoBeShown"), "{shown}");
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[2].find("\"x\""), lines[3].find("^^^"), "{shown}");
        let shown = Diagnostic::at("p.json", &text, Span::of_bytes(&text, 0..1), "unknown").to_string();
        assert!(shown.contains(digest), "{shown}");
    }

    #[test]
    fn the_nearest_word_is_suggested_and_none_where_none_is_near() {
        let known = ["signedBy", "threshold", "identity", "maxAge"];
        assert_eq!(did_you_mean("signdBy", known), Some("signedBy"));
        assert_eq!(did_you_mean("signed_by", known), Some("signedBy"));
        assert_eq!(did_you_mean("maxage", known), Some("maxAge"));
        assert_eq!(did_you_mean("colour", known), None);
    }

    proptest! {
        #[test]
        fn any_place_in_any_text_can_be_rendered(text in "(\\PC|[\t\r\n]){0,300}", start in 0..400usize, length in 0..400usize) {
            let place = Span::of_bytes(&text, start..start.saturating_add(length));
            let _ = Diagnostic::at("f", &text, place, "m").to_string();
            let anywhere = Span { line: start, column: length, width: start };
            let _ = Diagnostic::at("f", &text, anywhere, "m").to_string();
        }
    }
}
