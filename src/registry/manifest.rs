//! Fetches manifests: resolves a reference to the digest of the bytes that were received.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{FutureExt, future::BoxFuture};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::{
    client::Client,
    request::{Fetched, RequestSpec},
    target::Target,
    time_budget::TimeBudget,
};
use crate::gate::ResolveDigest;
use crate::image::{Digest, Hashed, HashedManifest, ManifestError, Reference, digest::DigestError};
use crate::redact::shown;
use crate::refusal::LookupError;
use crate::telemetry::RequestKind;

/// The accepted media types: both formats and their indexes, and schema 1, so that a registry with nothing else sends
/// it. One header has all of them, since some registries read only the first header.
pub(super) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.v1+prettyjws;q=0.1, \
    application/vnd.docker.distribution.manifest.v1+json;q=0.1";

/// The maximum number of headers that claim a digest.
const MAX_CLAIMS: usize = 4;

/// Returns the values of `Docker-Content-Digest` that are not empty. Some registries send an empty header, which counts
/// as absent.
pub(crate) fn claimed_digests(headers: &HeaderMap) -> impl Iterator<Item = &HeaderValue> {
    headers.get_all("docker-content-digest").iter().filter(|value| !value.as_bytes().trim_ascii().is_empty())
}

#[async_trait]
impl ResolveDigest for Client {
    async fn resolve(&self, image: &Reference, deadline: Instant) -> Result<Arc<HashedManifest>, LookupError> {
        let budget = TimeBudget::until(deadline);
        let primary = self.target(image.repository())?;
        let ask = |target, budget| self.manifest(target, image, budget).boxed();
        self.with_mirrors(primary, budget, ask).await
    }
}

impl Client {
    /// Asks the registry, and its mirrors in turn if it can't be asked. A 404 or 401 of the registry is the answer; of
    /// a mirror, only a success counts.
    pub(crate) async fn with_mirrors<'a, T>(
        &'a self,
        primary: Target,
        budget: TimeBudget,
        ask: impl Fn(Target, TimeBudget) -> BoxFuture<'a, Result<T, LookupError>> + Send + 'a,
    ) -> Result<T, LookupError> {
        let mirrors = primary.mirrors(&self.settings);
        let share = |others: usize| if others == 0 { budget } else { budget.half() };
        let registry = Arc::clone(&primary.remote.registry);
        let outcome = ask(primary, share(mirrors.len())).await;
        let error = match outcome {
            Err(error) if error.is_outage() => error,
            outcome => return outcome,
        };
        let mut others = mirrors.len();
        for mirror in mirrors {
            others -= 1;
            let name = mirror.repository.clone();
            tracing::info!(%registry, mirror = %name, %error, "asking a mirror");
            match ask(mirror, share(others)).await {
                Ok(found) => return Ok(found),
                Err(error) => tracing::info!(mirror = %name, %error, "the mirror has no usable answer"),
            }
        }
        Err(error)
    }

    async fn manifest(
        &self,
        target: Target,
        image: &Reference,
        budget: TimeBudget,
    ) -> Result<Arc<HashedManifest>, LookupError> {
        let which = match (image.digest(), image.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.as_str().to_owned(),
            (None, None) => "latest".to_owned(),
        };
        let path = format!("v2/{}/manifests/{which}", target.path);
        let what = RequestSpec {
            path: &path,
            accept: Some(ACCEPTED),
            kind: RequestKind::Manifest,
            limit: self.manifest_bytes,
        };
        let Fetched { url, answer } = self.fetch(&target, &what, budget).await?;
        if answer.status == 404 {
            let registry = (&*target.remote.registry).into();
            return Err(LookupError::ManifestUnknown { registry, url: shown(&url) });
        }
        let (asked, headers) = (image.digest().copied(), answer.headers);
        let outcome = self.read_body(answer.body, budget, move |body| read(asked, &headers, body)).await;
        match outcome.map_err(|failure| failure.at(&target.remote.registry, &url, budget.total()))? {
            Ok(resolved) => Ok(Arc::new(resolved)),
            Err(UnusableAnswer::Answer(what)) => Err(self.misbehaved(&target, &url, what.to_owned(), budget)),
            Err(UnusableAnswer::Manifest(error)) => Err(LookupError::UnsupportedManifest { url: shown(&url), error }),
        }
    }
}

/// The reason why no decision can be based on an answer.
enum UnusableAnswer {
    Answer(&'static str),
    Manifest(ManifestError),
}

/// Reads a manifest, and compares its bytes with the digests that the request and the headers name.
fn read(asked: Option<Digest>, headers: &HeaderMap, body: &[u8]) -> Result<HashedManifest, UnusableAnswer> {
    let hashed = match asked {
        Some(asked) => Hashed::expected(asked, body)
            .ok_or(UnusableAnswer::Answer("what it sends does not have the digest that was asked for"))?,
        None => Hashed::sha256(body),
    };
    let digest = hashed.digest();
    for (number, claimed) in claimed_digests(headers).enumerate() {
        // Each header may require another hash of the body.
        if number == MAX_CLAIMS {
            return Err(UnusableAnswer::Answer("it sends many Docker-Content-Digest headers"));
        }
        match claimed.to_str().map(Digest::parse) {
            Ok(Ok(claimed)) if claimed == digest || claimed.matches(body) => {}
            // A digest of an unknown algorithm can't be compared.
            Ok(Err(DigestError::UnknownAlgorithm)) => {}
            Ok(Ok(_)) => {
                return Err(UnusableAnswer::Answer(
                    "its Docker-Content-Digest header is not the digest of what it sends",
                ));
            }
            Ok(Err(_)) | Err(_) => return Err(UnusableAnswer::Answer("its Docker-Content-Digest header is no digest")),
        }
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let content_type = types.next();
    if types.next().is_some() {
        return Err(UnusableAnswer::Answer("it sends several Content-Type headers"));
    }
    let content_type = match content_type.map(|value| value.to_str()) {
        None => None,
        Some(Ok(text)) => Some(text),
        Some(Err(_)) => return Err(UnusableAnswer::Answer("its Content-Type header is not text")),
    };
    hashed.manifest(content_type).map_err(UnusableAnswer::Manifest)
}
