//! From the file to the checked configuration.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use url::{Host, Url};

use super::{
    Access, Caches, Certificate, ClientCertificate, Configuration, Credentials, Etcd, EtcdUser, Gateway, Limits,
    Network, Registries, Registry, SignatureSource, Store, Upstream, Users, Webhook,
    document::{
        ApiVersion, Kind, RawAccess, RawCaches, RawCertificate, RawConfiguration, RawCredentials, RawEtcd, RawGateway,
        RawKubernetes, RawLimits, RawPin, RawRedb, RawRegistry, RawSize, RawSource, RawStore, RawUpstream, RawWebhook,
    },
};
use crate::diagnostic::{Diagnostic, Place};
use crate::image::{Repository, Scope, ScopeMap};
use crate::policy::{API_VERSION, Mode, SourceFile};
use crate::yaml::{self, Lenient, Located, Source};

/// The API server waits 30 s for a webhook at the most.
const LONGEST_DEADLINE: Duration = Duration::from_secs(29);
/// The most that any limit in bytes can be.
const LARGEST_SIZE: u64 = 1 << 30;
/// The most that any other limit can be.
const LARGEST_COUNT: usize = 100_000;

/// Reads and checks a configuration file.
///
/// # Errors
/// Every mistake that can be found at once. Never empty.
pub fn load(file: &SourceFile) -> Result<Configuration, Vec<Diagnostic>> {
    let text = std::str::from_utf8(&file.bytes).map_err(|error| {
        let good = String::from_utf8_lossy(&file.bytes[..error.valid_up_to()]);
        let place = Place::of_bytes(&good, good.len()..good.len());
        vec![hide_secrets(Diagnostic::at(&file.name, &good, place, "the file is not UTF-8 here"))]
    })?;
    load_text(Source { name: &file.name, text }, &file.folder)
        .map_err(|mistakes| mistakes.into_iter().map(|mistake| hide_secrets(mistake.showing(text))).collect())
}

fn load_text(source: Source<'_>, folder: &Path) -> Result<Configuration, Vec<Diagnostic>> {
    let documents = yaml::parse(source)?;
    let document = match documents.as_slice() {
        [document] => document,
        [] => {
            return Err(vec![
                Diagnostic::of_file(source.name, "the file is empty")
                    .suggest(format!("begin with: apiVersion: {API_VERSION}, kind: Configuration")),
            ]);
        }
        [_, second, ..] => {
            let message = "a configuration file has one document, here begins a second one";
            return Err(vec![source.mistake(second.place, message).suggest("policies stand in files of their own")]);
        }
    };
    if document.get("kind").and_then(yaml::Node::as_text).is_some_and(|kind| kind.ends_with("SealPolicy")) {
        let message = "this is a policy, not the configuration";
        return Err(vec![source.mistake(document.place, message).suggest("name the configuration file with --config")]);
    }
    let (raw, mistakes) = yaml::read::<RawConfiguration>(source, document);
    let mut check = Check { source, folder, mistakes };
    let configuration = raw.and_then(|raw| check.configuration(raw));
    match configuration {
        Some(configuration) if check.mistakes.is_empty() => Ok(configuration),
        _ => {
            check.mistakes.sort_by_key(|mistake| mistake.place);
            Err(check.mistakes)
        }
    }
}

/// Passwords stand in files; where one was written into the configuration by mistake, it must not get into a log.
fn hide_secrets(mut diagnostic: Diagnostic) -> Diagnostic {
    let line = diagnostic.snippet.as_ref().map_or("", |snippet| &*snippet.line);
    let line = format!("{line} {} {}", diagnostic.message, diagnostic.suggestion.as_deref().unwrap_or_default());
    let line = line.to_lowercase();
    let named = ["pass", "pwd", "secret", "credential", "auth"].iter().any(|word| line.contains(word));
    // `user:password@host`, but not `repository@sha256:...`.
    let user = line.split('@').skip(1).any(|rest| !rest.starts_with("sha"));
    if named || user {
        diagnostic.snippet = None;
        diagnostic.message = without_values(&diagnostic.message);
        // A suggestion that repeats what was found would show it too.
        diagnostic.suggestion = diagnostic.suggestion.filter(|text| !text.contains(['@', '[']));
    }
    diagnostic
}

