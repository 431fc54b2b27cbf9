//! What the configuration's `registries` entries come to: clients, credentials, and who is named.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use reqwest::redirect;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use url::Url;

use super::{
    ca_certs::{self, CaError},
    dial_guard::HostSet,
    pools::{PooledClient, Pools},
    quota::Quota,
    request_quota::requests_in_flight,
    resolver::{Names, Resolver},
};
use crate::configuration::{Credentials, Registries, Scheme, SignatureSource};
use crate::image::{Repository, Scope, ScopeError, ScopeMap};
use crate::telemetry::{Metrics, descriptor_limit};

/// The longest that a connection may take to come about, the resolution of its host's name included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection is kept that nothing is sent over.
const IDLE: Duration = Duration::from_mins(1);
/// Idle connections that are kept for each host that is named, and for each other one.
const IDLE_PER_HOST: usize = 8;
const IDLE_PER_UNNAMED_HOST: usize = 2;
/// The metrics' label where no entry holds.
const OTHER: &str = "other";

/// Why no client can be made of a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// A CA file can't be used.
    #[error("{of}: {source}")]
    Ca {
        /// Whose it is: an entry, or the field.
        of: Box<str>,
        /// Why.
        source: CaError,
    },
    /// A mirror is not `host[:port][/path]`.
    #[error("the mirror {mirror} of registries entry {scope} must be host[:port][/path]")]
    Mirror {
        /// The entry.
        scope: Box<str>,
        /// The mirror.
        mirror: Box<str>,
        /// What is wrong with it.
        #[source]
        source: Option<Box<ScopeError>>,
    },
    /// TLS can't be set up.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The HTTP client can't be made.
    #[error("the HTTP client can't be set up: {0}")]
    Http(#[from] reqwest::Error),
}

/// The two HTTP clients of one TLS configuration: they differ in which addresses they dial.
#[derive(Clone)]
pub(crate) struct Clients {
    /// For hosts that are named.
    pub(crate) open: PooledClient,
    /// For all others.
    pub(crate) guarded: PooledClient,
}

/// How the registries below a scope are talked to.
pub(crate) struct Settings {
    /// Tells settings apart: 0 where no entry holds.
    pub(crate) number: usize,
    /// The scope, or `other`.
    pub(crate) label: Box<str>,
    pub(crate) scope: Scope,
    pub(crate) clients: Clients,
    pub(crate) insecure: bool,
    pub(crate) scheme: Option<Scheme>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) token_realms: Vec<Url>,
    pub(crate) signatures: Option<Vec<SignatureSource>>,
    pub(crate) mirrors: Vec<Box<str>>,
    /// Whether they are a command's: its caller may read in an error what is wrong with credentials.
    pub(crate) is_for_command: bool,
}

impl Settings {
    /// Whether credentials are those of a person who calls a command, if there are any.
    pub(crate) fn is_asked_by_a_person(&self) -> bool {
        matches!(self.credentials, Some(Credentials::Logins(_)))
    }

    /// Where no entry holds.
    fn without_entry(clients: Clients) -> Self {
        Self {
            number: 0,
            label: OTHER.into(),
            scope: Scope::Everything,
            clients,
            insecure: false,
            scheme: None,
            credentials: None,
            token_realms: Vec::new(),
            signatures: None,
            mirrors: Vec::new(),
            is_for_command: false,
        }
    }
}

/// All settings.
pub(crate) struct AllSettings {
    entries: ScopeMap<Arc<Settings>>,
    default: Arc<Settings>,
    /// The hosts that entries name.
    pub(crate) named: HostSet,
}

