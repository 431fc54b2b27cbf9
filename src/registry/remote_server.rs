//! The server that a request is sent to.

use std::sync::Arc;

use super::{quota::Tenant, settings::RegistrySettings};

/// A server, its settings, and the quota that its requests count against.
#[derive(Clone)]
pub(crate) struct RemoteServer {
    /// The server's name in messages: the canonical host.
    pub(crate) registry: Arc<str>,
    pub(crate) settings: Arc<RegistrySettings>,
    /// A rule or the configuration names the host, so that its address may be private.
    pub(crate) named: bool,
    /// The registry whose quotas the request counts against, wherever redirects lead.
    pub(super) tenant: Tenant,
}

impl RemoteServer {
    /// Makes a registry or a signature source. `named`: a rule that requires signatures, or the configuration, names
    /// it.
    pub(crate) fn new(registry: &str, settings: Arc<RegistrySettings>, named: bool) -> Self {
        let registry: Arc<str> = registry.into();
        Self { tenant: Tenant { registry: Arc::clone(&registry), named }, registry, settings, named }
    }

    /// Counts the requests to this server against the quota of this name, together with those of other servers.
    pub(super) fn counted_for(mut self, name: Arc<str>) -> Self {
        self.tenant.registry = name;
        self
    }
}
