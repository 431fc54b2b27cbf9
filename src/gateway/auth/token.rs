//! The store's own tokens: sealed claims that only a store with the same key can open or make.
//!
//! A token is `sealgate_` and URL-safe base64 of a version, the key's identifier, a nonce, and sealed JSON. The cipher
//! is AES-256-GCM-SIV (RFC 8452): replicas with one key draw nonces at random without knowing each other's, and with
//! this cipher a repeated nonce does little harm.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{self, SHA256},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::{Principal, scope::Scopes};

/// The prefix of every store's tokens. It keeps other servers' tokens apart from these, and these from other servers.
const PREFIX: &str = "sealgate_";
/// The maximum length of a token, in bytes; clients and proxies limit a request's header fields.
pub const MAX_TOKEN_BYTES: usize = 8 << 10;
/// The lifetime of a token. It is short, since a token can't be revoked; permissions are checked anew for each request.
pub const TOKEN_TTL: SignedDuration = SignedDuration::from_mins(5);
/// The length of a key, in bytes.
pub const KEY_BYTES: usize = 32;

const VERSION: u8 = 1;
const ID_BYTES: usize = 8;
/// The length of version and key identifier. They are not secret, but authenticated by the seal.
const HEAD_BYTES: usize = 1 + ID_BYTES;

/// The claims of a token.
#[derive(Clone, Debug)]
pub struct Claims {
    /// The principal, as it was when the token was issued.
    pub principal: Principal,
    /// The scopes of the token.
    pub scopes: Scopes,
    /// The `Authorization` for the registry in place of the token, if any.
    pub upstream: Option<SecretString>,
    /// The expiry time, in whole seconds.
    pub expires_at: Timestamp,
}

/// The serialized form of [`Claims`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<'a> {
    #[serde(rename = "caller")]
    principal: Principal,
    scopes: Scopes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream: Option<std::borrow::Cow<'a, str>>,
    expires: i64,
}

/// The reason why a token is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The token is cut off, changed, from another store, or sealed with a key that was removed.
    #[error("the token is not from this store, or its key was removed; get a new one")]
    Unknown,
    /// The token has expired.
    #[error("the token has expired; get a new one")]
    Expired,
    /// The token is valid, but lacks a scope.
    #[error("the token lacks the scope for this; get one with the scope of the challenge")]
    Scope,
}

/// The reason why no token is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Groups, scopes and the registry's own token do not fit into a token.
    #[error("a token for all of this would be longer than {MAX_TOKEN_BYTES} bytes; ask for fewer scopes")]
    TooLong,
    /// The token would expire at once, like the one that authenticated the request.
    #[error("the token that came with this has expired; log in again")]
    Over,
    /// The system has no randomness, or too little memory.
    #[error("no token can be made now")]
    Failed,
}

/// Returns whether a text is a token of a store, valid or not.
pub fn is_ours(token: &str) -> bool {
    token.starts_with(PREFIX)
}

/// A secret of 32 bytes.
pub struct TokenKey {
    id: [u8; ID_BYTES],
    key: LessSafeKey,
}

impl TokenKey {
    /// Makes a key from random bytes.
    pub fn new(secret: &[u8; KEY_BYTES]) -> Self {
        let mut context = digest::Context::new(&SHA256);
        context.update(b"sealgate token key identifier\0");
        context.update(secret);
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&context.finish().as_ref()[..ID_BYTES]);
        let key = UnboundKey::new(&AES_256_GCM_SIV, secret).expect("the algorithm's keys have 32 bytes");
        Self { id, key: LessSafeKey::new(key) }
    }
}

/// Shows the identifier, which reveals nothing about the key.
impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({})", URL_SAFE_NO_PAD.encode(self.id))
    }
}

impl PartialEq for TokenKey {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// The keys of a store: the first one seals, and all of them open. So a new key can be added before an old one is
/// removed.
#[derive(Debug, PartialEq)]
pub struct TokenKeys {
    sealing: TokenKey,
    others: Vec<TokenKey>,
}

impl TokenKeys {
    /// Makes the set; the first key seals.
    pub fn new(sealing: TokenKey, others: Vec<TokenKey>) -> Self {
        Self { sealing, others }
    }

