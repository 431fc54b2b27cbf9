//! Credentials for a registry: a password or an identity token.

use std::path::PathBuf;

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use crate::files::ReadError;

/// The user name that Docker writes if the password is an identity token.
const TOKEN_USER: &str = "<token>";

/// Credentials for a registry.
#[derive(Clone, Debug)]
pub(crate) enum Login {
    /// A name and a password.
    Password { username: Box<str>, password: SecretString },
    /// An `OAuth2` refresh token ("identity token").
    IdentityToken(SecretString),
}

/// The reason why configured credentials can't be used.
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
    /// Returns the `Authorization` header of HTTP's Basic scheme; `None` for an identity token.
    pub(crate) fn basic(&self) -> Option<HeaderValue> {
        let Self::Password { username, password } = self else { return None };
        let text = STANDARD.encode(format!("{username}:{}", password.expose_secret()));
        let mut value = HeaderValue::from_str(&format!("Basic {text}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// Makes a login from a name and a password, or from an identity token in place of the password. Returns `None` for an
/// empty entry, which means that a helper has the password.
pub(super) fn login(username: String, password: SecretString) -> Option<Login> {
    if username == TOKEN_USER {
        return Some(Login::IdentityToken(password));
    }
    (!username.is_empty()).then(|| Login::Password { username: username.into(), password })
}

/// Escapes characters of a file's, environment's or program's text that could mislead a terminal or a reader.
pub(super) fn escaped(text: &(impl ToString + ?Sized)) -> String {
    let is_plain = |character: char| matches!(character, '"' | '\'' | '\\');
    let mut plain = String::new();
    for character in text.to_string().chars() {
        if is_plain(character) { plain.push(character) } else { plain.extend(character.escape_debug()) }
    }
    plain
}
