//! Who sends a request, and what they may do to signatures.
//!
//! [`AccessControl`] is what the server asks: it opens [our own tokens](token), and leaves everybody else to one of the
//! backends behind [`Access`]: [everyone](Everyone), a [password file](htpasswd::Htpasswd), or
//! [Kubernetes](kubernetes::Kubernetes). Every answer starts from no; a backend that can't answer is an error, never a yes.

mod auth_cache;
mod control;
mod fair_queue;
pub mod htpasswd;
pub mod kubernetes;
mod roles;
pub mod scope;
pub mod token;
pub mod token_key;

use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, alphabet, engine};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

pub use control::{AccessControl, AccessSetupError, ForTheRegistry, Given, Known};

use super::store::RepositoryName;
use token::TokenError;

/// The longest `Authorization` that is looked at: tokens of identity providers that list a user's groups get that long.
const LONGEST_AUTHORIZATION: usize = 16 << 10;
/// The longest name of a user.
const LONGEST_USER: usize = 256;

/// Who does something to signatures, and what.
#[async_trait]
pub trait Access: fmt::Debug + Send + Sync + 'static {
    /// Who sends these credentials. None at all: the anonymous caller, which is no error.
    ///
    /// # Errors
    /// [`AccessError::Rejected`] where they are not good, [`AccessError::Busy`] and [`AccessError::Unavailable`] where that
    /// can't be told now.
    async fn authenticate(&self, credentials: &Credentials, peer: Peer) -> Result<Caller, AccessError>;

    /// Whether this caller may do this to the signatures of a repository; nothing: of every repository.
    ///
    /// # Errors
    /// [`AccessError::Busy`] and [`AccessError::Unavailable`] where that can't be told now.
    async fn may(
        &self,
        caller: &Caller,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> Result<bool, AccessError>;

    /// The role that lets do this, for whoever is refused without it.
    fn role_for(&self, action: Action) -> &'static str {
        roles::Role::for_action(action).as_str()
    }
}

/// What somebody may or may not do. Reading is not among these: who may pull an image from the registry may read its
/// signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Add a signature.
    CreateSignature,
    /// Remove a signature.
    DeleteSignature,
    /// Set or clear a signature's verification status.
    SetStatus,
    /// Read the whole store.
    Export,
    /// Write signatures with whatever details and status they come with.
    Import,
}

impl Action {
    /// The word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateSignature => "create-signature",
            Self::DeleteSignature => "delete-signature",
            Self::SetStatus => "set-status",
            Self::Export => "export",
            Self::Import => "import",
        }
    }

    /// The same in a sentence about the signatures of a repository; nothing: of every repository.
    pub fn in_words(self, repository: Option<&RepositoryName>) -> String {
        let what = repository.map_or("this store", RepositoryName::as_str);
        match self {
            Self::CreateSignature => format!("add signatures to {what}"),
            Self::DeleteSignature => format!("remove signatures from {what}"),
            Self::SetStatus => format!("set or clear the status of signatures in {what}"),
            Self::Export => "export this store".to_owned(),
            Self::Import => "import into this store".to_owned(),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a request brought along to say who sends it. Nothing of it has been checked.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Nothing.
    None,
    /// A name and a password (RFC 7617).
    Basic {
        /// The name; may be empty.
        user: Box<str>,
        /// The password, or a token in its place, as `docker login` sends it.
        password: SecretString,
    },
    /// A token (RFC 6750): one of ours, or of the backend's.
    Bearer(SecretString),
}

/// Why an `Authorization` can't be read. What stands in it is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedCredentials {
    /// There is more than one.
    #[error("a request has one Authorization field, not several")]
    Several,
    /// It is longer than any.
    #[error("an Authorization field has at most {LONGEST_AUTHORIZATION} bytes")]
    TooLong,
    /// It is of another scheme.
    #[error("an Authorization field begins with Basic or Bearer")]
    Scheme,
    /// What follows `Basic` is malformed.
    #[error("Basic is followed by the base64 of user:password, in UTF-8 without control characters")]
    Basic,
    /// What follows `Bearer` is malformed.
    #[error("Bearer is followed by a token of A-Z a-z 0-9 - . _ ~ + / =")]
    Bearer,
}

/// Clients leave the padding out, or don't.
const BASE64: engine::GeneralPurpose = engine::GeneralPurpose::new(
    &alphabet::STANDARD,
    engine::GeneralPurposeConfig::new().with_decode_padding_mode(engine::DecodePaddingMode::Indifferent),
);

