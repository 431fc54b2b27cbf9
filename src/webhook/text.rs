//! Escapes text of the object under review for messages, logs and annotations.

use std::fmt::{self, Write as _};

/// A text from outside, formatted as printable ASCII with everything else escaped, up to a maximum number of
/// characters.
pub(super) struct EscapedText<'a>(pub(super) &'a str, pub(super) usize);

impl fmt::Display for EscapedText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text, most) = *self;
        if text.len() <= most && is_plain(text) && !text.contains('"') {
            return f.write_str(text);
        }
        for (count, character) in text.chars().enumerate() {
            if count == most {
                return f.write_char('…');
            }
            match character {
                '"' => f.write_str("\\\"")?,
                ' '..='~' => f.write_char(character)?,
                other => write!(f, "{}", other.escape_unicode())?,
            }
        }
        Ok(())
    }
}

/// Returns whether a text is printable ASCII, as nearly all are.
pub(super) fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Puts one of our own texts on one line of at most `most` bytes, and truncates it if it is longer.
pub(super) fn one_line(mut text: String, most: usize) -> String {
    if !is_plain(&text) && text.contains(char::is_control) {
        text = text.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    }
    if text.len() > most {
        let cut = text.floor_char_boundary(most.saturating_sub('…'.len_utf8()));
        text.truncate(cut);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_and_look_alikes_are_escaped() {
        assert_eq!(EscapedText("a\"b\u{1b}[31m\nаb", 20).to_string(), "a\\\"b\\u{1b}[31m\\u{a}\\u{430}b");
        assert_eq!(EscapedText("abcdef", 3).to_string(), "abc…");
    }

    #[test]
    fn a_text_that_just_fits_stays_whole() {
        for (text, most, expected) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "abc…"),
            // Characters count, not bytes, and what is escaped counts as one.
            ("\u{430}bc", 3, "\\u{430}bc"),
            ("\u{430}bcd", 3, "\\u{430}bc…"),
            ("a\"c", 3, "a\\\"c"),
            ("", 0, ""),
            ("a", 0, "…"),
            (" ~", 2, " ~"),
            ("\u{7f}\u{1f}", 2, "\\u{7f}\\u{1f}"),
        ] {
            assert_eq!(EscapedText(text, most).to_string(), expected, "{text:?} {most}");
        }
        assert_eq!(one_line("abcdef".to_owned(), 6), "abcdef");
        assert_eq!(one_line("abcdefg".to_owned(), 6), "abc…");
        // A character is never cut.
        assert_eq!(one_line("abäefg".to_owned(), 6), "ab…");
        assert_eq!(one_line("a\n\r\nb\u{7f}".to_owned(), 9), "a b");
    }

    proptest! {
        #[test]
        fn one_line_is_one_line_and_bounded(text in "\\PC*|(.|\n){0,400}", most in 3usize..300) {
            let line = one_line(text, most);
            prop_assert!(line.len() <= most);
            prop_assert!(!line.contains(char::is_control));
        }

        #[test]
        fn outside_text_is_printable_and_bounded(text in "(.|\n){0,400}") {
            let shown = EscapedText(&text, 50).to_string();
            prop_assert!(shown.chars().all(|character| matches!(character, ' '..='~' | '…')));
            prop_assert!(shown.len() <= 50 * 10 + 3);
        }
    }
}
