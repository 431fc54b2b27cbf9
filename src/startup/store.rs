//! `sealgate gateway`.

use jiff::Timestamp;

use super::{StartupError, address_of, listen, signals::Stop};
use crate::configuration::{Configuration, Gateway};
use crate::gateway;
use crate::tls::ServerTls;

/// Reads and checks everything that the store needs, and does not serve.
///
/// # Errors
/// What would keep [`gateway`] from serving.
pub fn validate_store(configuration: &Configuration) -> Result<(), StartupError> {
    let settings = settings(configuration)?;
    tls(settings)?;
    Ok(())
}

/// Serves the store until a signal ends it.
///
/// # Errors
/// Whatever keeps it from serving.
pub async fn gateway(configuration: &Configuration) -> Result<(), StartupError> {
    let settings = settings(configuration)?;
    let tls = tls(settings)?;
    let listener = listen("gateway.listen", settings.listen)?;
    let address = address_of(&listener, settings.listen);
    let ended = |source| StartupError::Ended { what: "the store", source };
    let stop = Stop::new().map_err(ended)?;
    let config = tls.as_ref().map(ServerTls::server_config);
    let server = gateway::serve(listener, config, settings, &configuration.limits, stop.stopped().wait())?;
    tracing::info!(%address, role = "gateway", tls = tls.is_some(), registry = %settings.registry.url, "listening");
    tokio::spawn(stop.on_signal(|| ()));
    if let Some(tls) = tls {
        tokio::spawn(super::certificates::renew(tls, |_| ()));
    }
    server.await.map_err(ended)
}

fn settings(configuration: &Configuration) -> Result<&Gateway, StartupError> {
    let settings = configuration.gateway.as_ref().ok_or(StartupError::NoGateway)?;
    // Whoever wrote one of these counts on it.
    for (written, setting) in [
        (settings.access.is_some(), "gateway.access"),
        (settings.external_url.is_some(), "gateway.externalUrl"),
        (!settings.trusted_proxies.is_empty(), "gateway.trustedProxies"),
    ] {
        if written {
            return Err(StartupError::NotServedYet(setting));
        }
    }
    Ok(settings)
}

fn tls(settings: &Gateway) -> Result<Option<ServerTls>, StartupError> {
    let Some(certificate) = &settings.certificate else { return Ok(None) };
    Ok(Some(ServerTls::load(certificate, None, &[], Timestamp::now())?))
}
