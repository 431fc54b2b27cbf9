//! Parses login files: Docker's config.json and .dockercfg, podman's auth.json (containers-auth.json(5)).

use std::{collections::BTreeMap, path::Path};

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::login::{CredentialsError, Login, login};
use crate::base64_text;
use crate::configuration::LoginFormat;
use crate::image::{
    Repository,
    host::{DOCKER_HUB, canonical_host},
};
use crate::json;

/// The name by which Docker's tools ask credential helpers for Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// A login file. Entries are independent: a malformed entry of another host does no harm.
pub(super) struct LoginFile<'a> {
    path: &'a Path,
    format: LoginFormat,
    auths: BTreeMap<String, &'a RawValue>,
    store: Option<String>,
    helpers: BTreeMap<String, &'a RawValue>,
}

/// The source of a registry's credentials, as a login file has it.
#[derive(Debug)]
pub(super) enum LoginSource {
    /// Credentials in the file itself.
    Login(Login),
    /// A credential helper.
    Helper {
        /// The part of its name after `docker-credential-`.
        name: Box<str>,
        /// The names by which the helper may know the registry, the most likely first.
        servers: Vec<String>,
    },
    /// The file has no credentials for this registry.
    Nothing,
}

/// The relevant members. `null` counts as absent; other members are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LoginDocument<'a> {
    #[serde(borrow, default)]
    auths: Option<BTreeMap<String, &'a RawValue>>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(borrow, default)]
    cred_helpers: Option<BTreeMap<String, &'a RawValue>>,
}

/// An entry of `auths`.
#[derive(Default, Deserialize)]
struct AuthEntry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

impl<'a> LoginFile<'a> {
    /// Parses the text of a file. The path is for error messages, which repeat nothing of the text.
    pub(super) fn parse(path: &'a Path, format: LoginFormat, text: &'a str) -> Result<Self, CredentialsError> {
        let failed = |_| CredentialsError::NotDockerConfig { path: path.to_owned() };
        let LoginDocument { auths, creds_store, cred_helpers } = match format {
            LoginFormat::Current => json::from_object(text.as_bytes()).map_err(failed)?,
            LoginFormat::Old => {
                let auths = Some(serde_json::from_str(text).map_err(failed)?);
                LoginDocument { auths, creds_store: None, cred_helpers: None }
            }
        };
        let (auths, helpers) = (auths.unwrap_or_default(), cred_helpers.unwrap_or_default());
        Ok(Self { path, format, auths, store: creds_store.filter(|name| !name.is_empty()), helpers })
    }

    /// Returns whether the file names credential helpers.
    pub(super) fn has_helpers(&self) -> bool {
        self.store.is_some() || !self.helpers.is_empty()
    }

    /// Returns the credentials in the file itself.
    pub(super) fn login(&self, repository: &Repository) -> Result<Option<Login>, CredentialsError> {
        match self.entry(repository) {
            Some((_, entry)) => login_of(self.path, entry),
            None => Ok(None),
        }
    }

