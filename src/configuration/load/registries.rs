//! Checks the `registries` section.

use std::{collections::HashMap, sync::Arc};

use url::Url;

use super::checker::{Checker, flatten};
use crate::configuration::{
    Credentials, Registries, Registry, SignatureSource,
    document::{RawCredentials, RawRegistry, RawSource},
};
use crate::diagnostic::Span;
use crate::image::{Scope, ScopeMap};
use crate::yaml::{Lenient, Located};

impl Checker<'_> {
    pub(super) fn registries(&mut self, raw: Vec<Lenient<RawRegistry>>) -> Registries {
        let mut entries = ScopeMap::default();
        let mut places: HashMap<Scope, Span> = HashMap::new();
        for raw in raw.into_iter().filter_map(|Lenient(raw)| raw) {
            let place = raw.scope.place;
            let Some(registry) = self.registry(raw) else { continue };
            let scope = registry.scope.clone();
            if let Some(&first) = places.get(&scope) {
                let mistake = self.source.mistake(place, format!("two entries have the scope {scope}"));
                let mistake = mistake.related(self.source.name, first, "it stands here first");
                self.mistakes.push(mistake.suggest("the most specific scope's entry holds alone; put them together"));
                continue;
            }
            places.insert(scope.clone(), place);
            let _ = entries.insert(scope, Arc::new(registry));
        }
        Registries { entries, logins: None }
    }

    fn registry(&mut self, raw: RawRegistry) -> Option<Registry> {
        let RawRegistry { scope, ca_file, insecure, credentials, token_realms, signatures, mirrors } = raw;
        let before = self.mistakes.len();
        let scope_place = scope.place;
        let scope = match Scope::parse(&scope) {
            Ok(Scope::Digest(repository, _)) => {
                let message = "an entry is about a registry or a part of it, not about one image";
                self.mistake_with_help(scope.place, message, format!("write {repository}"));
                None
            }
            Ok(scope) => Some(scope),
            Err(error) => {
                self.mistake(scope.place, format!("this is not a scope: {error}"));
                None
            }
        };
        let ca_file = ca_file.map(|path| self.path(&path));
        let credentials = credentials.map(|credentials| self.credentials(credentials));
        let token_realms = token_realms.iter().filter_map(|realm| self.token_realm(realm, insecure)).collect();
        let signatures = signatures.map(|sources| self.signatures(sources));
        if !mirrors.is_empty() && scope.as_ref().is_some_and(|scope| !matches!(scope, Scope::Prefix(_))) {
            let message =
                "mirrors hold copies of what lies below one host or namespace, and this scope covers many hosts";
            self.mistake_with_help(scope_place, message, "give each host an entry");
        }
        let mirrors = mirrors.iter().filter_map(|mirror| self.mirror(mirror)).collect();
        if self.mistakes.len() > before {
            return None;
        }
        Some(Registry {
            scope: scope?,
            ca_file: flatten(ca_file)?,
            insecure,
            scheme: None,
            credentials: flatten(credentials)?,
            token_realms,
            signatures,
            mirrors,
        })
    }

    fn mirror(&mut self, text: &Located<Box<str>>) -> Option<Box<str>> {
        match Scope::parse(text) {
            Ok(Scope::Prefix(prefix)) => return Some(prefix),
            Ok(_) => self.mistake(text.place, "this is not a mirror: it is a host, or a host and a path"),
            Err(error) => self.mistake(text.place, format!("this is not a mirror: {error}")),
        }
        None
    }

    fn credentials(&mut self, raw: Located<RawCredentials>) -> Option<Credentials> {
        let Located { value, key, .. } = raw;
        let RawCredentials { username, password_file, docker_config, password } = value;
        if let Some(password) = password {
            let message = "a password does not stand in the configuration";
            self.mistake_with_help(password.key, message, "put it into a file, and write passwordFile: PATH");
            return None;
        }
        match (username, password_file, docker_config) {
            (None, None, Some(path)) => self.path(&path).map(Credentials::DockerConfig),
            (Some(username), Some(path), None) => {
                if username.is_empty() || username.contains(':') {
                    self.mistake(username.place, "a user name is not empty and has no colon");
                    return None;
                }
                let password_file = self.path(&path)?;
                Some(Credentials::Password { username: username.value, password_file })
            }
            _ => {
                self.mistake_with_help(
                    key,
                    "credentials are either a user name and a password file, or a Docker configuration file",
                    "write {username: NAME, passwordFile: PATH} or {dockerConfig: PATH}",
                );
                None
            }
        }
    }

    pub(super) fn token_realm(&mut self, text: &Located<Box<str>>, insecure: bool) -> Option<Url> {
        let url = self.url(text, if insecure { &["https", "http"] } else { &["https"] })?;
        if url.path() != "/" {
            let message = "a token realm is named by its origin; paths don't count";
            self.mistake_with_help(text.place, message, format!("write {}", url.origin().ascii_serialization()));
            return None;
        }
        Some(url)
    }

    fn signatures(&mut self, raw: Located<Vec<Located<Lenient<RawSource>>>>) -> Vec<SignatureSource> {
        if raw.is_empty() {
            let message = "signatures names no source, so no image would be signed";
            self.mistake_with_help(raw.key, message, "leave it out to ask the registry's own extension");
        }
        let mut sources = Vec::new();
        for Located { value: Lenient(raw), place, .. } in raw.value {
            let source = match raw {
                None => None,
                Some(RawSource::Extension(extension)) => match extension.url {
                    None => Some(SignatureSource::RegistryExtension),
                    Some(url) => self.server(&url, &["https", "http"]).map(SignatureSource::Extension),
                },
                Some(RawSource::Lookaside(lookaside)) => {
                    self.server(&lookaside.url, &["https", "http", "file"]).map(SignatureSource::Lookaside)
                }
            };
            let Some(source) = source else { continue };
            if sources.contains(&source) {
                self.mistake(place, "this source stands twice");
            } else {
                sources.push(source);
            }
        }
        sources
    }
}
