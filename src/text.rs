//! Decodes text files as users' editors and shells write them.

use crate::diagnostic::{Diagnostic, Span};

/// The byte order mark that some editors put in front of UTF-8.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The suggestion for a file in UTF-16.
pub(crate) const UTF16_REMEDY: &str =
    "save it as UTF-8; PowerShell's > writes UTF-16, Out-File -Encoding utf8 does not";

/// Returns the text of a file.
///
/// # Errors
/// The file is not UTF-8. The diagnostic names the first invalid byte's place, or says that the file is UTF-16.
pub(crate) fn utf8<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, Box<Diagnostic>> {
    if is_utf16(bytes) {
        return Err(Box::new(Diagnostic::of_file(file, "the file is in UTF-16").suggest(UTF16_REMEDY)));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        let place = Span::of_bytes(&good, good.len()..good.len());
        Box::new(Diagnostic::at(file, &good, place, "the file is not UTF-8 here"))
    })
}

/// Returns whether bytes are UTF-16: they begin with its byte order mark, or with an ASCII character in two bytes.
pub(crate) fn is_utf16(bytes: &[u8]) -> bool {
    let is_text = |byte: u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    match *bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [0, first, 0, second, ..] | [first, 0, second, 0, ..] => is_text(first) && is_text(second),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_utf_16_is_called_that_and_another_shows_where_it_is_no_utf_8() {
        let message = |bytes: &[u8]| utf8("p.yaml", bytes).unwrap_err().to_string();
        for bytes in [&b"\xff\xfea\0:\0"[..], b"a\0:\0 \0b\0", b"\xfe\xff\0a\0:", b"\0a\0:"] {
            assert!(message(bytes).starts_with("p.yaml: the file is in UTF-16\n  help: save it as UTF-8"), "{bytes:?}");
        }
        assert_eq!(message(b"a: b\nc: \xe9").lines().next(), Some("p.yaml:2:4: the file is not UTF-8 here"));
        assert_eq!(utf8("p.yaml", "a: \u{e9}".as_bytes()).unwrap(), "a: \u{e9}");
    }

    #[test]
    fn utf_16_is_told_from_utf_8_and_binary_files_with_and_without_its_mark() {
        for text in ["-----BEGIN PGP PUBLIC KEY BLOCK-----", "{}", "\n\n", "apiVersion: x"] {
            let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
            assert!(is_utf16(&little) && is_utf16(&big), "{text}");
            assert!(is_utf16(&[b"\xff\xfe", &*little].concat()) && is_utf16(&[b"\xfe\xff", &*big].concat()));
            assert!(!is_utf16(text.as_bytes()));
            assert!(!is_utf16(&[BYTE_ORDER_MARK, text.as_bytes()].concat()));
        }
        for binary in [&b""[..], b"\x99\x01\x0d\x04", b"\0simple-signing\n", &[0; 8], &[0x88, 0, 0x88, 0]] {
            assert!(!is_utf16(binary), "{binary:?}");
        }
    }
}