    /// Finds the source of a repository's credentials: first the registry's own helper, then an entry in the file, then
    /// the helper for all registries.
    pub(super) fn find(&self, repository: &Repository) -> Result<LoginSource, CredentialsError> {
        let host = repository.host();
        let own = self.helpers.get_key_value(host);
        let own =
            own.or_else(|| self.helpers.iter().find(|(key, _)| bare_host(key, false).is_some_and(|key| key == host)));
        if let Some((key, name)) = own {
            let name: Option<String> = serde_json::from_str(name.get())
                .map_err(|_| CredentialsError::NotDockerConfig { path: self.path.to_owned() })?;
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                return self.helper(&name, repository, Some(key));
            }
        }
        if let Some(login) = self.login(repository)? {
            return Ok(LoginSource::Login(login));
        }
        match &self.store {
            Some(name) => self.helper(name, repository, self.entry(repository).map(|(key, _)| key)),
            None => Ok(LoginSource::Nothing),
        }
    }

    fn helper(&self, name: &str, repository: &Repository, key: Option<&str>) -> Result<LoginSource, CredentialsError> {
        if !is_helper_name(name) {
            return Err(CredentialsError::HelperName { path: self.path.to_owned() });
        }
        let host = repository.host();
        let mut servers: Vec<String> = if host == DOCKER_HUB { vec![DOCKER_HUB_KEY.to_owned()] } else { Vec::new() };
        // Helpers know only whole registries.
        for server in [Some(host), key.filter(|key| bare_host(key, false).is_some_and(|key| key == host))] {
            servers.extend(server.filter(|server| servers.iter().all(|known| known != server)).map(str::to_owned));
        }
        Ok(LoginSource::Helper { name: name.into(), servers })
    }

    /// Returns the entry with the most specific key: `host/namespace/repo`, then each namespace above it, then the
    /// host. Other spellings of the host come last, among them Docker's old keys with a scheme.
    fn entry(&self, repository: &Repository) -> Option<(&str, &RawValue)> {
        let is_old = self.format == LoginFormat::Old;
        let mut key = if is_old { repository.host() } else { repository.as_str() };
        loop {
            if let Some((key, found)) = self.auths.get_key_value(key) {
                return Some((key, found));
            }
            match key.rfind('/') {
                Some(slash) => key = &key[..slash],
                None => break,
            }
        }
        let host = repository.host();
        let found = self.auths.iter().find(|(key, _)| bare_host(key, is_old).is_some_and(|key| key == host));
        found.map(|(key, found)| (key.as_str(), *found))
    }
}

fn login_of(path: &Path, entry: &RawValue) -> Result<Option<Login>, CredentialsError> {
    let entry: Option<AuthEntry> =
        serde_json::from_str(entry.get()).map_err(|_| CredentialsError::NotDockerConfig { path: path.to_owned() })?;
    let AuthEntry { auth, username, password, identitytoken } = entry.unwrap_or_default();
    let is_there = |text: &String| !text.is_empty();
    let (username, password) = match auth.filter(is_there) {
        None => (username.unwrap_or_default(), password.unwrap_or_default().into()),
        Some(auth) => {
            let bad = || CredentialsError::Auth { path: path.to_owned() };
            let plain = base64_text::decode(auth.trim()).map_err(|_| bad())?;
            let plain = String::from_utf8(plain).map_err(|_| bad())?;
            let (username, password) = plain.split_once(':').ok_or_else(bad)?;
            // Docker pads the password with NULs.
            (username.to_owned(), SecretString::from(password.trim_end_matches('\0')))
        }
    };
    if let Some(token) = identitytoken.filter(is_there) {
        return Ok(Some(Login::IdentityToken(token.into())));
    }
    Ok(login(username, password))
}

/// Returns whether a helper may have this name, which becomes the end of a program's name.
fn is_helper_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(plain)
}