/// A message without the values that it repeats, which stand in quotes. Fields, which do too, are left.
fn without_values(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((before, from)) = rest.split_once('"') {
        let mut escaped = false;
        let end = from.find(|character| {
            let ends = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            ends
        });
        let (value, after) = from.split_at(end.unwrap_or(from.len()));
        let after = after.strip_prefix('"').unwrap_or(after);
        shown.push_str(before);
        let is_field = [" should be ", " is missing", " stands twice"].iter().any(|words| after.starts_with(words))
            || before.ends_with("unknown field ") && !value.contains('@');
        shown.extend(["\"", if is_field { value } else { "..." }, "\""]);
        rest = after;
    }
    shown.push_str(rest);
    shown
}

struct Check<'a> {
    source: Source<'a>,
    folder: &'a Path,
    mistakes: Vec<Diagnostic>,
}

impl Check<'_> {
    fn mistake(&mut self, place: Place, message: impl Into<String>) {
        self.mistakes.push(self.source.mistake(place, message));
    }

    fn mistake_with_help(&mut self, place: Place, message: impl Into<String>, suggestion: impl Into<String>) {
        self.mistakes.push(self.source.mistake(place, message).suggest(suggestion));
    }

    fn configuration(&mut self, raw: RawConfiguration) -> Option<Configuration> {
        let RawConfiguration {
            api_version: ApiVersion::V1,
            kind: Kind::Configuration,
            policies,
            accept_anything_by_default,
            webhook,
            metrics,
            registries,
            caches,
            gateway,
            limits,
        } = raw;
        let policies = policies.map(|path| self.path(&path));
        let webhook_place = webhook.listen.as_ref().map(|listen| listen.place);
        let webhook = self.webhook(webhook);
        let metrics_place = metrics.listen.as_ref().map(|listen| listen.place);
        let metrics = match metrics.listen {
            Some(listen) if &*listen.value == "off" => Some(None),
            listen => self.listen(listen.as_ref(), 9090).map(Some),
        };
        if let (Some(Some(metrics)), Some(webhook)) = (metrics, &webhook)
            && let Some(place) = metrics_place.or(webhook_place)
            && metrics.port() != 0
            && metrics.port() == webhook.listen.port()
            && (metrics.ip() == webhook.listen.ip()
                || metrics.ip().is_unspecified()
                || webhook.listen.ip().is_unspecified())
        {
            let message = format!("webhook and metrics both listen on port {}", metrics.port());
            self.mistake_with_help(place, message, "give each a port of its own");
        }
        let registries = self.registries(registries);
        let caches = caches_of(&caches);
        let gateway = gateway.map(|gateway| self.gateway(gateway));
        let limits = self.limits(&limits);
        Some(Configuration {
            policies: flatten(policies)?,
            accept_anything_by_default,
            webhook: webhook?,
            metrics: metrics?,
            registries,
            caches,
            gateway: flatten(gateway)?,
            limits: limits?,
        })
    }

    /// A path, from the file's folder.
    fn path(&mut self, path: &Located<Box<str>>) -> Option<PathBuf> {
        if path.is_empty() {
            self.mistake(path.place, "a path is expected, found nothing");
            return None;
        }
        Some(self.folder.join(&*path.value))
    }

    fn listen(&mut self, text: Option<&Located<Box<str>>>, default_port: u16) -> Option<SocketAddr> {
        let Some(text) = text else { return Some((Ipv4Addr::UNSPECIFIED, default_port).into()) };
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(address);
        }
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let suggestion = if text.parse::<IpAddr>().is_ok() || port.is_empty() {
            format!(
                "add a port: {}",
                SocketAddr::new(text.parse().unwrap_or(Ipv4Addr::UNSPECIFIED.into()), default_port)
            )
        } else if port.parse::<u16>().is_err() {
            "a port is a number up to 65535".to_owned()
        } else if host.is_empty() || host == "*" {
            format!("write 0.0.0.0:{port}, or [::]:{port}")
        } else if host.eq_ignore_ascii_case("localhost") {
            format!("write 127.0.0.1:{port}")
        } else {
            "write an IP address, not a name; an IPv6 address stands in brackets".to_owned()
        };
        self.mistake_with_help(text.place, format!("{:?} is not an address with a port", text.value), suggestion);
        None
    }

    fn certificate(&mut self, raw: &RawCertificate) -> Option<Certificate> {
        let (chain, key) = (self.path(&raw.file), self.path(&raw.key));
        Some(Certificate::Files { chain: chain?, key: key? })
    }

    fn webhook(&mut self, raw: RawWebhook) -> Option<Webhook> {
        let RawWebhook { listen, certificate, client_ca, deadline, mode, pin, placeholders } = raw;
        let listen = self.listen(listen.as_ref(), 8443);
        let certificate = match certificate {
            Some(certificate) => self.certificate(&certificate),
            None => Some(Certificate::Made { folder: self.folder.join("certs") }),
        };
        let client_ca = client_ca.map(|path| self.path(&path));
        let place = deadline.as_ref().map(|deadline| deadline.place);
        let deadline = deadline.map_or(Duration::from_secs(8), |deadline| deadline.value.0);
        if let Some(place) = place {
            if deadline < Duration::from_millis(100) {
                self.mistake_with_help(place, "no image can be checked within this deadline", "8s is the default");
            } else if deadline > LONGEST_DEADLINE {
                let message = "the deadline must be below the webhook's timeoutSeconds, which is 30 at the most";
                self.mistake_with_help(place, message, "8s goes with timeoutSeconds: 10");
            }
        }
        for placeholder in placeholders.iter().filter(|placeholder| placeholder.is_empty()) {
            let message = "a placeholder is a text that stands in place of an image, found nothing";
            self.mistake_with_help(placeholder.place, message, "Istio's is auto");
        }
        Some(Webhook {
            listen: listen?,
            certificate: certificate?,
            client_ca: flatten(client_ca)?,
            deadline,
            mode: mode.map_or(Mode::Enforce, Into::into),
            pin_required: pin != Some(RawPin::Off),
            placeholders: placeholders.into_iter().map(|placeholder| placeholder.value).collect(),
        })
    }

    fn registries(&mut self, raw: Vec<Lenient<RawRegistry>>) -> Registries {
        let mut entries = ScopeMap::default();
        let mut places: HashMap<Scope, Place> = HashMap::new();
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
        Registries { entries }
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

    fn token_realm(&mut self, text: &Located<Box<str>>, insecure: bool) -> Option<Url> {
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

    /// A URL whose server, if it has one, a registries entry can be about: that says how it is asked, and with what credentials.
    fn server(&mut self, text: &Located<Box<str>>, schemes: &[&str]) -> Option<Url> {
        let url = self.url(text, schemes)?;
        if url.scheme() != "file" && Repository::at(&url, "name").is_none() {
            let message = "no image can be at this URL's host and port, and so no registries entry can be about it";
            let help = "write a DNS name without '_' and without a dot at its end, or an IP address; \
                        no host of Docker Hub's, and not port 443 for plain HTTP";
            self.mistake_with_help(text.place, message, help);
            return None;
        }
        Some(url)
    }

    /// A URL of one of these schemes, with a host (but for `file`), and without user, query and fragment.
    fn url(&mut self, text: &Located<Box<str>>, schemes: &[&str]) -> Option<Url> {
        let known: Vec<String> = schemes
            .iter()
            .map(|scheme| if *scheme == "file" { "file:///path".to_owned() } else { format!("{scheme}://host") })
            .collect();
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => {
                self.mistake_with_help(
                    text.place,
                    format!("this is not a URL: {error}"),
                    format!("write {}", known.join(" or ")),
                );
                return None;
            }
        };
        if !schemes.contains(&url.scheme()) {
            let message = format!("a URL with the scheme {:?} is not taken here", url.scheme());
            self.mistake_with_help(text.place, message, format!("write {}", known.join(" or ")));
            return None;
        }
        let message = if !url.username().is_empty() || url.password().is_some() {
            "a URL has no user and no password here"
        } else if url.query().is_some() || url.fragment().is_some() {
            "a URL has no query and no fragment here"
        } else if url.scheme() == "file" && url.host().is_some() {
            "a file URL has three slashes: file:///path"
        } else {
            return Some(url);
        };
        self.mistake(text.place, message);
        None
    }

    fn gateway(&mut self, raw: RawGateway) -> Option<Gateway> {
        let RawGateway { listen, certificate, anyone_may_sign, registry, store, access, external_url, trusted_proxies } =
            raw;
        let before = self.mistakes.len();
        if let Some(access) = access.as_ref().filter(|_| anyone_may_sign) {
            let message = "access says who may sign, and anyoneMaySign that everyone may";
            self.mistake_with_help(access.key, message, "leave out one of the two");
        }
        let restricted = access.is_some();
        let access = access.map(|access| self.access(access));
        let external_url = external_url.map(|url| self.external_url(&url));
        let trusted_proxies = trusted_proxies.iter().filter_map(|proxy| self.network(proxy)).collect();
        let place = listen.as_ref().map(|listen| listen.place);
        let listen = match listen {
            Some(listen) => self.listen(Some(&listen), 5000),
            None => Some((Ipv4Addr::LOCALHOST, 5000).into()),
        };
        let open = listen.is_some_and(|listen| !listen.ip().is_loopback());
        if let Some(place) = place.filter(|_| open) {
            if certificate.is_none() {
                self.mistake_with_help(
                    place,
                    "without a certificate the store listens on loopback only: plain HTTP would show credentials to the network",
                    "add certificate: {file: ..., key: ...}, or listen on 127.0.0.1",
                );
            }
            if !restricted && !anyone_may_sign {
                self.mistake_with_help(
                    place,
                    "everyone who reaches this listener may store signatures, because access says nothing else",
                    "add access: {htpasswd: ...} or {kubernetes: {}}, listen on 127.0.0.1, or say that you know it: anyoneMaySign: true",
                );
            }
        }
        let certificate = certificate.map(|certificate| self.certificate(&certificate));
        let RawUpstream { url, ca_file, token_realms } = registry;
        let url_place = url.place;
        let url = self.url(&url, &["https", "http"]);
        if url.as_ref().is_some_and(|url| url.path() != "/") {
            self.mistake(url_place, "a registry is named by scheme, host and port alone; it serves /v2/");
        }
        let ca_file = ca_file.map(|path| self.path(&path));
        // A registry by plain HTTP may have its realm so, too.
        let plain = url.as_ref().is_some_and(|url| url.scheme() == "http");
        let token_realms = token_realms.iter().filter_map(|realm| self.token_realm(realm, plain)).collect();
        let store = match store {
            None | Some(RawStore::Redb(RawRedb { file: None })) => {
                Some(Store::Redb(self.folder.join("data/signatures.redb")))
            }
            Some(RawStore::Redb(RawRedb { file: Some(file) })) => self.path(&file).map(Store::Redb),
            Some(RawStore::Etcd(etcd)) => self.etcd(*etcd).map(Store::Etcd),
        };
        if self.mistakes.len() > before {
            return None;
        }
        Some(Gateway {
            listen: listen?,
            certificate: flatten(certificate)?,
            anyone_may_sign,
            registry: Upstream { url: url?, ca_file: flatten(ca_file)?, token_realms },
            store: store?,
            access: flatten(access)?,
            external_url: flatten(external_url)?,
            trusted_proxies,
        })
    }

    fn access(&mut self, raw: Located<RawAccess>) -> Option<Access> {
        let Located { value: RawAccess { htpasswd, kubernetes, token_key }, key, .. } = raw;
        let token_key = token_key.map(|path| self.path(&path));
        let users = match (htpasswd, kubernetes) {
            (Some(htpasswd), None) => {
                let (file, roles) = (self.path(&htpasswd.file), self.path(&htpasswd.roles));
                Some(Users::Htpasswd { file: file?, roles: roles? })
            }
            (None, Some(kubernetes)) => self.kubernetes(kubernetes.value),
            _ => {
                self.mistake_with_help(
                    key,
                    "users and roles come either from files or from Kubernetes",
                    "write {htpasswd: {file: PATH, roles: PATH}} or {kubernetes: {}}",
                );
                None
            }
        };
        Some(Access { users: users?, token_key: flatten(token_key)? })
    }

    fn kubernetes(&mut self, raw: RawKubernetes) -> Option<Users> {
        let RawKubernetes { kubeconfig, audiences } = raw;
        let kubeconfig = kubeconfig.map(|path| self.path(&path));
        let mut wanted = Vec::new();
        if let Some(audiences) = audiences {
            if audiences.is_empty() {
                let message = "audiences names none, so no token would count";
                self.mistake_with_help(
                    audiences.key,
                    message,
                    "leave it out for tokens that are meant for the API server",
                );
            }
            for audience in audiences.value {
                if audience.is_empty() {
                    self.mistake(audience.place, "an audience is expected, found nothing");
                } else if wanted.contains(&audience.value) {
                    self.mistake(audience.place, "this audience stands twice");
                } else {
                    wanted.push(audience.value);
                }
            }
        }
        Some(Users::Kubernetes { kubeconfig: flatten(kubeconfig)?, audiences: wanted })
    }

    /// Clients are sent to this address with their passwords, so it is https, or does not leave the machine.
    fn external_url(&mut self, text: &Located<Box<str>>) -> Option<Url> {
        let url = self.url(text, &["https", "http"])?;
        let loopback = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if url.path() != "/" {
            let message = "the store is known by scheme, host and port alone; it serves /v2/";
            self.mistake_with_help(text.place, message, format!("write {}", url.origin().ascii_serialization()));
            return None;
        }
        if url.scheme() == "http" && !loopback {
            let message = "clients would send their passwords over plain HTTP to this address";
            self.mistake_with_help(
                text.place,
                message,
                "write https://host, and give the store or its proxy a certificate",
            );
            return None;
        }
        Some(url)
    }

    fn network(&mut self, text: &Located<Box<str>>) -> Option<Network> {
        match Network::parse(text) {
            Ok(network) => Some(network),
            Err(error) => {
                self.mistake_with_help(text.place, error.to_string(), error.suggestion());
                None
            }
        }
    }

    fn etcd(&mut self, raw: RawEtcd) -> Option<Etcd> {
        let RawEtcd { endpoints, prefix, ca_file, certificate, username, password_file, password } = raw;
        if endpoints.is_empty() {
            let message = "endpoints names no member of etcd";
            self.mistake_with_help(endpoints.key, message, "write endpoints: [\"https://etcd.example.com:2379\"]");
        }
        let urls: Vec<Url> = endpoints.iter().filter_map(|endpoint| self.endpoint(endpoint)).collect();
        for (number, endpoint) in endpoints.iter().enumerate() {
            if endpoints[..number].iter().any(|earlier| earlier.value == endpoint.value) {
                self.mistake(endpoint.place, "this endpoint stands twice");
            }
        }
        let https = urls.iter().filter(|url| url.scheme() == "https").count();
        if https != 0 && https != urls.len() {
            self.mistake(endpoints.key, "all endpoints are https, or all are http");
        } else if https != 0 && ca_file.is_none() {
            let message = "caFile is missing: it names the CA that vouches for etcd's members";
            self.mistake_with_help(endpoints.key, message, "for the system's own, name the file with all of them");
        } else if https == 0
            && let Some(place) = ca_file.as_ref().map(|path| path.place).or(certificate.as_ref().map(|pair| pair.key))
        {
            self.mistake_with_help(place, "there are no certificates with http", "write https:// endpoints");
        }
        let prefix = match prefix {
            None => "/sealgate".into(),
            Some(prefix) => {
                let segments = prefix.strip_prefix('/').filter(|rest| rest.len() < 128);
                let good = |segment: &str| {
                    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
                    !segment.is_empty() && segment.bytes().all(known)
                };
                if !segments.is_some_and(|segments| segments.split('/').all(good)) {
                    let message = "a prefix is a path of A-Z a-z 0-9 - _ . with a slash in front and none at its end";
                    self.mistake_with_help(prefix.place, message, "/sealgate is the default");
                }
                prefix.value
            }
        };
        let ca_file = ca_file.map(|path| self.path(&path));
        let certificate = certificate.map(|Located { value: RawCertificate { file, key }, .. }| {
            let (chain, key) = (self.path(&file), self.path(&key));
            Some(ClientCertificate { chain: chain?, key: key? })
        });
        if let Some(password) = &password {
            let message = "a password does not stand in the configuration";
            self.mistake_with_help(password.key, message, "put it into a file, and write passwordFile: PATH");
        }
        let user = match (username, password_file) {
            (None, None) => None,
            (Some(username), Some(path)) => {
                if username.is_empty() {
                    self.mistake(username.place, "a user name is not empty");
                }
                let path = self.path(&path);
                Some(path.map(|password_file| EtcdUser { name: username.value, password_file }))
            }
            (Some(Located { key, .. }), None) | (None, Some(Located { key, .. })) => {
                if password.is_none() {
                    let message = "username and passwordFile go together, and one of them is missing";
                    self.mistake(key, message);
                }
                None
            }
        };
        Some(Etcd {
            endpoints: urls,
            prefix,
            ca_file: flatten(ca_file)?,
            certificate: flatten(certificate)?,
            user: flatten(user)?,
        })
    }

    fn endpoint(&mut self, text: &Located<Box<str>>) -> Option<Url> {
        let url = self.url(text, &["https", "http"])?;
        if url.path() != "/" {
            self.mistake(text.place, "an endpoint is named by scheme, host and port alone");
            return None;
        }
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if url.scheme() == "http" && !loopback {
            let message = "plain HTTP to etcd is for loopback only: on a network, everyone could write signatures";
            self.mistake_with_help(text.place, message, "write https://, and name the CA in caFile");
            return None;
        }
        Some(url)
    }

    fn limits(&mut self, raw: &RawLimits) -> Option<Limits> {
        let RawLimits { review_bytes, manifest_bytes, signature_list_bytes, signatures_per_image, images_per_review } =
            raw;
        let default = Limits::default();
        let review_bytes = self.size(review_bytes.as_ref(), default.review_bytes);
        let manifest_bytes = self.size(manifest_bytes.as_ref(), default.manifest_bytes);
        let signature_list_bytes = self.size(signature_list_bytes.as_ref(), default.signature_list_bytes);
        let signatures_per_image = self.count(signatures_per_image.as_ref(), default.signatures_per_image);
        let images_per_review = self.count(images_per_review.as_ref(), default.images_per_review);
        Some(Limits {
            review_bytes: review_bytes?,
            manifest_bytes: manifest_bytes?,
            signature_list_bytes: signature_list_bytes?,
            signatures_per_image: signatures_per_image?,
            images_per_review: images_per_review?,
        })
    }

    fn size(&mut self, size: Option<&Located<RawSize>>, default: usize) -> Option<usize> {
        let Some(size) = size else { return Some(default) };
        let bytes = size.value.0;
        if bytes == 0 || bytes > LARGEST_SIZE {
            self.mistake(size.place, format!("a size is more than 0 and at most 1GiB, found {bytes} bytes"));
            return None;
        }
        usize::try_from(bytes).ok()
    }

    fn count(&mut self, count: Option<&Located<i64>>, default: usize) -> Option<usize> {
        let Some(count) = count else { return Some(default) };
        let number = usize::try_from(count.value).ok().filter(|number| (1..=LARGEST_COUNT).contains(number));
        if number.is_none() {
            self.mistake(count.place, format!("a number from 1 to {LARGEST_COUNT} is expected, found {}", count.value));
        }
        number
    }
}

fn caches_of(raw: &RawCaches) -> Caches {
    let RawCaches { tag, signatures, last_known_good } = raw;
    let default = Caches::default();
    Caches {
        tag: tag.as_ref().map_or(default.tag, |tag| tag.value.0),
        signatures: signatures.as_ref().map_or(default.signatures, |signatures| signatures.value.0),
        last_known_good: last_known_good.as_ref().map_or(default.last_known_good, |kept| kept.value.0),
    }
}

/// What was left out is fine; what was not good is not.
#[allow(clippy::option_option)]
fn flatten<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(None) => None,
        Some(good) => Some(good),
    }
}
