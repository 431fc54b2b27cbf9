//! `sealgate serve`, and the engine that `sealgate verify` shares with it.

use std::{io, pin::pin, sync::Arc};

use jiff::Timestamp;
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};

use super::{
    certificates,
    error::StartupError,
    listener::{address_of, listen},
    policy_hosts::PolicyHosts,
    policy_watcher::PolicyWatcher,
    shutdown::Shutdown,
};
use crate::configuration::Configuration;
use crate::files::{PolicyFiles, reserve_descriptors};
use crate::gate::{
    CpuBudgets, CurrentPolicy, Gate, Settings,
    cache::{CacheTimes, CachedResolve, CachedSignatures},
    deadline::lookup_time,
};
use crate::registry::Client;
use crate::server::health::{self, Pages};
use crate::signature_sources::{Finder, SignatureSources};
use crate::telemetry::{Metrics, Readiness, raise_descriptor_limit};
use crate::tls::{ServerTls, WEBHOOK_NAMES};
use crate::webhook;

/// Builds the gate's engine. With `sources`, they are the signature sources; otherwise the configuration's are.
///
/// # Errors
/// The `registries` of the configuration can't be used: a CA file is missing, for example.
pub fn engine(
    configuration: &Configuration,
    policy: Arc<CurrentPolicy>,
    sources: Option<Arc<dyn SignatureSources>>,
    metrics: Arc<Metrics>,
) -> Result<Gate, StartupError> {
    let Configuration { registries, limits, caches, webhook, .. } = configuration;
    let named = Arc::new(PolicyHosts::new(Arc::clone(&policy)));
    let client = Arc::new(Client::new(registries, limits, named, Arc::clone(&metrics))?);
    let finder = match sources {
        Some(sources) => Finder::with_sources(Arc::clone(&client), sources),
        None => Finder::new(Arc::clone(&client)),
    };
    let times = CacheTimes { tag: caches.tag, signatures: caches.signatures, lookup: lookup_time(webhook.deadline) };
    let settings = Settings {
        mode: webhook.mode,
        pin_required: webhook.pin_required,
        images_per_review: limits.images_per_review,
        signatures_per_image: limits.signatures_per_image,
        budgets: CpuBudgets::default(),
        lookup: times.lookup,
        last_known_good: caches.last_known_good,
    };
    let resolve = Arc::new(CachedResolve::new(client, times, Arc::clone(&metrics) as _));
    let signatures = Arc::new(CachedSignatures::new(Arc::new(finder), times, Arc::clone(&metrics) as _));
    Ok(Gate::new(settings, policy, resolve, signatures, metrics))
}

/// Reads and checks everything that the gate needs, without serving.
///
/// # Errors
/// Anything that would keep [`serve`] from serving, except for the listeners.
pub fn validate_gate(configuration: &Configuration) -> Result<(), StartupError> {
    warn_of_insecure(configuration);
    let policy = policies(configuration)?.load()?;
    tls(configuration)?;
    engine(configuration, Arc::new(CurrentPolicy::new(policy)), None, Arc::default())?;
    Ok(())
}

