//! The formats of stored signatures (containers/image: `signature.FromBlob`).

/// The format of a stored signature (containers/image: `signature.FromBlob`).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SignatureFormat<'a> {
    /// An OpenPGP message ("simple signing").
    SimpleSigning(&'a [u8]),
    /// A sigstore signature, which Sealgate does not support.
    Sigstore,
    /// A web page or JSON, which some servers return in place of a file.
    Page,
    /// No known format: empty, armored, or other text.
    Unknown,
}

/// Detects the format of a stored signature by its first bytes.
pub(crate) fn detect_format(bytes: &[u8]) -> SignatureFormat<'_> {
    match bytes {
        [0, rest @ ..] => match rest.strip_prefix(b"simple-signing\n") {
            Some([]) => SignatureFormat::Unknown,
            Some(content) => SignatureFormat::SimpleSigning(content),
            None if rest.starts_with(b"sigstore-json\n") => SignatureFormat::Sigstore,
            None => SignatureFormat::Unknown,
        },
        // The first bit of every OpenPGP packet is set (RFC 9580, section 4.2).
        [0x80..=0xff, ..] => SignatureFormat::SimpleSigning(bytes),
        _ => match bytes.trim_ascii_start() {
            [b'<' | b'{' | b'[', ..] => SignatureFormat::Page,
            _ => SignatureFormat::Unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_signatures_are_told_apart_by_their_first_bytes() {
        assert_eq!(detect_format(b"\xa3\x01"), SignatureFormat::SimpleSigning(b"\xa3\x01"));
        assert_eq!(detect_format(b"\0simple-signing\n\xa3"), SignatureFormat::SimpleSigning(b"\xa3"));
        assert_eq!(detect_format(b"\0sigstore-json\n{}"), SignatureFormat::Sigstore);
        for unknown in [&b""[..], b"-----BEGIN PGP", b"\0", b"\0simple-signing", b"\0simple-signing\n", b"\0other\nx"] {
            assert_eq!(detect_format(unknown), SignatureFormat::Unknown);
        }
        for page in [&b"<html>"[..], b"\r\n<!doctype html>", b"{\"errors\": []}", b"[]"] {
            assert_eq!(detect_format(page), SignatureFormat::Page);
        }
    }
}
