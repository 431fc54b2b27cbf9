//! The client for the registry behind the gateway.

use std::{path::Path, sync::Arc};

use rustls::ClientConfig;
use url::Url;

use super::{
    http_clients::{ClientFactory, ClientKinds},
    quota::Quota,
    request_quota::requests_in_flight,
    settings::RegistrySettings,
    setup_error::SetupError,
};

/// The registry behind the gateway. It has no `registries` entry.
pub(crate) struct Upstream {
    tls: ClientConfig,
    kinds: ClientKinds,
    requests: Arc<Quota>,
}

impl Upstream {
    /// Makes a client. `field` is the setting of the CA file, for messages.
    pub(crate) fn new(field: &str, ca_file: Option<&Path>) -> Result<Self, SetupError> {
        // The store has no metrics.
        let metrics = Arc::default();
        let maker = ClientFactory::new(&metrics);
        let roots = maker.roots(ca_file).map_err(|source| SetupError::Ca { of: field.into(), source })?;
        let tls = maker.tls(roots, false)?;
        Ok(Self { tls, kinds: maker.kinds, requests: requests_in_flight(metrics) })
    }

    /// Returns the quota of requests in flight to the registry.
    pub(crate) fn requests(&self) -> Arc<Quota> {
        Arc::clone(&self.requests)
    }

    /// Returns the TLS configuration for the registry.
    pub(crate) fn tls(&self) -> ClientConfig {
        self.tls.clone()
    }

    /// Returns the settings for the registry, with new clients for each call. `insecure` allows plain HTTP beyond this
    /// machine; certificates are verified all the same.
    pub(crate) fn settings(&self, token_realms: &[Url], insecure: bool) -> Result<RegistrySettings, SetupError> {
        let clients = self.kinds.clients(&self.tls)?;
        Ok(RegistrySettings {
            token_realms: token_realms.to_vec(),
            insecure,
            ..RegistrySettings::without_entry(clients)
        })
    }
}
