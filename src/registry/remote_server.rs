//! The server that a request is sent to.

use std::sync::Arc;

use super::{quota::Tenant, settings::RegistrySettings};

/// The server that is asked.
#[derive(Clone)]
pub(crate) struct RemoteServer {
    /// Its name in messages: the canonical host.
    pub(crate) registry: Arc<str>,
    pub(crate) settings: Arc<RegistrySettings>,
    /// Whether the host that is asked is named, so that its address may be a private one.
    pub(crate) named: bool,
    /// The registry whose quotas the request counts for, wherever redirects lead.
    pub(super) tenant: Tenant,
}

impl RemoteServer {
    /// A registry, or a signature source. `named`: a rule that requires signatures or the configuration names it.
    pub(crate) fn new(registry: &str, settings: Arc<RegistrySettings>, named: bool) -> Self {
        let registry: Arc<str> = registry.into();
        Self { tenant: Tenant { registry: Arc::clone(&registry), named }, registry, settings, named }
    }

    /// Counts the requests to this server for this name, together with those of other servers.
    pub(super) fn counted_for(mut self, name: Arc<str>) -> Self {
        self.tenant.registry = name;
        self
    }
}
