//! Credentials: read from their files when they are needed, so that a rotated password is seen.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Once,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::configuration::Credentials;
use crate::files::{ReadError, read_bounded};
use crate::image::{Repository, host::canonical_host};

/// The largest password file.
const LARGEST_PASSWORD_FILE: u64 = 64 << 10;
/// The largest Docker configuration file.
const LARGEST_DOCKER_CONFIG: u64 = 1 << 20;
/// What Docker writes in place of a user name when the password is an identity token.
const TOKEN_USER: &str = "<token>";

/// What whoever gave a command none for a server is told.
pub(crate) const NEEDED: &str = "credentials are needed (--creds, --authfile; for another host than the image's, in its \
                                 registries entry: --config)";

/// What proves who we are.
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
    #[error("{path} can't be read", path = path.display())]
    Read { path: PathBuf, source: ReadError },
    #[error("{path} must hold text", path = path.display())]
    NotText { path: PathBuf },
    #[error("{path} is not a Docker configuration file", path = path.display())]
    NotDockerConfig { path: PathBuf },
    #[error("in {path}, the entry for this registry is not base64 of name:password", path = path.display())]
    Auth { path: PathBuf },
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

/// Reads what is configured for a repository. Nothing: no credentials are there for it.
///
/// It may hang with the file's disk: not for the runtime's workers.
pub(crate) fn read(credentials: &Credentials, repository: &Repository) -> Result<Option<Login>, CredentialsError> {
    match credentials {
        Credentials::Given { username, password } => {
            Ok(Some(Login::Password { username: username.clone(), password: password.clone() }))
        }
        Credentials::Password { username, password_file } => {
            let password = read_file(password_file, LARGEST_PASSWORD_FILE)?;
            let line = password.expose_secret();
            let line = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
            Ok(Some(Login::Password { username: username.clone(), password: line.into() }))
        }
        Credentials::DockerConfig(path) => {
            let text = read_file(path, LARGEST_DOCKER_CONFIG)?;
            from_docker_config(path, text.expose_secret(), repository)
        }
    }
}

/// Whether a Docker configuration file can be used for a repository; it may well have no credentials for it.
pub(crate) fn check_docker_config(path: &Path, repository: &Repository) -> Result<(), CredentialsError> {
    let text = read_file(path, LARGEST_DOCKER_CONFIG)?;
    from_docker_config(path, text.expose_secret(), repository).map(drop)
}

fn read_file(path: &Path, limit: u64) -> Result<SecretString, CredentialsError> {
    let bytes = read_bounded(path, limit).map_err(|source| CredentialsError::Read { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map(SecretString::from).map_err(|_| CredentialsError::NotText { path: path.to_owned() })
}

/// Docker's config.json, as far as containers-auth.json(5) has it. Other members are not ours to judge.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
struct DockerAuth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

fn from_docker_config(path: &Path, text: &str, repository: &Repository) -> Result<Option<Login>, CredentialsError> {
    static HELPERS: Once = Once::new();
    // The JSON error is left out: it could quote a password.
    let config: DockerConfig =
        serde_json::from_str(text).map_err(|_| CredentialsError::NotDockerConfig { path: path.to_owned() })?;
    if config.creds_store.is_some() || config.cred_helpers.is_some_and(|helpers| !helpers.is_empty()) {
        HELPERS.call_once(|| {
            tracing::warn!(path = %path.display(), "credential helpers (credsStore, credHelpers) are not run; only auths are read");
        });
    }
    let Some(found) = find(&config.auths, repository) else { return Ok(None) };
    let (username, password) = if found.auth.is_empty() {
        (found.username.clone(), SecretString::from(found.password.clone()))
    } else {
        let bad = || CredentialsError::Auth { path: path.to_owned() };
        let plain = STANDARD.decode(found.auth.trim()).map_err(|_| bad())?;
        let plain = String::from_utf8(plain).map_err(|_| bad())?;
        let (username, password) = plain.split_once(':').ok_or_else(bad)?;
        // Docker pads the password with NULs.
        (username.to_owned(), SecretString::from(password.trim_end_matches('\0')))
    };
    if !found.identitytoken.is_empty() {
        return Ok(Some(Login::IdentityToken(found.identitytoken.clone().into())));
    }
    if username == TOKEN_USER {
        return Ok(Some(Login::IdentityToken(password)));
    }
    // An entry without anything in it says that a helper has the password.
    Ok((!username.is_empty()).then(|| Login::Password { username: username.into(), password }))
}

/// The entry of the most specific key: `host/namespace/repo`, each namespace above, the host; then Docker's old keys with a
/// scheme (containers-auth.json(5)).
fn find<'a>(auths: &'a BTreeMap<String, DockerAuth>, repository: &Repository) -> Option<&'a DockerAuth> {
    let mut key = repository.as_str();
    loop {
        if let Some(found) = auths.get(key) {
            return Some(found);
        }
        match key.rfind('/') {
            Some(slash) => key = &key[..slash],
            None => break,
        }
    }
    let host = repository.host();
    auths.iter().find(|(key, _)| bare_host(key).is_some_and(|key| key == host)).map(|(_, found)| found)
}

