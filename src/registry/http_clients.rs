//! The HTTP clients: one pair a TLS configuration, with idle connections and name resolution shared among all.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use reqwest::redirect;
use rustls::{
    ClientConfig, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
};

use super::{
    ca_certs::{self, CaError},
    cert_verifiers::{NoneTrusted, Unverified},
    pools::{PooledClient, Pools},
    resolver::{NameCache, Resolver},
    setup_error::SetupError,
};
use crate::image::Scope;
use crate::telemetry::{Metrics, descriptor_limit};

/// The longest that a connection may take to come about, the resolution of its host's name included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection is kept that nothing is sent over.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Idle connections that are kept for each host that is named, and for each other one.
const MAX_IDLE_PER_HOST: usize = 8;
const MAX_IDLE_PER_UNNAMED_HOST: usize = 2;

/// The two HTTP clients of one TLS configuration: they differ in which addresses they dial.
#[derive(Clone)]
pub(crate) struct HttpClients {
    /// For hosts that are named.
    pub(crate) open: PooledClient,
    /// For all others.
    pub(crate) guarded: PooledClient,
}

/// Makes clients, one pair a TLS configuration.
pub(super) struct ClientFactory {
    provider: Arc<CryptoProvider>,
    system: RootCertStore,
    pub(super) kinds: ClientKinds,
    made: HashMap<(Option<PathBuf>, bool), HttpClients>,
}

/// The shared parts of all clients for named hosts, and of all others.
#[derive(Clone)]
pub(super) struct ClientKinds {
    open: ClientKind,
    guarded: ClientKind,
}

#[derive(Clone)]
struct ClientKind {
    resolver: Arc<Resolver>,
    pools: Arc<Pools>,
    idle_per_host: usize,
}

impl ClientKinds {
    fn new(metrics: &Arc<Metrics>) -> Self {
        let names = NameCache::of_system(metrics);
        let (hosts, unnamed_hosts) = pooled_hosts(descriptor_limit());
        let kind = |on_guard, hosts, idle_per_host| ClientKind {
            resolver: Arc::new(Resolver::new(on_guard, &names)),
            pools: Pools::new(hosts),
            idle_per_host,
        };
        Self {
            open: kind(false, hosts, MAX_IDLE_PER_HOST),
            guarded: kind(true, unnamed_hosts, MAX_IDLE_PER_UNNAMED_HOST),
        }
    }

    pub(super) fn clients(&self, tls: &ClientConfig) -> Result<HttpClients, reqwest::Error> {
        Ok(HttpClients { open: self.open.client(tls)?, guarded: self.guarded.client(tls)? })
    }
}

impl ClientKind {
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
    (part(8, MAX_IDLE_PER_HOST, 128), part(16, MAX_IDLE_PER_UNNAMED_HOST, 128))
}

impl ClientFactory {
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
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
            kinds: ClientKinds::new(metrics),
            made: HashMap::new(),
        }
    }

    pub(super) fn clients(
        &mut self,
        scope: &Scope,
        ca_file: Option<&Path>,
        insecure: bool,
    ) -> Result<HttpClients, SetupError> {
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
    pub(super) fn roots(&self, ca_file: Option<&Path>) -> Result<RootCertStore, CaError> {
        let mut roots = self.system.clone();
        if let Some(path) = ca_file {
            ca_certs::trust(&mut roots, path)?;
        }
        Ok(roots)
    }

    pub(super) fn tls(&self, roots: RootCertStore, insecure: bool) -> Result<ClientConfig, rustls::Error> {
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
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
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
    ClientFactory::new(&Arc::default()).tls(RootCertStore::empty(), true).expect("versions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connections_take_a_part_of_the_descriptors() {
        for descriptors in [64, 256, 1024, 4096, 1 << 20, u64::MAX] {
            let (hosts, unnamed_hosts) = pooled_hosts(descriptors);
            let idle = (hosts * MAX_IDLE_PER_HOST + unnamed_hosts * MAX_IDLE_PER_UNNAMED_HOST) as u64;
            assert!(idle <= descriptors / 8 + descriptors / 16, "{descriptors}: {idle}");
            assert!(hosts > 0 && unnamed_hosts > 0 && idle <= 2048, "{descriptors}: {idle}");
        }
    }
}
