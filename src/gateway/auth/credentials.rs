//! The credentials of a request, from its field `Authorization`.

use base64::{Engine as _, alphabet, engine};
use secrecy::{ExposeSecret as _, SecretString};

/// The maximum size of an `Authorization`, in bytes. Tokens of identity providers that list a user's groups are that
/// long.
const MAX_AUTHORIZATION_BYTES: usize = 16 << 10;
/// The maximum size of a user's name, in bytes.
const MAX_USER_BYTES: usize = 256;

/// The unchecked credentials of a request.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// No credentials.
    None,
    /// A name and a password (RFC 7617).
    Basic {
        /// The name; may be empty.
        user: Box<str>,
        /// The password, or a token in its place, as `docker login` sends it.
        password: SecretString,
    },
    /// A token (RFC 6750) of this store or of the backend.
    Bearer(SecretString),
}

/// The reason why an `Authorization` is malformed. The message repeats no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedCredentials {
    /// The request has several fields.
    #[error("a request has one Authorization field, not several")]
    Several,
    /// The field is too long.
    #[error("an Authorization field has at most {MAX_AUTHORIZATION_BYTES} bytes")]
    TooLong,
    /// The field has another scheme.
    #[error("an Authorization field begins with Basic or Bearer")]
    Scheme,
    /// The credentials after `Basic` are malformed.
    #[error("Basic is followed by the base64 of user:password, in UTF-8 without control characters")]
    Basic,
    /// The token after `Bearer` is malformed.
    #[error("Bearer is followed by a token of A-Z a-z 0-9 - . _ ~ + / =")]
    Bearer,
}

/// Accepts base64 with and without padding, since clients differ.
const BASE64: engine::GeneralPurpose = engine::GeneralPurpose::new(
    &alphabet::STANDARD,
    engine::GeneralPurposeConfig::new().with_decode_padding_mode(engine::DecodePaddingMode::Indifferent),
);