/// The host of a key such as `https://index.docker.io/v1/`, or of a host that is not written canonically.
fn bare_host(key: &str) -> Option<String> {
    let old = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let host = match old {
        Some(rest) => rest.split_once('/').map_or(rest, |(host, _)| host),
        None if key.contains('/') => return None,
        None => key,
    };
    // Docker Hub's other hosts become docker.io here.
    canonical_host(host).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn login(config: &str, repository: &str) -> Result<Option<Login>, CredentialsError> {
        from_docker_config(Path::new("config.json"), config, &Repository::parse(repository).unwrap())
    }

    fn user(config: &str, repository: &str) -> Option<String> {
        match login(config, repository).unwrap() {
            Some(Login::Password { username, password }) => Some(format!("{username}:{}", password.expose_secret())),
            Some(Login::IdentityToken(token)) => Some(format!("token {}", token.expose_secret())),
            None => None,
        }
    }

    #[test]
    fn the_most_specific_key_of_a_docker_config_wins() {
        let config = r#"{"auths": {
            "r.example.com": {"auth": "aG9zdDpw"},
            "r.example.com/acme": {"auth": "YWNtZTpw"},
            "r.example.com/acme/web": {"username": "web", "password": "p:q"},
            "https://index.docker.io/v1/": {"auth": "aHViOnBAAA=="},
            "https://Old.example.com:5000/v2/": {"auth": "b2xkOnA="}
        }}"#
        .replace("aHViOnBAAA==", &STANDARD.encode("hub:p\0\0"));
        for (repository, expected) in [
            ("r.example.com/x", Some("host:p")),
            ("r.example.com/acme/x", Some("acme:p")),
            ("r.example.com/acmes/x", Some("host:p")),
            ("r.example.com/acme/web", Some("web:p:q")),
            ("r.example.com/acme/web/x", Some("web:p:q")),
            ("r.example.com:5000/acme", None),
            ("other.example.com/acme", None),
            ("nginx", Some("hub:p")),
            ("old.example.com:5000/x", Some("old:p")),
        ] {
            assert_eq!(user(&config, repository).as_deref(), expected, "{repository}");
        }
    }

    #[test]
    fn an_identity_token_is_one_in_both_spellings() {
        let config = r#"{"auths": {"a.example.com": {"auth": "PHRva2VuPjp0", "identitytoken": "secret"},
            "b.example.com": {"username": "<token>", "password": "secret"}}}"#;
        assert_eq!(user(config, "a.example.com/x").as_deref(), Some("token secret"));
        assert_eq!(user(config, "b.example.com/x").as_deref(), Some("token secret"));
    }

    #[test]
    fn an_entry_of_a_helper_has_no_credentials() {
        let config = r#"{"auths": {"a.example.com": {}}, "credsStore": "desktop", "HttpHeaders": {}}"#;
        assert_eq!(user(config, "a.example.com/x"), None);
    }

    #[test]
    fn a_broken_docker_config_is_an_error_that_quotes_nothing() {
        for config in [r#"{"auths": {"a.example.com": {"auth": "secret!"}}}"#, r#"{"auths": "secret"}"#, "secret"] {
            let error = login(config, "a.example.com/x").unwrap_err();
            assert!(!format!("{error:?} {error}").contains("secret"));
        }
        assert!(matches!(
            login(r#"{"auths": {"a.example.com": {"auth": "bm9jb2xvbg=="}}}"#, "a.example.com/x"),
            Err(CredentialsError::Auth { .. })
        ));
    }

    #[test]
    fn a_password_file_is_read_again_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let repository = Repository::parse("r.example.com/x").unwrap();
        let credentials = Credentials::Password { username: "robot".into(), password_file: file.clone() };
        assert!(matches!(read(&credentials, &repository), Err(CredentialsError::Read { .. })));
        for (content, expected) in [("one\n", "one"), ("two \r\n", "two "), ("three", "three")] {
            fs::write(&file, content).unwrap();
            let Some(Login::Password { password, .. }) = read(&credentials, &repository).unwrap() else {
                panic!("no password")
            };
            assert_eq!(password.expose_secret(), expected);
        }
        fs::write(&file, "x".repeat(1 << 20)).unwrap();
        assert!(matches!(
            read(&credentials, &repository),
            Err(CredentialsError::Read { source: ReadError::TooLarge { .. }, .. })
        ));
    }

    #[test]
    fn secrets_do_not_print() {
        let login = Login::Password { username: "robot".into(), password: "hunter2".into() };
        assert!(!format!("{login:?} {:?}", login.basic()).contains("hunter2"));
        assert!(!format!("{:?}", login.basic()).contains("cm9ib3Q"));
    }
}
