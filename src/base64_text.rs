//! Base64 from outside.

use std::borrow::Cow;

use base64::{DecodeError, Engine as _, prelude::BASE64_STANDARD};

/// Decodes standard base64, with padding. Ignores line breaks: `base64` and `openssl base64` wrap their output, and
/// Go's decoder, which other tools of the field use, ignores CR and LF as well (RFC 4648, section 3.1).
///
/// # Errors
/// The text has another character outside the alphabet, or is cut off.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, DecodeError> {
    let is_break = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let bytes = text.as_bytes();
    let unwrapped: Cow<'_, [u8]> = if bytes.iter().any(is_break) {
        bytes.iter().copied().filter(|byte| !is_break(byte)).collect()
    } else {
        bytes.into()
    };
    BASE64_STANDARD.decode(unwrapped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text with a line break behind every so many characters.
    fn wrapped(text: &str, columns: usize, line_break: &str) -> String {
        let lines: Vec<String> =
            text.as_bytes().chunks(columns).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect();
        lines.join(line_break)
    }

    #[test]
    fn line_breaks_may_stand_anywhere() {
        for text in ["aGVsbG8=", "\naGVsbG8=", "aGVs\nbG8=\n", "aGVs\r\nbG8=\r\n", "aGVsbG8\n=", "a\nG\rVsbG8=\n\n"] {
            assert_eq!(decode(text).unwrap(), b"hello", "{text:?}");
        }
        assert_eq!(decode("\n").unwrap(), b"");
    }

    #[test]
    fn other_characters_and_what_is_cut_off_are_refused() {
        for text in [
            "aGVsbG8",
            "aGVsbG8=\n=",
            "aGVs bG8=",
            "aGVs\tbG8=",
            "aGVsbG8!",
            "aGVs\u{b}bG8=",
            "aGVs\u{85}bG8=",
            "-_==",
            "aGVsbG8==",
            "aGVsbG9=",
            "aGVs\\nbG8=",
            "\n=",
            "aGVsb",
        ] {
            assert!(decode(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_wrapped_is_read_as_it_was(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            columns in 1_usize..100,
            line_break in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        ) {
            let text = BASE64_STANDARD.encode(&bytes);
            prop_assert_eq!(decode(&wrapped(&text, columns, line_break)).unwrap(), bytes);
        }

        #[test]
        fn a_character_more_is_refused(bytes in proptest::collection::vec(any::<u8>(), 1..60), more in "[^A-Za-z0-9+/=\r\n]", at in 0_usize..80) {
            let mut text = BASE64_STANDARD.encode(&bytes);
            text.insert_str(at % (text.len() + 1), &more);
            prop_assert!(decode(&text).is_err(), "{text:?}");
        }
    }
}