impl AllSettings {
    pub(crate) fn new(registries: &Registries, metrics: &Arc<Metrics>) -> Result<Self, SetupError> {
        let mut maker = Maker::new(metrics);
        let logins = registries.logins.clone().map(Credentials::Logins);
        // Servers look for no login files.
        let is_for_command = logins.is_some();
        let mut entries = ScopeMap::default();
        let mut named = HostSet::default();
        for (number, (scope, entry)) in registries.entries.iter().enumerate() {
            let crate::configuration::Registry {
                scope: _,
                ca_file,
                insecure,
                scheme,
                credentials,
                token_realms,
                signatures,
                mirrors,
            } = &**entry;
            named.add_scope(&scope);
            for url in token_realms {
                named.add_url(url);
            }
            for source in signatures.iter().flatten() {
                match source {
                    SignatureSource::RegistryExtension => {}
                    SignatureSource::Extension(url) | SignatureSource::Lookaside(url) => named.add_url(url),
                }
            }
            let mut prefixes = Vec::new();
            for mirror in mirrors {
                let refuse =
                    |source| SetupError::Mirror { scope: scope.to_string().into(), mirror: mirror.clone(), source };
                match Scope::parse(mirror) {
                    Ok(Scope::Prefix(prefix)) => {
                        named.add_prefix(&prefix);
                        prefixes.push(prefix);
                    }
                    Ok(_) => return Err(refuse(None)),
                    Err(error) => return Err(refuse(Some(Box::new(error)))),
                }
            }
            let settings = Settings {
                number: number + 1,
                label: scope.to_string().into(),
                scope: scope.clone(),
                clients: maker.clients(&scope, ca_file.as_deref(), *insecure)?,
                insecure: *insecure,
                scheme: *scheme,
                credentials: credentials.clone().or_else(|| logins.clone()),
                token_realms: token_realms.clone(),
                signatures: signatures.clone(),
                mirrors: prefixes,
                is_for_command,
            };
            // Scopes of a map are different from each other.
            let _ = entries.insert(scope, Arc::new(settings));
        }
        let clients = maker.clients(&Scope::Everything, None, false)?;
        let default = Settings { credentials: logins, is_for_command, ..Settings::without_entry(clients) };
        Ok(Self { entries, default: Arc::new(default), named })
    }

    /// The settings of the most specific scope that covers a repository.
    pub(crate) fn of(&self, repository: &Repository) -> &Arc<Settings> {
        self.entries.get_repository(repository).unwrap_or(&self.default)
    }
}

/// Makes clients, one pair a TLS configuration.
struct Maker {
    provider: Arc<CryptoProvider>,
    system: RootCertStore,
    kinds: Kinds,
    made: HashMap<(Option<PathBuf>, bool), Clients>,
}

/// What all clients for named hosts have in common, and all others.
#[derive(Clone)]
struct Kinds {
    open: Kind,
    guarded: Kind,
}

#[derive(Clone)]
struct Kind {
    resolver: Arc<Resolver>,
    pools: Arc<Pools>,
    idle_per_host: usize,
}

impl Kinds {
    fn new(metrics: &Arc<Metrics>) -> Self {
        let names = Names::of_system(metrics);
        let (hosts, unnamed_hosts) = pooled_hosts(descriptor_limit());
        let kind = |on_guard, hosts, idle_per_host| Kind {
            resolver: Arc::new(Resolver::new(on_guard, &names)),
            pools: Pools::new(hosts),
            idle_per_host,
        };
        Self { open: kind(false, hosts, IDLE_PER_HOST), guarded: kind(true, unnamed_hosts, IDLE_PER_UNNAMED_HOST) }
    }

    fn clients(&self, tls: &ClientConfig) -> Result<Clients, reqwest::Error> {
        Ok(Clients { open: self.open.client(tls)?, guarded: self.guarded.client(tls)? })
    }
}

impl Kind {
    fn client(&self, tls: &ClientConfig) -> Result<PooledClient, reqwest::Error> {
        let (tls, resolver, idle_per_host) = (tls.clone(), Arc::clone(&self.resolver), self.idle_per_host);
        self.pools.add(move || client(tls.clone(), &resolver, idle_per_host))
    }
}

/// The hosts for which idle connections are kept, those that are named and the others: these connections take at most an
/// eighth and a sixteenth of the descriptors.
fn pooled_hosts(descriptors: u64) -> (usize, usize) {
    let part = |of: u64, idle: usize, most| {
        let hosts = usize::try_from(descriptors / of).unwrap_or(usize::MAX) / idle;
        hosts.clamp(1, most)
    };
    (part(8, IDLE_PER_HOST, 128), part(16, IDLE_PER_UNNAMED_HOST, 128))
}

impl Maker {
    fn new(metrics: &Arc<Metrics>) -> Self {
        let mut system = RootCertStore::empty();
        // A system without CAs is one on which caFile says which are trusted; what is not good there counts for nothing.
        let loaded = rustls_native_certs::load_native_certs();
        let (added, ignored) = system.add_parsable_certificates(loaded.certs);
        if added == 0 {
            tracing::warn!("this system has no CA certificates: only registries with a caFile can be verified");
        }
        tracing::debug!(added, ignored, "read the system's CA certificates");
        Self {
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            system,
            kinds: Kinds::new(metrics),
            made: HashMap::new(),
        }
    }

