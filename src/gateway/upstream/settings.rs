//! The settings of the registry behind the gateway, from the configuration.

use std::{sync::Arc, time::Duration};

use reqwest::{Client, redirect};
use url::Url;

use super::{cache::UpstreamCache, registry::Registry};
use crate::configuration::Upstream;
use crate::registry::{self, HostSet, RemoteServer, SetupError, Transport};

/// The time limit of a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum number of idle connections to the registry in each worker.
const MAX_IDLE_CONNECTIONS: usize = 32;

/// The checked address and TLS settings of the registry.
pub(in crate::gateway) struct Settings {
    url: Url,
    token_realms: Vec<Url>,
    insecure: bool,
    /// The maximum size of a manifest, in bytes.
    max_manifest_bytes: usize,
    upstream: registry::Upstream,
}

impl Settings {
    pub(in crate::gateway) fn new(settings: &Upstream, max_manifest_bytes: usize) -> Result<Self, SetupError> {
        let Upstream { url, ca_file, token_realms, insecure } = settings;
        let upstream = registry::Upstream::new("gateway.registry.caFile", ca_file.as_deref())?;
        Ok(Self {
            url: url.clone(),
            token_realms: token_realms.clone(),
            insecure: *insecure,
            max_manifest_bytes,
            upstream,
        })
    }

    /// Makes the registry for one worker: a connection runs on the runtime that uses it first.
    pub(in crate::gateway) fn registry(&self, cache: UpstreamCache) -> Result<Registry, SetupError> {
        let mut tls = self.upstream.tls();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            // Redirects go to the client, which follows them with or without its credentials.
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .build()?;
        let mut named = HostSet::default();
        named.add_url(&self.url);
        self.token_realms.iter().for_each(|realm| named.add_url(realm));
        let name = self.url.host_str().unwrap_or_default();
        let settings = Arc::new(self.upstream.settings(&self.token_realms, self.insecure)?);
        let peer = RemoteServer::new(name, settings, true);
        let requests = self.upstream.requests();
        let named_by_rules = Arc::new(|_: &str| false);
        let transport = Transport::new(named, named_by_rules, self.max_manifest_bytes, requests, Arc::default());
        Ok(Registry {
            url: self.url.clone(),
            max_manifest_bytes: self.max_manifest_bytes,
            client,
            peer,
            transport: Arc::new(transport),
            cache,
        })
    }
}
