//! `Content-Encoding` (RFC 9110, section 8.4). Requests ask for none. Some servers send gzip all the same, and a bucket
//! sends an object with the encoding that it was stored with.

use std::io::{self, Write as _};

use flate2::write::MultiGzDecoder;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};

use super::failure::Failure;

/// The encodings that error messages name.
const KNOWN: [&str; 5] = ["br", "zstd", "deflate", "compress", "aws-chunked"];

/// The encoding of an answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    /// Another encoding, or several, with a name for messages.
    Other(&'static str),
}

impl Encoding {
    /// Parses the encoding from an answer's headers.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::Identity;
        for value in headers.get_all(CONTENT_ENCODING) {
            for name in value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
                let next = match name {
                    b"" => continue,
                    _ if is("identity") => continue,
                    _ if is("gzip") || is("x-gzip") => Self::Gzip,
                    _ => Self::Other(
                        KNOWN.into_iter().find(|known| is(known)).unwrap_or("an encoding that is not known here"),
                    ),
                };
                found = match (found, next) {
                    (Self::Identity, next) => next,
                    (Self::Gzip, Self::Gzip) => Self::Other("gzip, twice"),
                    (Self::Gzip, other) | (other, _) => other,
                };
            }
        }
        found
    }

    /// Returns whether the body is not encoded.
    pub(super) fn is_identity(self) -> bool {
        self == Self::Identity
    }
}

/// The reason why a body can't be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undecodable {
    /// The content is larger than the limit.
    TooLong,
    /// The body is not gzip, or is cut off.
    Damaged,
}

impl Undecodable {
    /// Returns the failure to report. `limit`: the maximum size, in bytes.
    pub(super) fn failure(self, limit: usize) -> Failure {
        let limit = bytesize::ByteSize::b(limit as u64);
        Failure::Misbehaved(match self {
            Self::TooLong => format!("what it sends inflates to more than {limit} (Content-Encoding: gzip)"),
            Self::Damaged => "what it sends is damaged: it is not gzip, as its Content-Encoding header says".to_owned(),
        })
    }
}

/// A gzip decoder for a body that arrives in pieces, with a bounded output.
pub(super) struct Inflate {
    decoder: MultiGzDecoder<BoundedBuffer>,
    is_empty: bool,
}

impl Inflate {
    /// Makes a decoder for at most `limit` bytes of content.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            decoder: MultiGzDecoder::new(BoundedBuffer { bytes: Vec::new(), limit, is_full: false }),
            is_empty: true,
        }
    }

    /// Decodes the next piece. The content is about a thousand times as large at most.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), Undecodable> {
        self.is_empty &= piece.is_empty();
        self.decoder.write_all(piece).map_err(|_| self.why())
    }

    /// Returns the number of bytes decoded so far.
    pub(super) fn len(&self) -> usize {
        self.decoder.get_ref().bytes.len()
    }

    /// Reserves capacity for the whole limit.
    pub(super) fn reserve(&mut self) {
        let BoundedBuffer { bytes, limit, .. } = self.decoder.get_mut();
        bytes.reserve_exact(*limit - bytes.len());
    }

    /// Returns the content. An empty body is accepted: answers without a body have the header, too.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, Undecodable> {
        if self.is_empty {
            return Ok(Vec::new());
        }
        match self.decoder.try_finish() {
            Ok(()) => Ok(std::mem::take(&mut self.decoder.get_mut().bytes)),
            Err(_) => Err(self.why()),
        }
    }

    fn why(&self) -> Undecodable {
        if self.decoder.get_ref().is_full { Undecodable::TooLong } else { Undecodable::Damaged }
    }
}

/// A buffer with a maximum size.
struct BoundedBuffer {
    bytes: Vec<u8>,
    limit: usize,
    is_full: bool,
}

impl io::Write for BoundedBuffer {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if more.len() > self.limit - self.bytes.len() {
            self.is_full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    const STEP: usize = 1 << 10;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn inflate(encoded: &[u8], limit: usize, step: usize) -> Result<Vec<u8>, Undecodable> {
        let mut inflate = Inflate::new(limit);
        for piece in encoded.chunks(step) {
            inflate.push(piece)?;
            assert!(inflate.len() <= limit);
        }
        inflate.finish()
    }

    #[test]
    fn an_encoding_is_read_from_all_header_fields() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, HeaderValue::from_str(value).unwrap());
            }
            Encoding::of(&headers)
        };
        for none in [&[][..], &[""], &["identity"], &["Identity", " , "], &["identity, identity"]] {
            assert_eq!(of(none), Encoding::Identity, "{none:?}");
        }
        for gzip in [&["gzip"][..], &["GZip"], &["x-gzip"], &["identity, gzip"], &["", "gzip"], &["gzip,"]] {
            assert_eq!(of(gzip), Encoding::Gzip, "{gzip:?}");
        }
        for (values, name) in [
            (&["br"][..], "br"),
            (&["ZSTD"], "zstd"),
            (&["gzip, br"], "br"),
            (&["deflate", "gzip"], "deflate"),
            (&["gzip", "gzip"], "gzip, twice"),
            (&["gzip, gzip, identity"], "gzip, twice"),
            (&["<b>"], "an encoding that is not known here"),
            (&["gzip;q=1"], "an encoding that is not known here"),
        ] {
            assert_eq!(of(values), Encoding::Other(name), "{values:?}");
        }
    }

    #[test]
    fn what_inflates_to_more_than_it_may_ends_at_the_bound() {
        let limit = 64 << 10;
        let zeros = |length: usize| gzip(&vec![0; length]);
        assert_eq!(inflate(&zeros(limit), limit, STEP).unwrap().len(), limit);
        assert_eq!(inflate(&zeros(limit + 1), limit, STEP), Err(Undecodable::TooLong));
        assert_eq!(inflate(&zeros(64 << 20), limit, STEP), Err(Undecodable::TooLong));
        let many = [zeros(limit / 2), zeros(limit / 2), gzip(b"1")].concat();
        assert_eq!(inflate(&many, limit, STEP), Err(Undecodable::TooLong), "in several members");
    }

    #[test]
    fn what_is_cut_off_changed_or_followed_by_something_is_damaged() {
        let good = gzip(b"hello, world");
        for at in 1..good.len() {
            assert_eq!(inflate(&good[..at], 100, STEP), Err(Undecodable::Damaged), "cut at {at}");
        }
        let (mut sum, mut length) = (good.clone(), good.clone());
        sum[good.len() - 8] ^= 1;
        length[good.len() - 1] ^= 1;
        for bad in [sum, length, [&*good, b"x"].concat(), b"hello".to_vec(), b"{}".to_vec()] {
            assert_eq!(inflate(&bad, 100, STEP), Err(Undecodable::Damaged), "{bad:x?}");
        }
        assert_eq!(inflate(b"", 100, STEP), Ok(Vec::new()), "no body at all");
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked(bytes in proptest::collection::vec(any::<u8>(), 0..3000), step in 1..=STEP, members in 1_usize..4) {
            let packed: Vec<u8> = bytes.chunks(bytes.len() / members + 1).flat_map(gzip).collect();
            prop_assert_eq!(inflate(&packed, bytes.len(), step), Ok(bytes));
        }

        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1..=STEP) {
            let _ = inflate(&bytes, 100, step);
            let _ = inflate(&[b"\x1f\x8b\x08\0\0\0\0\0\0\x03".as_slice(), &bytes].concat(), 100, step);
        }
    }
}
