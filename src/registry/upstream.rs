//! The one registry that the gateway stands in front of.

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

/// The one registry that the store stands in front of. It is none of the `registries` entries.
pub(crate) struct Upstream {
    tls: ClientConfig,
    kinds: ClientKinds,
    requests: Arc<Quota>,
}

impl Upstream {
    /// `field` is the CA file's, for messages.
    pub(crate) fn new(field: &str, ca_file: Option<&Path>) -> Result<Self, SetupError> {
        // The store has no metrics.
        let metrics = Arc::default();
        let maker = ClientFactory::new(&metrics);
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
    pub(crate) fn settings(&self, token_realms: &[Url], insecure: bool) -> Result<RegistrySettings, SetupError> {
        let clients = self.kinds.clients(&self.tls)?;
        Ok(RegistrySettings {
            token_realms: token_realms.to_vec(),
            insecure,
            ..RegistrySettings::without_entry(clients)
        })
    }
}