/// Returns the host of a key such as `https://index.docker.io/v1/`, or of a host in another spelling. In old files
/// (`is_old`), keys without a scheme may have a path, too.
fn bare_host(key: &str, is_old: bool) -> Option<String> {
    let without = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let host = match without {
        None if key.contains('/') && !is_old => return None,
        without => without.unwrap_or(key).split('/').next().unwrap_or_default(),
    };
    // The other hosts of Docker Hub become docker.io here.
    canonical_host(host).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;

    fn find(format: LoginFormat, text: &str, repository: &str) -> Result<String, CredentialsError> {
        let file = LoginFile::parse(Path::new("auth.json"), format, text)?;
        Ok(match file.find(&Repository::parse(repository).unwrap())? {
            LoginSource::Login(Login::Password { username, password }) => {
                format!("{username}:{}", password.expose_secret())
            }
            LoginSource::Login(Login::IdentityToken(token)) => format!("token {}", token.expose_secret()),
            LoginSource::Helper { name, servers } => format!("{name} of {}", servers.join(" ")),
            LoginSource::Nothing => "nothing".to_owned(),
        })
    }

    #[test]
    fn a_registrys_helper_goes_before_the_files_login_and_that_before_the_global_helper() {
        let text = r#"{
            "auths": {
                "a.example.com": {"auth": "YTpi"},
                "b.example.com": {},
                "https://c.example.com/v2/": {},
                "d.example.com": null,
                "d.example.com/acme": {"auth": "ZDpl"}
            },
            "credsStore": "all",
            "credHelpers": {"own.example.com": "own", "a.example.com:5000": "own", "https://e.example.com": "e",
                "null.example.com": null, "empty.example.com": "", "index.docker.io": "hub"}
        }"#;
        for (repository, expected) in [
            ("a.example.com/x", "a:b"),
            ("a.example.com:5000/x", "own of a.example.com:5000"),
            ("own.example.com/x/y", "own of own.example.com"),
            ("b.example.com/x", "all of b.example.com"),
            ("c.example.com/x", "all of c.example.com https://c.example.com/v2/"),
            ("d.example.com/acme/web", "d:e"),
            ("d.example.com/other", "all of d.example.com"),
            ("e.example.com/x", "e of e.example.com https://e.example.com"),
            ("null.example.com/x", "all of null.example.com"),
            ("empty.example.com/x", "all of empty.example.com"),
            ("other.example.com/x", "all of other.example.com"),
            ("nginx", "hub of https://index.docker.io/v1/ docker.io index.docker.io"),
        ] {
            assert_eq!(find(LoginFormat::Current, text, repository).unwrap(), expected, "{repository}");
        }
        assert_eq!(find(LoginFormat::Current, r#"{"credsStore": ""}"#, "a.example.com/x").unwrap(), "nothing");
    }

    #[test]
    fn a_helpers_name_is_a_name_and_no_path_or_option() {
        for name in ["../x", "/bin/sh", "a b", "a;b", "$(x)", "a\\u0000", "ü", &"x".repeat(65), "x\\n"] {
            for text in [
                format!(r#"{{"credsStore": "{name}"}}"#),
                format!(r#"{{"credHelpers": {{"a.example.com": "{name}"}}}}"#),
            ] {
                let outcome = find(LoginFormat::Current, &text, "a.example.com/x");
                assert!(matches!(outcome, Err(CredentialsError::HelperName { .. })), "{text}: {outcome:?}");
            }
            // Of another registry, it does no harm.
            let text = format!(
                r#"{{"auths": {{"a.example.com": {{"auth": "YTpi"}}}}, "credHelpers": {{"b.example.com": "{name}"}}}}"#
            );
            assert_eq!(find(LoginFormat::Current, &text, "a.example.com/x").unwrap(), "a:b", "{text}");
        }
        for name in ["ecr-login", "gcr", "osxkeychain", "a.b_c-9", &"x".repeat(64)] {
            let text = format!(r#"{{"credsStore": "{name}"}}"#);
            assert_eq!(
                find(LoginFormat::Current, &text, "a.example.com/x").unwrap(),
                format!("{name} of a.example.com")
            );
        }
        let number = find(LoginFormat::Current, r#"{"credHelpers": {"a.example.com": 7}}"#, "a.example.com/x");
        assert!(matches!(number, Err(CredentialsError::NotDockerConfig { .. })), "{number:?}");
    }

    #[test]
    fn an_old_file_has_the_hosts_at_its_top() {
        let text = r#"{"https://index.docker.io/v1/": {"auth": "aDpi", "email": "x"}, "a.example.com/v1/": {"auth": "YTpi"},
            "b.example.com/acme": {"auth": "YjpjCg=="}, "c.example.com": {"auth": "Yzpk"}, "credsStore": {"auth": "eDp5"}}"#;
        for (repository, expected) in [
            ("nginx", "h:b"),
            ("a.example.com/x", "a:b"),
            ("b.example.com/acme", "b:c\n"),
            ("b.example.com/x", "b:c\n"),
            ("c.example.com/x", "c:d"),
            ("d.example.com/x", "nothing"),
        ] {
            assert_eq!(find(LoginFormat::Old, text, repository).unwrap(), expected, "{repository}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,60}|\\{\"(auths|credHelpers|credsStore)\": ?[\\{\\}\\[\\]\":a-z0-9.,= ]{0,60}\\}") {
            for format in [LoginFormat::Current, LoginFormat::Old] {
                let _ = find(format, &text, "a.example.com/x");
            }
        }
    }
}