    /// Seals claims into a token.
    ///
    /// # Errors
    /// The token would be too long, or there is no randomness.
    pub fn seal(&self, claims: &Claims) -> Result<SecretString, SealError> {
        let Claims { principal, scopes, upstream, expires_at } = claims;
        let sealed = Sealed {
            principal: principal.clone(),
            scopes: scopes.clone(),
            upstream: upstream.as_ref().map(|upstream| upstream.expose_secret().into()),
            expires: expires_at.as_second(),
        };
        let mut text = serde_json::to_vec(&sealed).map_err(|_| SealError::Failed)?;
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| SealError::Failed)?;
        let head = head(self.sealing.id);
        let sealed =
            self.sealing.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(head), &mut text);
        sealed.map_err(|_| SealError::Failed)?;
        let mut token = PREFIX.to_owned();
        URL_SAFE_NO_PAD.encode_string([&head, nonce.as_slice(), &text].concat(), &mut token);
        if token.len() > MAX_TOKEN_BYTES { Err(SealError::TooLong) } else { Ok(token.into()) }
    }

    /// Opens a token.
    ///
    /// # Errors
    /// The token is not from this store, or has expired.
    pub fn open(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        let encoded = token.strip_prefix(PREFIX).ok_or(TokenError::Unknown)?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Unknown);
        }
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Unknown)?;
        let (found, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or(TokenError::Unknown)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or(TokenError::Unknown)?;
        let mut keys = std::iter::once(&self.sealing).chain(&self.others);
        let key = keys.find(|key| head(key.id) == found).ok_or(TokenError::Unknown)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| TokenError::Unknown)?;
        let mut text = sealed.to_vec();
        let text = key.key.open_in_place(nonce, Aad::from(head(key.id)), &mut text);
        let text = text.map_err(|_| TokenError::Unknown)?;
        let Sealed { principal, scopes, upstream, expires } =
            serde_json::from_slice(text).map_err(|_| TokenError::Unknown)?;
        let expires_at = Timestamp::from_second(expires).map_err(|_| TokenError::Unknown)?;
        if now >= expires_at {
            return Err(TokenError::Expired);
        }
        Ok(Claims { principal, scopes, upstream: upstream.map(|upstream| upstream.into_owned().into()), expires_at })
    }
}

