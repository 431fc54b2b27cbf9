//! The HTTP clients: a pair for each TLS configuration, with shared limits on idle connections and name resolution.

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

/// The time limit for a connection, including the resolution of its host's name.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The idle timeout of a connection.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// The maximum number of idle connections for each named host, and for each other host.
const MAX_IDLE_PER_HOST: usize = 8;
const MAX_IDLE_PER_UNNAMED_HOST: usize = 2;

/// The two HTTP clients of one TLS configuration, which differ in the addresses that they may dial.
#[derive(Clone)]
pub(crate) struct HttpClients {
    /// The client for named hosts.
    pub(crate) open: PooledClient,
    /// The client for all other hosts.
    pub(crate) guarded: PooledClient,
}

/// Makes the pair of clients for a TLS configuration.
pub(super) struct ClientFactory {
    provider: Arc<CryptoProvider>,
    system: RootCertStore,
    pub(super) kinds: ClientKinds,
    made: HashMap<(Option<PathBuf>, bool), HttpClients>,
}

/// The parts that all clients for named hosts share, and those that all other clients share.
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

/// Returns the numbers of named and of other hosts with idle connections. These connections take at most an eighth and
/// a sixteenth of the descriptors.
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
        // A system may have no CAs, if caFile has the trusted ones. Malformed certificates in the system's store are
        // ignored.
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

    /// Returns the system's CAs and those of a file.
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
        // A proxy would resolve names itself, and so bypass the dial guard.
        .no_proxy()
        .retry(reqwest::retry::never())
        .referer(false)
        .user_agent(concat!("sealgate/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(idle_per_host)
        .tcp_nodelay(true)
        .http2_max_header_list_size(64 << 10)
        // Bytes that a server sends before they are read count against no quota.
        .http2_initial_stream_window_size(128 << 10)
        .http2_initial_connection_window_size(1 << 20)
        .build()
}

/// Returns a TLS configuration for tests that verify no certificate.
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
