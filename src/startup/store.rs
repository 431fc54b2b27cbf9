//! `sealgate gateway`.

use jiff::Timestamp;

use super::{
    error::StartupError,
    listener::{address_of, listen},
    shutdown::Shutdown,
};
use crate::configuration::{Configuration, Gateway};
use crate::files::reserve_descriptors;
use crate::gateway::Prepared;
use crate::redact::shown;
use crate::telemetry::raise_descriptor_limit;
use crate::tls::ServerTls;

/// Reads and checks everything that the store needs. Makes no file, and does not serve.
///
/// # Errors
/// Anything that would keep [`gateway`] from serving, except for the listener.
pub async fn validate_store(configuration: &Configuration) -> Result<(), StartupError> {
    let settings = configuration.gateway.as_ref().ok_or(StartupError::NoGateway)?;
    tls(settings)?;
    Ok(Prepared::check(settings, &configuration.limits).await?)
}

/// Serves the store until a signal ends it.
///
/// # Errors
/// The configuration can't be used, the store or the listener can't be opened, or the server ended.
pub async fn gateway(configuration: &Configuration) -> Result<(), StartupError> {
    let settings = configuration.gateway.as_ref().ok_or(StartupError::NoGateway)?;
    raise_descriptor_limit();
    reserve_descriptors();
    let tls = tls(settings)?;
    let prepared = Prepared::new(settings, &configuration.limits).await?;
    let listener = listen("gateway.listen", settings.listen)?;
    let address = address_of(&listener, settings.listen);
    let ended = |source| StartupError::Ended { what: "the store", source };
    let stop = Shutdown::new().map_err(ended)?;
    let config = tls.as_ref().map(ServerTls::server_config);
    let readiness = prepared.readiness();
    let server = prepared.serve(listener, config, stop.stopped().wait()).await?;
    tracing::info!(%address, role = "gateway", tls = tls.is_some(), registry = %shown(&settings.registry.url), "listening");
    tokio::spawn(stop.on_signal(move || readiness.set(false)));
    if let Some(tls) = tls {
        tokio::spawn(super::certificates::renew(tls, None));
    }
    server.await.map_err(ended)
}

fn tls(settings: &Gateway) -> Result<Option<ServerTls>, StartupError> {
    let Some(certificate) = &settings.certificate else { return Ok(None) };
    Ok(Some(ServerTls::load(certificate, None, &[], Timestamp::now())?))
}
