//! The server that a request is sent to.

use std::sync::Arc;

use super::{quota::Tenant, settings::RegistrySettings};

/// Who is asked.
#[derive(Clone)]
pub(crate) struct RemoteServer {
    /// Its name in messages: the canonical host.
    pub(crate) registry: Arc<str>,
    pub(crate) settings: Arc<RegistrySettings>,
    /// Whether the host that is asked is named, so that its address may be a private one.
    pub(crate) named: bool,
    /// Who the request counts for, wherever it goes in the end.
    pub(super) tenant: Tenant,
}

impl RemoteServer {
    /// A registry, or a signature source. `named`: a rule that requires signatures or the configuration names it.
    pub(crate) fn new(registry: &str, settings: Arc<RegistrySettings>, named: bool) -> Self {
        let registry: Arc<str> = registry.into();
        Self { tenant: Tenant { registry: Arc::clone(&registry), named }, registry, settings, named }
    }

    /// The same, counted for this name together with others.
    pub(super) fn counted_for(mut self, name: Arc<str>) -> Self {
        self.tenant.registry = name;
        self
    }
}