    fn clients(&mut self, scope: &Scope, ca_file: Option<&Path>, insecure: bool) -> Result<Clients, SetupError> {
        let key = (ca_file.map(Path::to_owned), insecure);
        if let Some(made) = self.made.get(&key) {
            return Ok(made.clone());
        }
        let of = || format!("registries entry {scope}").into();
        let roots = self.roots(ca_file).map_err(|source| SetupError::Ca { of: of(), source })?;
        let tls = self.tls(roots, insecure)?;
        let clients = self.kinds.clients(&tls)?;
        self.made.insert(key, clients.clone());
        Ok(clients)
    }

    /// The system's CAs, and those of a file.
    fn roots(&self, ca_file: Option<&Path>) -> Result<RootCertStore, CaError> {
        let mut roots = self.system.clone();
        if let Some(path) = ca_file {
            ca_certs::trust(&mut roots, path)?;
        }
        Ok(roots)
    }

    fn tls(&self, roots: RootCertStore, insecure: bool) -> Result<ClientConfig, rustls::Error> {
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&self.provider)).with_safe_default_protocol_versions()?;
        let builder = if insecure || roots.is_empty() {
            // Without any CA nothing can be verified; then nothing is.
            let verifier: Arc<dyn ServerCertVerifier> =
                if insecure { Arc::new(Unverified(Arc::clone(&self.provider))) } else { Arc::new(NoneTrusted) };
            builder.dangerous().with_custom_certificate_verifier(verifier)
        } else {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
            builder.with_webpki_verifier(verifier)
        };
        let mut tls = builder.with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(tls)
    }
}

/// The one registry that the store stands in front of. It is none of the `registries` entries.
pub(crate) struct Upstream {
    tls: ClientConfig,
    kinds: Kinds,
    requests: Arc<Quota>,
}

impl Upstream {
    /// `field` is the CA file's, for messages.
    pub(crate) fn new(field: &str, ca_file: Option<&Path>) -> Result<Self, SetupError> {
        // The store has no metrics.
        let metrics = Arc::default();
        let maker = Maker::new(&metrics);
        let roots = maker.roots(ca_file).map_err(|source| SetupError::Ca { of: field.into(), source })?;
        let tls = maker.tls(roots, false)?;
        Ok(Self { tls, kinds: maker.kinds, requests: requests_in_flight(metrics) })
    }

    /// The requests to it that are in flight.
    pub(crate) fn requests(&self) -> Arc<Quota> {
        Arc::clone(&self.requests)
    }

    /// How TLS is spoken with it.
    pub(crate) fn tls(&self) -> ClientConfig {
        self.tls.clone()
    }

    /// How it is talked to, with clients of their own each time. `insecure`: plain HTTP may leave this machine; certificates
    /// are verified all the same.
    pub(crate) fn settings(&self, token_realms: &[Url], insecure: bool) -> Result<Settings, SetupError> {
        let clients = self.kinds.clients(&self.tls)?;
        Ok(Settings { token_realms: token_realms.to_vec(), insecure, ..Settings::without_entry(clients) })
    }
}

fn client(
    tls: ClientConfig,
    resolver: &Arc<Resolver>,
    idle_per_host: usize,
) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Arc::clone(resolver))
        .redirect(redirect::Policy::none())
        // A proxy would resolve names itself, behind the dial guard.
        .no_proxy()
        .retry(reqwest::retry::never())
        .referer(false)
        .user_agent(concat!("sealgate/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(idle_per_host)
        .tcp_nodelay(true)
        .http2_max_header_list_size(64 << 10)
        // What a server may send before anybody reads it counts for no quota.
        .http2_initial_stream_window_size(128 << 10)
        .http2_initial_connection_window_size(1 << 20)
        .build()
}

/// TLS with which no test verifies anything.
#[cfg(test)]
pub(super) fn tls_for_tests() -> ClientConfig {
    Maker::new(&Arc::default()).tls(RootCertStore::empty(), true).expect("versions")
}

/// `insecure: true`: whatever certificate comes.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// No CA is there: no certificate is good.
#[derive(Debug)]
struct NoneTrusted;

impl ServerCertVerifier for NoneTrusted {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Err(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PSS_SHA256]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connections_take_a_part_of_the_descriptors() {
        for descriptors in [64, 256, 1024, 4096, 1 << 20, u64::MAX] {
            let (hosts, unnamed_hosts) = pooled_hosts(descriptors);
            let idle = (hosts * IDLE_PER_HOST + unnamed_hosts * IDLE_PER_UNNAMED_HOST) as u64;
            assert!(idle <= descriptors / 8 + descriptors / 16, "{descriptors}: {idle}");
            assert!(hosts > 0 && unnamed_hosts > 0 && idle <= 2048, "{descriptors}: {idle}");
        }
    }
}