impl Credentials {
    /// Parses all `Authorization` fields of a request; there may be one.
    ///
    /// # Errors
    /// A field is malformed. That is not the same as no field: the client means to be authenticated.
    pub fn from_authorization<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, MalformedCredentials> {
        let mut fields = fields.into_iter();
        let Some(field) = fields.next() else { return Ok(Self::None) };
        if fields.next().is_some() {
            return Err(MalformedCredentials::Several);
        }
        if field.len() > MAX_AUTHORIZATION_BYTES {
            return Err(MalformedCredentials::TooLong);
        }
        let field = std::str::from_utf8(field).map_err(|_| MalformedCredentials::Scheme)?.trim_matches([' ', '\t']);
        let (scheme, rest) = field.split_once(' ').unwrap_or((field, ""));
        let rest = rest.trim_start_matches(' ');
        if scheme.eq_ignore_ascii_case("Basic") {
            Self::basic(rest).ok_or(MalformedCredentials::Basic)
        } else if scheme.eq_ignore_ascii_case("Bearer") {
            let token = |byte: u8| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
            };
            let good = !rest.is_empty() && rest.bytes().all(token);
            good.then(|| Self::Bearer(rest.into())).ok_or(MalformedCredentials::Bearer)
        } else {
            Err(MalformedCredentials::Scheme)
        }
    }

    fn basic(encoded: &str) -> Option<Self> {
        let decoded = String::from_utf8(BASE64.decode(encoded).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Self::of_user(user, password)
    }

    /// Returns the `Authorization` field with these credentials; `None` if there are none.
    pub fn authorization(&self) -> Option<SecretString> {
        match self {
            Self::None => None,
            Self::Basic { user, password } => {
                Some(format!("Basic {}", BASE64.encode(format!("{user}:{}", password.expose_secret()))).into())
            }
            Self::Bearer(token) => Some(format!("Bearer {}", token.expose_secret()).into()),
        }
    }

    /// Makes credentials from a name and a password of a form or a Basic field. Returns `None` if they are too long, or
    /// contain control characters.
    pub fn of_user(user: &str, password: &str) -> Option<Self> {
        let good = user.len() <= MAX_USER_BYTES
            && password.len() <= MAX_AUTHORIZATION_BYTES
            && !user.chars().chain(password.chars()).any(char::is_control);
        good.then(|| Self::Basic { user: user.into(), password: password.into() })
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;

    fn read(field: &str) -> Result<Credentials, MalformedCredentials> {
        Credentials::from_authorization([field.as_bytes()])
    }

    #[test]
    fn a_field_may_be_as_long_as_the_limit() {
        let longest = format!("Bearer {}", "a".repeat(MAX_AUTHORIZATION_BYTES - "Bearer ".len()));
        assert!(matches!(read(&longest), Ok(Credentials::Bearer(_))));
        assert_eq!(read(&format!("{longest}a")).unwrap_err(), MalformedCredentials::TooLong);
    }

    #[test]
    fn credentials_are_sent_on_as_they_came() {
        for field in ["Basic amFuZTpzZWNyZXQ=", "Bearer abc.def"] {
            assert_eq!(read(field).unwrap().authorization().unwrap().expose_secret(), field);
        }
        assert!(Credentials::None.authorization().is_none());
    }

    #[test]
    fn no_field_is_nobody_and_several_are_a_mistake() {
        assert!(matches!(Credentials::from_authorization([]), Ok(Credentials::None)));
        let two = [b"Bearer a".as_slice(), b"Bearer a"];
        assert_eq!(Credentials::from_authorization(two).unwrap_err(), MalformedCredentials::Several);
    }

    #[test]
    fn basic_has_a_user_and_a_password_with_colons() {
        for (scheme, encoded) in [
            ("Basic", STANDARD.encode("jane:a:b ü")),
            ("bASIC", STANDARD.encode("jane:a:b ü").trim_end_matches('=').to_owned()),
            ("Basic ", STANDARD.encode("jane:a:b ü")),
        ] {
            let Ok(Credentials::Basic { user, password }) = read(&format!("{scheme} {encoded}")) else {
                panic!("{scheme} {encoded}");
            };
            assert_eq!((&*user, password.expose_secret()), ("jane", "a:b ü"));
        }
    }

    #[test]
    fn bearer_has_a_token() {
        let Ok(Credentials::Bearer(token)) = read("bearer eyJ.a-b_c~+/==") else { panic!("it is a token") };
        assert_eq!(token.expose_secret(), "eyJ.a-b_c~+/==");
    }

    #[test]
    fn what_is_malformed_is_not_taken_for_nothing() {
        let long = "x".repeat(MAX_AUTHORIZATION_BYTES);
        for (field, expected) in [
            ("", MalformedCredentials::Scheme),
            ("Negotiate YWJj", MalformedCredentials::Scheme),
            ("Basic", MalformedCredentials::Basic),
            ("Basic !", MalformedCredentials::Basic),
            (&format!("Basic {}", STANDARD.encode("jane")), MalformedCredentials::Basic),
            (&format!("Basic {}", STANDARD.encode(b"jane:\xff")), MalformedCredentials::Basic),
            (&format!("Basic {}", STANDARD.encode("jane:a\0b")), MalformedCredentials::Basic),
            (&format!("Basic {}", STANDARD.encode("ja\nne:a")), MalformedCredentials::Basic),
            (&format!("Basic {}", STANDARD.encode(format!("{}:a", "j".repeat(257)))), MalformedCredentials::Basic),
            ("Bearer", MalformedCredentials::Bearer),
            ("Bearer a b", MalformedCredentials::Bearer),
            ("Bearer a,b", MalformedCredentials::Bearer),
            (&format!("Bearer {long}"), MalformedCredentials::TooLong),
        ] {
            assert_eq!(read(field).unwrap_err(), expected, "{field}");
        }
        let not_utf8 = Credentials::from_authorization([b"Bearer \xff".as_slice()]);
        assert_eq!(not_utf8.unwrap_err(), MalformedCredentials::Scheme);
    }

    #[test]
    fn secrets_do_not_show() {
        for field in [format!("Basic {}", STANDARD.encode("jane:hunter2")), "Bearer hunter2".to_owned()] {
            let shown = format!("{:?}", read(&field).unwrap());
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(field in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Credentials::from_authorization([field.as_slice()]);
            let _ = Credentials::from_authorization([[b"Basic ", field.as_slice()].concat().as_slice()]);
        }
    }
}