fn head(id: [u8; ID_BYTES]) -> [u8; HEAD_BYTES] {
    let mut head = [VERSION; HEAD_BYTES];
    head[1..].copy_from_slice(&id);
    head
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_the_same_if_their_secrets_are() {
        assert!(key(1) == key(1) && key(1) != key(2));
    }

    fn key(secret: u8) -> TokenKey {
        TokenKey::new(&[secret; KEY_BYTES])
    }

    fn keys(sealing: u8, others: &[u8]) -> TokenKeys {
        TokenKeys::new(key(sealing), others.iter().copied().map(key).collect())
    }

    fn now() -> Timestamp {
        "2027-01-31T12:00:00.5Z".parse().unwrap()
    }

    fn claims() -> Claims {
        let principal = Principal {
            name: Some("system:serviceaccount:ci:robot".into()),
            uid: Some("1".into()),
            groups: vec!["system:authenticated".into()],
            extra: [("k".into(), vec!["v".into()])].into(),
        };
        let scopes = Scopes::parse(["repository:acme/web:pull,push"]).unwrap();
        Claims { principal, scopes, upstream: Some("Bearer upstream-secret".into()), expires_at: now() + TOKEN_TTL }
    }

    fn sealed(keys: &TokenKeys, claims: &Claims) -> String {
        keys.seal(claims).unwrap().expose_secret().to_owned()
    }

    #[test]
    fn a_token_says_what_was_sealed_in_it() {
        let token = sealed(&keys(1, &[]), &claims());
        assert!(is_ours(&token) && !is_ours("eyJhbGciOi"));
        let opened = keys(1, &[]).open(&token, now()).unwrap();
        assert_eq!(opened.principal, claims().principal);
        assert_eq!(opened.scopes, claims().scopes);
        assert_eq!(opened.upstream.unwrap().expose_secret(), "Bearer upstream-secret");
        assert_eq!(opened.expires_at.as_second(), claims().expires_at.as_second());
        let bare = Claims { principal: Principal::anonymous(), scopes: Scopes::default(), upstream: None, ..claims() };
        let opened = keys(1, &[]).open(&sealed(&keys(1, &[]), &bare), now()).unwrap();
        assert!(opened.principal.is_anonymous() && opened.upstream.is_none());
    }

    #[test]
    fn nothing_in_it_can_be_read_without_the_key_and_none_is_like_another() {
        let (first, second) = (sealed(&keys(1, &[]), &claims()), sealed(&keys(1, &[]), &claims()));
        assert_ne!(first, second);
        let bytes = URL_SAFE_NO_PAD.decode(first.strip_prefix(PREFIX).unwrap()).unwrap();
        for secret in ["robot", "upstream-secret"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
        }
        assert!(!format!("{:?}{:?}", claims(), keys(1, &[])).contains("upstream-secret"));
    }

    #[test]
    fn it_is_over_when_its_time_is() {
        let token = sealed(&keys(1, &[]), &claims());
        let last = "2027-01-31T12:04:59.999Z".parse().unwrap();
        assert!(keys(1, &[]).open(&token, last).is_ok());
        let over = "2027-01-31T12:05:00Z".parse().unwrap();
        assert_eq!(keys(1, &[]).open(&token, over).unwrap_err(), TokenError::Expired);
    }

    #[test]
    fn an_old_key_opens_beside_a_new_one_and_not_after_it_was_removed() {
        let token = sealed(&keys(1, &[]), &claims());
        assert!(keys(2, &[3, 1]).open(&token, now()).is_ok());
        assert_eq!(keys(2, &[3]).open(&token, now()).unwrap_err(), TokenError::Unknown);
        assert!(keys(1, &[]).open(&sealed(&keys(2, &[1]), &claims()), now()).is_err(), "the first one seals");
    }

    #[test]
    fn a_token_that_was_changed_anywhere_or_cut_is_not_ours() {
        let keys = keys(1, &[]);
        let token = sealed(&keys, &claims());
        let bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX).unwrap()).unwrap();
        let encoded = |bytes: &[u8]| format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            assert_eq!(keys.open(&encoded(&changed), now()).unwrap_err(), TokenError::Unknown, "byte {position}");
            assert_eq!(keys.open(&encoded(&bytes[..position]), now()).unwrap_err(), TokenError::Unknown);
        }
        for other in [token.trim_start_matches(PREFIX), "", PREFIX, "sealgate_!", &format!("{token}=")] {
            assert_eq!(keys.open(other, now()).unwrap_err(), TokenError::Unknown, "{other}");
        }
    }

    #[test]
    fn what_does_not_fit_is_no_token() {
        let upstream = SecretString::from("x".repeat(MAX_TOKEN_BYTES));
        let long = Claims { upstream: Some(upstream), ..claims() };
        assert_eq!(keys(1, &[]).seal(&long).unwrap_err(), SealError::TooLong);
        let fits = Claims { upstream: Some("x".repeat(5 << 10).into()), ..claims() };
        assert!(keys(1, &[]).open(&sealed(&keys(1, &[]), &fits), now()).is_ok());
    }

    #[test]
    fn a_token_may_have_all_of_its_length_and_no_byte_more() {
        let keys = keys(1, &[]);
        let of = |length: usize| keys.seal(&Claims { upstream: Some("x".repeat(length).into()), ..claims() });
        let fits = (0..MAX_TOKEN_BYTES).rev().find(|&length| of(length).is_ok()).unwrap();
        let longest = of(fits).unwrap();
        assert_eq!(longest.expose_secret().len(), MAX_TOKEN_BYTES);
        let opened = keys.open(longest.expose_secret(), now()).unwrap();
        assert_eq!(opened.upstream.unwrap().expose_secret().len(), fits);
        assert_eq!(of(fits + 1).unwrap_err(), SealError::TooLong);
        // Sealed by hand, with nothing amiss but its length.
        let sealed = Sealed {
            principal: claims().principal,
            scopes: claims().scopes,
            upstream: Some("x".repeat(fits + 1).into()),
            expires: claims().expires_at.as_second(),
        };
        let mut text = serde_json::to_vec(&sealed).unwrap();
        let (nonce, head) = ([7; NONCE_LEN], head(keys.sealing.id));
        let key = &keys.sealing.key;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(head), &mut text).unwrap();
        let long = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([&head, nonce.as_slice(), &text].concat()));
        assert_eq!(keys.open(&long, now()).unwrap_err(), TokenError::Unknown);
    }

    proptest! {
        #[test]
        fn opening_never_panics(text in "\\PC{0,60}|sealgate_[A-Za-z0-9_-]{0,120}") {
            prop_assert!(keys(1, &[2]).open(&text, now()).is_err());
        }
    }
}
