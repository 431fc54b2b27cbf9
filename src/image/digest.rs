//! Content digests: what an image *is*, whatever name leads to it.

use std::{fmt, str::FromStr};

use aws_lc_rs::digest as hash;

/// A content digest, `sha256:<64 hex>` or `sha512:<128 hex>` (OCI image specification, "Digests").
///
/// Other registered algorithms are refused: nothing here could compute them, and a digest that is not computed proves
/// nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// SHA-256, what nearly every registry uses.
    Sha256([u8; 32]),
    /// SHA-512.
    Sha512([u8; 64]),
}

/// The hash function of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// There is no colon between algorithm and value.
    #[error("a digest has the form sha256:<64 hexadecimal digits>; there is no colon")]
    NoAlgorithm,
    /// The algorithm is not sha256 or sha512.
    #[error("the digest's algorithm must be sha256 or sha512")]
    UnknownAlgorithm,
    /// The value has the wrong length.
    #[error("a {algorithm} digest has {expected} hexadecimal digits, this one {found}")]
    Length {
        /// The algorithm named.
        algorithm: Algorithm,
        /// Digits that it has.
        expected: usize,
        /// Characters found.
        found: usize,
    },
    /// The value has something else than `0-9a-f` in it.
    #[error("a digest is written in lower-case hexadecimal digits")]
    NotLowerHex,
}

impl Algorithm {
    /// The other one of the two.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Sha256 => Self::Sha512,
            Self::Sha512 => Self::Sha256,
        }
    }

    /// The name in front of the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Digest {
    /// Parses `algorithm:hex`.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::NoAlgorithm)?;
        match algorithm {
            "sha256" => decode_hex(hex, Algorithm::Sha256).map(Self::Sha256),
            "sha512" => decode_hex(hex, Algorithm::Sha512).map(Self::Sha512),
            _ => Err(DigestError::UnknownAlgorithm),
        }
    }

    /// Computes the digest of `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(fixed(hash::digest(&hash::SHA256, bytes).as_ref())),
            Algorithm::Sha512 => Self::Sha512(fixed(hash::digest(&hash::SHA512, bytes).as_ref())),
        }
    }

    /// Computes the SHA-256 digest of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::of(Algorithm::Sha256, bytes)
    }

    /// The hash function.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Returns what differs. Returns `None` if `found` is this digest.
    pub fn mismatch(self, found: Self) -> Option<Box<Mismatch>> {
        (self != found).then(|| Box::new(Mismatch { expected: self, found }))
    }

    /// The value alone, in lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        let full = self.to_string();
        full[self.algorithm().name().len() + 1..].to_owned()
    }

    /// Returns whether `bytes` have this digest.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        Self::of(self.algorithm(), bytes) == *self
    }
}

/// Bytes have another digest than they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it should be {expected} and is {found}")]
pub struct Mismatch {
    /// The digest that was expected.
    pub expected: Digest,
    /// The digest of the bytes.
    pub found: Digest,
}

/// Computes a digest over bytes that come in parts.
#[derive(Clone)]
pub struct Hasher(Algorithm, hash::Context);

impl Hasher {
    /// Makes a hasher that has read no byte yet.
    pub fn new(algorithm: Algorithm) -> Self {
        let function = match algorithm {
            Algorithm::Sha256 => &hash::SHA256,
            Algorithm::Sha512 => &hash::SHA512,
        };
        Self(algorithm, hash::Context::new(function))
    }

    /// Takes what comes next.
    pub fn update(&mut self, bytes: &[u8]) {
        self.1.update(bytes);
    }

    /// The digest of all that came.
    pub fn finish(self) -> Digest {
        let value = self.1.finish();
        match self.0 {
            Algorithm::Sha256 => Digest::Sha256(fixed(value.as_ref())),
            Algorithm::Sha512 => Digest::Sha512(fixed(value.as_ref())),
        }
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(bytes);
    value
}

fn decode_hex<const N: usize>(hex: &str, algorithm: Algorithm) -> Result<[u8; N], DigestError> {
    if hex.len() != 2 * N {
        return Err(DigestError::Length { algorithm, expected: 2 * N, found: hex.chars().count() });
    }
    let mut value = [0; N];
    for (byte, pair) in value.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Ok(value)
}

fn nibble(character: u8) -> Result<u8, DigestError> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        _ => Err(DigestError::NotLowerHex),
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let value: &[u8] = match self {
            Self::Sha256(value) => value,
            Self::Sha512(value) => value,
        };
        let mut hex = [0; 128];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(value) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        let hex = std::str::from_utf8(&hex[..2 * value.len()]).map_err(|_| fmt::Error)?;
        write!(f, "{}:{hex}", self.algorithm())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_is_what_the_bytes_hash_to() {
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
        assert!(Digest::parse(EMPTY).unwrap().matches(b""));
        assert!(!Digest::parse(EMPTY).unwrap().matches(b"x"));
        let long = Digest::of(Algorithm::Sha512, b"x");
        assert!(long.matches(b"x") && !long.matches(b""));
        assert_eq!(format!("{long:?}"), long.to_string());
        assert_eq!(Digest::parse(&long.to_string()), Ok(long));
        assert_eq!(long.hex().len(), 128);
    }

    #[test]
    fn what_is_not_a_digest_says_why() {
        assert_eq!(Digest::parse("e3b0"), Err(DigestError::NoAlgorithm));
        assert_eq!(Digest::parse("md5:00"), Err(DigestError::UnknownAlgorithm));
        assert!(matches!(Digest::parse("sha256:00"), Err(DigestError::Length { expected: 64, found: 2, .. })));
        assert_eq!(Digest::parse(&EMPTY.to_uppercase().replace("SHA256", "sha256")), Err(DigestError::NotLowerHex));
        assert!(Digest::parse(&format!("sha256:{}", "é".repeat(32))).is_err());
    }
}
