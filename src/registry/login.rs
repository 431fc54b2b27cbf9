//! Credentials for a registry: a password or an identity token.

use std::path::PathBuf;

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use crate::files::ReadError;

/// The word that Docker writes in place of a user name when the password is an identity token.
const TOKEN_USER: &str = "<token>";

/// Credentials for a registry.
#[derive(Clone, Debug)]
pub(crate) enum Login {
    /// Name and password.
    Password { username: Box<str>, password: SecretString },
    /// An `OAuth2` refresh token ("identity token").
    IdentityToken(SecretString),
}

/// Why credentials that are configured can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    #[error("{path}: {source}", path = escaped(&path.display()))]
    Read { path: PathBuf, source: ReadError },
    #[error("{path} must hold text", path = escaped(&path.display()))]
    NotText { path: PathBuf },
    #[error("{path} is not a Docker configuration file", path = escaped(&path.display()))]
    NotDockerConfig { path: PathBuf },
    #[error("in {path}, the entry for this registry is not base64 of name:password", path = escaped(&path.display()))]
    Auth { path: PathBuf },
    #[error(
        "in {path}, the credential helper for this registry has no name of letters, digits, '.', '_' and '-'",
        path = escaped(&path.display())
    )]
    HelperName { path: PathBuf },
}

impl Login {
    /// The value of `Authorization` for HTTP's Basic scheme; nothing for what is no password.
    pub(crate) fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { username, password } = self else { return None };
        let text = STANDARD.encode(format!("{username}:{}", password.expose_secret()));
        let mut value = HeaderValue::from_str(&format!("Basic {text}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// A name and a password, or the token that stands in their place. An entry without anything in it says that a helper has
/// the password.
pub(super) fn login(username: String, password: SecretString) -> Option<Login> {
    if username == TOKEN_USER {
        return Some(Login::IdentityToken(password));
    }
    (!username.is_empty()).then(|| Login::Password { username: username.into(), password })
}

/// Returns a text of a file, an environment or a program without what could lead a terminal or a reader astray.
pub(super) fn escaped(text: &(impl ToString + ?Sized)) -> String {
    let is_plain = |character: char| matches!(character, '"' | '\'' | '\\');
    let mut plain = String::new();
    for character in text.to_string().chars() {
        if is_plain(character) { plain.push(character) } else { plain.extend(character.escape_debug()) }
    }
    plain
}