/// Serves the gate until a signal ends it.
///
/// # Errors
/// The configuration can't be used, a listener can't be opened, or one of the servers ended.
pub async fn serve(configuration: &Configuration) -> Result<(), StartupError> {
    let ended = |what| move |source| StartupError::Ended { what, source };
    raise_descriptor_limit();
    reserve_descriptors();
    warn_of_insecure(configuration);
    let metrics = Arc::new(Metrics::new());
    let readiness = Arc::new(Readiness::default());
    let policies = policies(configuration)?;
    let read_at = Instant::now();
    let current = Arc::new(CurrentPolicy::with_max_stale(policies.load()?, configuration.policy_max_stale, read_at));
    let tls = tls(configuration)?;
    let gate = Arc::new(engine(configuration, Arc::clone(&current), None, Arc::clone(&metrics))?);
    let listener = listen("webhook.listen", configuration.webhook.listen)?;
    let address = address_of(&listener, configuration.webhook.listen);
    let stop = Shutdown::new().map_err(ended("the gate"))?;

    let pages = if configuration.health.is_some() { Pages::Metrics } else { Pages::All };
    let mut beside = JoinSet::new();
    for (setting, role, configured, pages) in [
        ("metrics.listen", "metrics", configuration.metrics, pages),
        ("health.listen", "health", configuration.health, Pages::Health),
    ] {
        let Some(configured) = configured else { continue };
        let listener = listen(setting, configured)?;
        tracing::info!(address = %address_of(&listener, configured), role, "listening");
        let (metrics, readiness) = (Arc::clone(&metrics), Arc::clone(&readiness));
        let server = health::serve(listener, pages, metrics, readiness, stop.stopped().wait());
        beside.spawn(server.map_err(ended(BESIDE))?);
    }
    let _watcher =
        PolicyWatcher::start(policies, current, Arc::clone(&metrics)).map_err(ended("the policy watcher"))?;
    let config = tls.server_config();
    metrics.certificate_expiry(tls.expires_at().as_second());
    tokio::spawn(certificates::renew(tls, Some(Arc::clone(&metrics))));

    let settings = webhook::Settings::new(configuration);
    let server = webhook::run(listener, config, gate, settings, metrics, Arc::clone(&readiness), stop.stopped().wait());
    tracing::info!(%address, role = "gate", "listening");
    readiness.set(true);
    let leaving = Arc::clone(&readiness);
    tokio::spawn(stop.on_signal(move || leaving.set(false)));
    let mut server = pin!(server);
    // If the listener of probes or metrics ends, so does the gate, so that Kubernetes restarts it.
    loop {
        tokio::select! {
            result = &mut server => break result.map_err(ended("the gate"))?,
            Some(result) = beside.join_next() => ended_beside(result)?,
        }
    }
    while let Some(result) = beside.join_next().await {
        ended_beside(result)?;
    }
    Ok(())
}

const BESIDE: &str = "the listener of metrics or health";

/// Returns the error with which a listener for metrics or probes ended. A panic counts as an error.
fn ended_beside(result: Result<io::Result<()>, JoinError>) -> Result<(), StartupError> {
    let result = result.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
    result.map_err(|source| StartupError::Ended { what: BESIDE, source })
}

/// Logs a warning for each registries entry without verified TLS. Commands don't: with them, `--tls-verify=false` is
/// the user's own decision.
fn warn_of_insecure(configuration: &Configuration) {
    for (scope, _) in configuration.registries.entries.iter().filter(|(_, entry)| entry.insecure) {
        tracing::warn!(
            %scope,
            "a registries entry has insecure: true: an attacker on the way to these registries can answer in their place, and read the credentials"
        );
    }
}

fn policies(configuration: &Configuration) -> Result<PolicyFiles, StartupError> {
    let path = configuration.policies.clone().ok_or(StartupError::NoPolicies)?;
    Ok(PolicyFiles {
        path,
        accept_anything_by_default: configuration.accept_anything_by_default,
        pin_required: configuration.webhook.pin_required,
    })
}

fn tls(configuration: &Configuration) -> Result<ServerTls, StartupError> {
    let webhook = &configuration.webhook;
    Ok(ServerTls::load(&webhook.certificate, webhook.client_ca.as_deref(), WEBHOOK_NAMES, Timestamp::now())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_that_fails_or_panics_is_an_error_and_one_that_stops_is_none() {
        let mut beside = JoinSet::new();
        for (error, expected) in [
            (None, "the listener of metrics or health ended: "),
            (
                Some(io::Error::other("no more descriptors")),
                "the listener of metrics or health ended: no more descriptors",
            ),
        ] {
            beside.spawn(async move { Err(error.unwrap_or_else(|| panic!("a bug"))) });
            let text = ended_beside(beside.join_next().await.unwrap()).unwrap_err().to_string();
            assert!(text.starts_with(expected), "{text}");
        }
        beside.spawn(async { Ok(()) });
        assert!(ended_beside(beside.join_next().await.unwrap()).is_ok());
    }
}