impl Credentials {
    /// Reads all `Authorization` fields of a request; there may be one.
    ///
    /// # Errors
    /// They are malformed: not the same as none, since whoever sent them means to be somebody.
    pub fn from_authorization<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, MalformedCredentials> {
        let mut fields = fields.into_iter();
        let Some(field) = fields.next() else { return Ok(Self::None) };
        if fields.next().is_some() {
            return Err(MalformedCredentials::Several);
        }
        if field.len() > LONGEST_AUTHORIZATION {
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

    /// The `Authorization` field that says the same; nothing: there is none.
    pub fn authorization(&self) -> Option<SecretString> {
        match self {
            Self::None => None,
            Self::Basic { user, password } => {
                Some(format!("Basic {}", BASE64.encode(format!("{user}:{}", password.expose_secret()))).into())
            }
            Self::Bearer(token) => Some(format!("Bearer {}", token.expose_secret()).into()),
        }
    }

    /// A name and a password, as a form or a Basic field has them; nothing: no name or password looks like this.
    pub fn of_user(user: &str, password: &str) -> Option<Self> {
        let good = user.len() <= LONGEST_USER
            && password.len() <= LONGEST_AUTHORIZATION
            && !user.chars().chain(password.chars()).any(char::is_control);
        good.then(|| Self::Basic { user: user.into(), password: password.into() })
    }
}

/// Where a request comes from, as far as it matters for whose turn it is: an address, or the network of one customer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer(Option<IpAddr>);

impl Peer {
    /// Of an address; nothing: it is not known.
    pub fn of(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| crate::server::Peer::of(address).address()))
    }
}

/// Who sends a request, as far as it was proved.
///
/// Tokens carry one sealed; a backend that reads it again must not take its groups for more than they were then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// Nothing: anonymous.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Box<str>>,
    /// Tells two users apart that had the same name one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<Box<str>>,
    /// What else Kubernetes knows of a user, for its authorizers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<Box<str>, Vec<Box<str>>>,
}

impl Caller {
    /// Somebody, who did not say who.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// The name; nothing: anonymous.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether they did not say who they are.
    pub fn is_anonymous(&self) -> bool {
        self.name.is_none()
    }
}

/// For logs; the backend decides which characters a name has, so control characters are escaped.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            None => f.write_str("(anonymous)"),
            Some(name) => name.escape_debug().fmt(f),
        }
    }
}

/// Why there is no answer, or no caller. None of the words come from outside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The credentials prove nothing: 401, with a challenge.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Too many are being asked about, of this caller or of all: 429, with `Retry-After`.
    #[error("too many ask at once who they are; try again in {} s", retry_after.as_secs())]
    Busy {
        /// When to ask again.
        retry_after: Duration,
    },
    /// Nobody can tell now: 503, with `Retry-After`. The log has the reason.
    #[error("who may do this can't be told now; try again in {} s", retry_after.as_secs())]
    Unavailable {
        /// When to ask again.
        retry_after: Duration,
    },
}

impl AccessError {
    /// After a while that a client may wait and a server may recover in.
    fn unavailable() -> Self {
        Self::Unavailable { retry_after: Duration::from_secs(5) }
    }

    /// A queue is shorter by then, or others have had their turn.
    fn busy() -> Self {
        Self::Busy { retry_after: Duration::from_secs(2) }
    }
}

/// What is wrong with credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// They can't be read.
    #[error(transparent)]
    Malformed(#[from] MalformedCredentials),
    /// Not which of the two, and not whether there is such a user.
    #[error("the user name or the password is wrong")]
    Password,
    /// The backend does not know the token.
    #[error("the token is not known here, or has expired")]
    Unknown,
    /// One of our tokens, which does not count.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// No access is configured: nobody is asked who they are, and everybody may do everything.
#[derive(Clone, Copy, Debug)]
pub struct Everyone;

#[async_trait]
impl Access for Everyone {
    /// Nobody checks names here, so nobody gets one: a log that names somebody would be wrong some day.
    async fn authenticate(&self, _: &Credentials, _: Peer) -> Result<Caller, AccessError> {
        Ok(Caller::anonymous())
    }

    async fn may(&self, _: &Caller, _: Action, _: Option<&RepositoryName>) -> Result<bool, AccessError> {
        Ok(true)
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
        let long = "x".repeat(LONGEST_AUTHORIZATION);
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
    fn all_addresses_of_one_customer_are_one_peer() {
        let peer = |text: &str| Peer::of(Some(text.parse().unwrap()));
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
    }

    #[test]
    fn secrets_do_not_show() {
        for field in [format!("Basic {}", STANDARD.encode("jane:hunter2")), "Bearer hunter2".to_owned()] {
            let shown = format!("{:?}", read(&field).unwrap());
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn a_name_can_not_forge_a_line_of_the_log() {
        let caller = Caller { name: Some("jane\n2026 admin".into()), ..Caller::default() };
        assert_eq!(caller.to_string(), "jane\\n2026 admin");
        assert_eq!(Caller::anonymous().to_string(), "(anonymous)");
    }

    proptest! {
        #[test]
        fn reading_never_panics(field in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Credentials::from_authorization([field.as_slice()]);
            let _ = Credentials::from_authorization([[b"Basic ", field.as_slice()].concat().as_slice()]);
        }
    }
}
