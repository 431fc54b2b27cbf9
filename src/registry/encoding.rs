//! `Content-Encoding` (RFC 9110, section 8.4). We ask for none; some servers send gzip all the same, and a bucket sends what
//! was stored with one.

use std::io::{self, Write as _};

use flate2::write::MultiGzDecoder;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};

use super::failure::Failure;

/// Encodings that have a name for people.
const KNOWN: [&str; 5] = ["br", "zstd", "deflate", "compress", "aws-chunked"];

/// How an answer's body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    /// Another one, or several; its name where that is one that is known here.
    Other(&'static str),
}

impl Encoding {
    /// The encoding that an answer's header fields name.
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

    /// Whether the body's bytes are the content's.
    pub(super) fn is_identity(self) -> bool {
        self == Self::Identity
    }
}

/// Why a body can't be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undecodable {
    /// It inflates to more than it may.
    TooLong,
    /// It is not gzip, or it is cut off.
    Damaged,
}

impl Undecodable {
    /// For people. `limit`: bytes that there may be.
    pub(super) fn failure(self, limit: usize) -> Failure {
        let limit = bytesize::ByteSize::b(limit as u64);
        Failure::Misbehaved(match self {
            Self::TooLong => format!("what it sends inflates to more than {limit} (Content-Encoding: gzip)"),
            Self::Damaged => "what it sends is damaged: it is not gzip, as its Content-Encoding header says".to_owned(),
        })
    }
}

/// Inflates gzip as it comes, to a bounded number of bytes.
pub(super) struct Inflate {
    decoder: MultiGzDecoder<BoundedBuffer>,
    is_empty: bool,
}

impl Inflate {
    /// `limit`: bytes that it may become.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            decoder: MultiGzDecoder::new(BoundedBuffer { bytes: Vec::new(), limit, is_full: false }),
            is_empty: true,
        }
    }

    /// Takes the next piece of what is encoded. It becomes about a thousand times as many bytes at most.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), Undecodable> {
        self.is_empty &= piece.is_empty();
        self.decoder.write_all(piece).map_err(|_| self.why())
    }

    /// Bytes that there are.
    pub(super) fn len(&self) -> usize {
        self.decoder.get_ref().bytes.len()
    }

    /// Makes room for all that it may become.
    pub(super) fn reserve(&mut self) {
        let BoundedBuffer { bytes, limit, .. } = self.decoder.get_mut();
        bytes.reserve_exact(*limit - bytes.len());
    }

    /// All of it. No bytes at all stay none: answers without a body have the header, too.
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

/// Bytes, no more than so many.
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
