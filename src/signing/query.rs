//! The query for a signing key: `--sign-by`.

use std::{fmt, str::FromStr};

use sequoia_openpgp::{Cert, KeyHandle};

/// A fingerprint, a key ID, or an e-mail address.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyQuery {
    /// A fingerprint or key ID, of the certificate or of one of its keys.
    Key(KeyHandle),
    /// An e-mail address, in lower case.
    Email(String),
}

/// The reason why a text names no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyQueryError {
    /// The text is neither a fingerprint, a key ID, nor an e-mail address.
    #[error(
        "{0:?} is no key: expected a fingerprint (40 or 64 hexadecimal digits), a key ID (16), or an e-mail address"
    )]
    Unknown(String),
    /// The text has eight digits, which many keys share.
    #[error("{0:?} is a short key ID, and anyone can make another key with it: give the fingerprint")]
    ShortKeyId(String),
}

impl KeyQuery {
    /// Returns whether the query matches a certificate.
    pub(super) fn fits(&self, certificate: &Cert) -> bool {
        match self {
            Self::Key(handle) => certificate.keys().any(|key| key.key().key_handle().aliases(handle)),
            Self::Email(address) => certificate.userids().any(|user_id| {
                let found = user_id.userid().email().ok().flatten();
                found.is_some_and(|found| found.eq_ignore_ascii_case(address))
            }),
        }
    }

    /// Returns whether this key of the certificate may sign: any may, unless the query names a subkey.
    pub(super) fn allows(&self, certificate: &Cert, key: &KeyHandle) -> bool {
        match self {
            Self::Key(handle) => certificate.key_handle().aliases(handle) || key.aliases(handle),
            Self::Email(_) => true,
        }
    }
}

impl FromStr for KeyQuery {
    type Err = KeyQueryError;

    fn from_str(text: &str) -> Result<Self, KeyQueryError> {
        let text = text.trim();
        if let Some(address) = text.strip_prefix('<').map_or(Some(text), |rest| rest.strip_suffix('>'))
            && let Some((local, domain)) = address.split_once('@')
        {
            let bad = |part: &str| part.is_empty() || part.contains(|c: char| c.is_whitespace() || "@<>".contains(c));
            return if bad(local) || bad(domain) {
                Err(KeyQueryError::Unknown(text.to_owned()))
            } else {
                Ok(Self::Email(address.to_ascii_lowercase()))
            };
        }
        // gpg prints the digits in groups.
        let digits: String = text.chars().filter(|character| !character.is_whitespace()).collect();
        let digits = digits.strip_prefix("0x").or(digits.strip_prefix("0X")).unwrap_or(&digits);
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(KeyQueryError::Unknown(text.to_owned()));
        }
        match digits.len() {
            8 => Err(KeyQueryError::ShortKeyId(text.to_owned())),
            16 | 40 | 64 => digits.parse().map(Self::Key).map_err(|_| KeyQueryError::Unknown(text.to_owned())),
            _ => Err(KeyQueryError::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for KeyQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(handle) => write!(f, "0x{handle:X}"),
            Self::Email(address) => f.write_str(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::testing::Key;

    #[test]
    fn a_key_is_named_by_fingerprint_key_id_or_address() {
        let key = Key::new("release").cert;
        let fingerprint = key.fingerprint().to_hex();
        let spaced = fingerprint.as_bytes().chunks(4).map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ");
        for text in [
            fingerprint.clone(),
            format!("0x{}", fingerprint.to_lowercase()),
            spaced,
            key.keyid().to_hex(),
            "release@example.com".to_owned(),
            "<Release@Example.com>".to_owned(),
        ] {
            assert!(text.parse::<KeyQuery>().unwrap().fits(&key), "{text}");
        }
        for text in ["other@example.com", "0000000000000000"] {
            assert!(!text.parse::<KeyQuery>().unwrap().fits(&key), "{text}");
        }
    }

    #[test]
    fn what_could_mean_several_keys_or_none_is_refused() {
        assert!(matches!("DEADBEEF".parse::<KeyQuery>(), Err(KeyQueryError::ShortKeyId(_))));
        for text in ["", "release", "@example.com", "a@", "a@b@c", "a b@example.com", "0x12", &"f".repeat(41)] {
            assert!(matches!(text.parse::<KeyQuery>(), Err(KeyQueryError::Unknown(_))), "{text}");
        }
    }
}
