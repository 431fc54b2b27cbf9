//! The registry client with real and with lying registries.

mod encodings;
mod lies;
mod login;
mod real;
mod start;

pub(crate) use real::logged;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sealgate::{
    configuration::{Credentials, Limits, Registries, Registry},
    gate::ResolveDigest,
    image::{HashedManifest, Reference, Scope},
    refusal::LookupError,
    registry::{AllowedHosts, Client},
    telemetry::Metrics,
};

/// Far more than any answer takes here.
pub(crate) const LONG: Duration = Duration::from_secs(30);
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// An entry that speaks plain HTTP.
pub(crate) fn plain(scope: &str) -> Registry {
    Registry { insecure: true, ..entry(scope) }
}

pub(crate) fn entry(scope: &str) -> Registry {
    Registry {
        scope: Scope::parse(scope).expect("a scope"),
        ca_file: None,
        insecure: false,
        credentials: None,
        scheme: None,
        token_realms: Vec::new(),
        signatures: None,
        mirrors: Vec::new(),
    }
}

/// A client whose policy names no host.
pub(crate) fn client(entries: Vec<Registry>) -> Client {
    client_with(entries, Arc::new(Metrics::new()))
}

pub(crate) fn client_with(entries: Vec<Registry>, metrics: Arc<Metrics>) -> Client {
    client_of(entries, Arc::new(|_: &str| false), metrics)
}

/// A client whose policy has rules for every host that there is.
pub(crate) fn client_with_rules(entries: Vec<Registry>) -> Client {
    client_of(entries, Arc::new(|_: &str| true), Arc::new(Metrics::new()))
}

fn client_of(entries: Vec<Registry>, rules: Arc<dyn AllowedHosts>, metrics: Arc<Metrics>) -> Client {
    let mut registries = Registries::default();
    for entry in entries {
        registries.entries.insert(entry.scope.clone(), Arc::new(entry)).expect("scopes differ");
    }
    Client::new(&registries, &Limits::default(), rules, metrics).expect("a client")
}

pub(crate) async fn resolve(client: &Client, image: &str) -> Result<Arc<HashedManifest>, LookupError> {
    resolve_within(client, image, LONG).await
}

pub(crate) async fn resolve_within(
    client: &Client,
    image: &str,
    time: Duration,
) -> Result<Arc<HashedManifest>, LookupError> {
    let image = Reference::for_image(image).expect("a reference");
    client.resolve(&image, (Instant::now() + time).into()).await
}

/// Credentials of `robot`.
fn robot() -> Credentials {
    Credentials::Given { username: "robot".into(), password: "secret".into() }
}

/// A small image's manifest.
pub(crate) fn manifest(content: &str) -> Vec<u8> {
    let digest = sealgate::image::Digest::sha256(content.as_bytes());
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":2}},"layers":[]}}"#
    )
    .into_bytes()
}

/// The words of an answer that no registry may give.
pub(crate) fn misbehaved(outcome: Result<Arc<HashedManifest>, LookupError>) -> String {
    match outcome {
        Err(LookupError::Misbehaved { what, .. }) => what.into(),
        outcome => panic!("{outcome:?}"),
    }
}

/// The words of a registry that can't be asked.
pub(crate) fn unavailable(outcome: Result<Arc<HashedManifest>, LookupError>) -> String {
    match outcome {
        Err(LookupError::Unavailable { cause, .. }) => cause.into(),
        outcome => panic!("{outcome:?}"),
    }
}
