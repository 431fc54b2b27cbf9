//! Checks whether a caller may pull an image.

use std::time::Duration;

use actix_web::http::{StatusCode, header::HeaderValue};
use reqwest::{
    Method,
    header::{self, HeaderMap},
};
use url::Url;

use super::registry::{LOOKUP_TIMEOUT, Registry};
use crate::gateway::{error::ApiError, store::ImageId};
use crate::image::Digest;
use crate::image::digest::Algorithm;
use crate::redact::shown;
use crate::registry::{Answer, Failure, OutgoingRequest, TimeBudget, claimed_digests};
use crate::telemetry::RequestKind;

/// The media types of all manifests that a signature can belong to; without these in `Accept`, old registries convert
/// manifests.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v1+prettyjws";

/// The result of the check whether a caller may pull an image.
#[derive(Debug)]
pub(in crate::gateway) enum PullAnswer {
    /// The caller may, so the image exists.
    Yes,
    /// There is no such image, or the registry says so to this caller.
    Unknown,
    /// The caller may not; with the registry's challenges.
    No(ApiError, Vec<HeaderValue>),
    /// It can't be determined; with the registry's `Retry-After`.
    Undecided(ApiError, Option<HeaderValue>),
}

impl Registry {
    /// Returns whether a caller with this `Authorization` may pull the image. Caches that everyone may.
    pub(in crate::gateway) async fn may_pull(
        &self,
        image: &ImageId,
        authorization: Option<&HeaderValue>,
    ) -> PullAnswer {
        if self.cache.public.get(image).await.is_some() {
            return PullAnswer::Yes;
        }
        self.may_pull_now(image, authorization).await
    }

    /// Asks the registry whether a caller may pull the image, without the cache: the image may have been removed.
    ///
    /// Only this function finds out that everyone may pull an image, from the answer to a request of its own without
    /// anything of the caller's. Requests that pass through prove nothing: the registry may interpret their paths
    /// differently, and they may carry unknown kinds of credentials (cookies, header fields, queries). Answers to
    /// requests with credentials are not cached, since the credentials may be revoked.
    ///
    /// A redirect is followed, to another host without the caller's credentials, and only at a public address. A login
    /// page answers 200 as well, so a positive answer must prove the manifest's digest: by `Docker-Content-Digest`, or,
    /// if a registry leaves that out (the specification allows it), by the manifest's bytes.
    pub(in crate::gateway) async fn may_pull_now(
        &self,
        image: &ImageId,
        authorization: Option<&HeaderValue>,
    ) -> PullAnswer {
        let path = format!("/v2/{}/manifests/{}", image.repository.as_str(), image.digest);
        let Some(url) = self.url_of(&path) else { return PullAnswer::Unknown };
        let authorization = match authorization.map(|value| header::HeaderValue::from_bytes(value.as_bytes())) {
            None => None,
            Some(Ok(mut value)) => {
                value.set_sensitive(true);
                Some(value)
            }
            Some(Err(_)) => {
                let refused = ApiError::bad_request("the field Authorization has characters in it that it can't have");
                return PullAnswer::No(refused, Vec::new());
            }
        };
        let anonymous = authorization.is_none();
        let pull = self.find_manifest(&url, image.digest, authorization).await.unwrap_or_else(|pull| pull);
        if anonymous && matches!(pull, PullAnswer::Yes) {
            self.cache.public.insert(image.clone(), ()).await;
        }
        pull
    }

    /// Checks that the manifest with this digest exists; any other answer is an error.
    ///
    /// Asks by HEAD, and by GET if the answer to that is inconclusive. Some registries do not support HEAD for
    /// manifests, and answer it with 404 (Nexus), 403 (registry.centos.org), 405 (distribution 2.2) or anything else.
    async fn find_manifest(
        &self,
        url: &Url,
        digest: Digest,
        authorization: Option<header::HeaderValue>,
    ) -> Result<PullAnswer, PullAnswer> {
        let budget = TimeBudget::of(LOOKUP_TIMEOUT);
        match self.ask_for_manifest(url, Method::HEAD, authorization.clone(), budget).await {
            Ok(head) => match (head.status, claimed_digest(&head.headers, digest.algorithm())) {
                (200, Some(named)) if named == Ok(digest) => return Ok(PullAnswer::Yes),
                (200, Some(_)) => return Err(another_manifest(url)),
                // The same credentials would be refused again, and an overloaded registry must not get two requests for
                // each.
                (401 | 429, _) => return Err(refusal(&head)),
                _ => {}
            },
            Err(Failure::Lost | Failure::Misbehaved(_)) => {}
            Err(failure) => return Err(unanswered(&failure)),
        }
        let get = self.ask_for_manifest(url, Method::GET, authorization, budget).await;
        let get = get.map_err(|failure| unanswered(&failure))?;
        if get.status != 200 {
            return Err(refusal(&get));
        }
        let Answer { body, headers, .. } = get;
        if claimed_digest(&headers, digest.algorithm()).is_some_and(|named| named != Ok(digest)) {
            return Err(another_manifest(url));
        }
        // Hashing megabytes takes time, so it does not block this thread.
        let is_it = tokio::task::spawn_blocking(move || digest.matches(&body)).await.unwrap_or(false);
        if is_it { Ok(PullAnswer::Yes) } else { Err(another_manifest(url)) }
    }

    /// Asks for a manifest, with one retry if the connection was lost.
    async fn ask_for_manifest(
        &self,
        url: &Url,
        method: Method,
        authorization: Option<header::HeaderValue>,
        budget: TimeBudget,
    ) -> Result<Answer, Failure> {
        let ask = OutgoingRequest {
            remote: &self.peer,
            url,
            limit: if method == Method::HEAD { 0 } else { self.max_manifest_bytes },
            method,
            kind: RequestKind::Manifest,
            headers: HeaderMap::from_iter([(header::ACCEPT, header::HeaderValue::from_static(MANIFEST_TYPES))]),
            authorization,
            content: None,
            repeat: false,
            longest_wait: Duration::ZERO,
            budget,
        };
        let answer = match self.transport.ask_once(&ask).await {
            // The registry may have closed an idle connection; otherwise the retry fails, too.
            Err(Failure::Lost) => self.transport.ask_once(&ask).await,
            answer => answer,
        };
        answer.inspect_err(|failure| {
            let error = ask.failed(failure.clone());
            tracing::warn!(%error, method = %ask.method, "the registry can't be asked for a manifest");
        })
    }
}

/// Returns the caller's answer if the registry gives none.
fn unanswered(failure: &Failure) -> PullAnswer {
    let refused = match failure {
        Failure::Unavailable(_) | Failure::Unresolved | Failure::Exhausted(..) => ApiError::unavailable(),
        Failure::TimedOut => ApiError::timed_out(),
        Failure::Lost | Failure::NotPublic | Failure::Misbehaved(_) => ApiError::bad_gateway(),
    };
    PullAnswer::Undecided(refused, None)
}

/// Returns the caller's answer if the registry answers with another status than 200.
fn refusal(answer: &Answer) -> PullAnswer {
    let copied = |name| -> Vec<HeaderValue> {
        let values = answer.headers.get_all(name).iter();
        values.filter_map(|value| HeaderValue::from_bytes(value.as_bytes()).ok()).collect()
    };
    match StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY) {
        StatusCode::NOT_FOUND => PullAnswer::Unknown,
        // Clients must not log in at the target of a redirect.
        StatusCode::UNAUTHORIZED if !answer.elsewhere => {
            PullAnswer::No(ApiError::unauthorized(), copied(header::WWW_AUTHENTICATE))
        }
        StatusCode::FORBIDDEN => PullAnswer::No(ApiError::denied(), Vec::new()),
        StatusCode::TOO_MANY_REQUESTS => {
            PullAnswer::Undecided(ApiError::too_many_requests(), copied(header::RETRY_AFTER).pop())
        }
        status if status.is_server_error() => {
            tracing::warn!(%status, "the registry answers a request for a manifest with a server error");
            PullAnswer::Undecided(ApiError::unavailable(), copied(header::RETRY_AFTER).pop())
        }
        status => {
            tracing::warn!(%status, "the registry answers a request for a manifest with an unexpected status");
            PullAnswer::Undecided(ApiError::bad_gateway(), None)
        }
    }
}

/// Returns the caller's answer if the registry answers 200 with something else than the manifest.
fn another_manifest(url: &Url) -> PullAnswer {
    tracing::warn!(url = %shown(url), "the registry answers a request for a manifest with another manifest, or something else");
    PullAnswer::Undecided(ApiError::bad_gateway(), None)
}

/// Returns the digest that an answer names; `None` if it names none of this algorithm, so that it can't be compared.
fn claimed_digest(headers: &HeaderMap, algorithm: Algorithm) -> Option<Result<Digest, ()>> {
    let mut of_algorithm = claimed_digests(headers).filter_map(|said| {
        match said.to_str().ok().and_then(|text| Digest::parse(text).ok()) {
            Some(said) if said.algorithm() != algorithm => None,
            said => Some(said.ok_or(())),
        }
    });
    let first = of_algorithm.next()?;
    // If several differ, none counts.
    Some(if of_algorithm.all(|other| other == first) { first } else { Err(()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_digest_says_nothing_and_several_must_agree() {
        let (one, two) = (Digest::sha256(b"one"), Digest::sha256(b"two"));
        let other = format!("sha512:{}", "0".repeat(128));
        let said = |values: &[&str]| {
            let name = header::HeaderName::from_static("docker-content-digest");
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(name.clone(), header::HeaderValue::from_str(value).unwrap());
            }
            claimed_digest(&headers, Algorithm::Sha256)
        };
        let (one_text, two_text) = (one.to_string(), two.to_string());
        for nothing in [&[][..], &[""], &["  "], &["", ""], &[&other], &["", &other]] {
            assert_eq!(said(nothing), None, "{nothing:?}");
        }
        for first in [&[one_text.as_str()][..], &["", &one_text], &[&one_text, ""], &[&one_text, &one_text, &other]] {
            assert_eq!(said(first), Some(Ok(one)), "{first:?}");
        }
        assert_eq!(said(&[&two_text]), Some(Ok(two)));
        for bad in [&["x"][..], &["", "x"], &[&one_text, &two_text], &[&one_text, "x"]] {
            assert_eq!(said(bad), Some(Err(())), "{bad:?}");
        }
    }
}
