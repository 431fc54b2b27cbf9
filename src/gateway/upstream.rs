//! The registry behind the gateway.

use std::{sync::Arc, time::Duration};

use actix_web::http::{StatusCode, header::HeaderValue};
use moka::future::Cache;
use reqwest::{
    Client, Method,
    header::{self, HeaderMap},
    redirect,
};
use url::Url;

use super::{error::ApiError, store::ImageId};
use crate::configuration::Upstream;
use crate::image::{Digest, digest::Algorithm};
use crate::redact::shown;
use crate::refusal::LookupError;
use crate::registry::{
    self, Answer, Challenge, Failure, HostSet, OutgoingRequest, RemoteServer, SetupError, TimeBudget, Transport,
    claimed_digests, exchange,
};
use crate::telemetry::RequestKind;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections to the registry that each worker keeps.
const MAX_IDLE_CONNECTIONS: usize = 32;
/// How long the registry may take to say whether an image exists.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it is remembered that everyone may pull an image. Whoever makes a repository private waits this long until
/// its signatures, which were public until then, are private too.
const PUBLIC_IMAGE_TTL: Duration = Duration::from_mins(1);
/// How many images that everyone may pull are remembered.
const MAX_PUBLIC_IMAGES: u64 = 100_000;

/// All that a signature can belong to; without these in `Accept`, old registries convert what they have.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v1+prettyjws";

/// The registry's address, and what its certificate is verified with; checked.
pub(super) struct Settings {
    url: Url,
    token_realms: Vec<Url>,
    insecure: bool,
    /// Bytes that a manifest may have.
    max_manifest_bytes: usize,
    upstream: registry::Upstream,
}

impl Settings {
    pub(super) fn new(settings: &Upstream, max_manifest_bytes: usize) -> Result<Self, SetupError> {
        let Upstream { url, ca_file, token_realms, insecure } = settings;
        let upstream = registry::Upstream::new("gateway.registry.caFile", ca_file.as_deref())?;
        Ok(Self {
            url: url.clone(),
            token_realms: token_realms.clone(),
            insecure: *insecure,
            max_manifest_bytes,
            upstream,
        })
    }

    /// The registry for one worker: connections are driven on the runtime that uses them first.
    pub(super) fn registry(&self, cache: UpstreamCache) -> Result<Registry, SetupError> {
        let mut tls = self.upstream.tls();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            // What redirects lead to is the client's to fetch, with or without its credentials.
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
            .build()?;
        let mut named = HostSet::default();
        named.add_url(&self.url);
        self.token_realms.iter().for_each(|realm| named.add_url(realm));
        let name = self.url.host_str().unwrap_or_default();
        let settings = Arc::new(self.upstream.settings(&self.token_realms, self.insecure)?);
        let peer = RemoteServer::new(name, settings, true);
        let requests = self.upstream.requests();
        let named_by_rules = Arc::new(|_: &str| false);
        let transport = Transport::new(named, named_by_rules, self.max_manifest_bytes, requests, Arc::default());
        Ok(Registry {
            url: self.url.clone(),
            max_manifest_bytes: self.max_manifest_bytes,
            client,
            peer,
            transport: Arc::new(transport),
            cache,
        })
    }
}

/// The registry, as one worker sees it.
#[derive(Clone)]
pub(super) struct Registry {
    url: Url,
    max_manifest_bytes: usize,
    /// For what passes through.
    client: Client,
    /// For this program's own questions.
    peer: RemoteServer,
    transport: Arc<Transport>,
    cache: UpstreamCache,
}

/// What was learned of the registry, shared by all workers.
#[derive(Clone)]
pub(super) struct UpstreamCache {
    /// Images that everyone may pull.
    public: Cache<ImageId, ()>,
    required_auth: Cache<(), RequiredAuth>,
}

impl UpstreamCache {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            public: Cache::builder().max_capacity(MAX_PUBLIC_IMAGES).time_to_live(PUBLIC_IMAGE_TTL).build(),
            required_auth: Cache::builder().max_capacity(1).time_to_live(REQUIRED_AUTH_TTL).build(),
        }
    }
}

#[cfg(test)]
impl UpstreamCache {
    /// What a registry wants that need not be there.
    pub(super) async fn with_required_auth(required_auth: RequiredAuth) -> Self {
        let cache = Self::new();
        cache.required_auth.insert((), required_auth).await;
        cache
    }
}

/// What the registry wants of whoever brings nothing along.
#[derive(Clone, Debug)]
pub(super) enum RequiredAuth {
    /// Nothing: it is open.
    Nothing,
    /// A name and a password; with the challenge as it came.
    Basic(HeaderValue),
    /// A token.
    Bearer {
        /// Where from.
        realm: Url,
        /// For what.
        service: Option<Box<str>>,
    },
}

/// How long it is remembered what the registry wants.
const REQUIRED_AUTH_TTL: Duration = Duration::from_mins(1);

/// Whether a caller may pull an image.
#[derive(Debug)]
pub(super) enum PullAnswer {
    /// Yes, so it exists.
    Yes,
    /// There is no such image, or the registry says so to this caller.
    Unknown,
    /// No. The registry's challenges go with it.
    No(ApiError, Vec<HeaderValue>),
    /// It can't be said; `Retry-After` of the registry goes with it.
    Undecided(ApiError, Option<HeaderValue>),
}

impl Registry {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// What was learned of it.
    pub(super) fn cache(&self) -> &UpstreamCache {
        &self.cache
    }

    /// The registry's URL of a raw path and query, neither touched. Nothing: they mean something else in a URL.
    pub(super) fn url_of(&self, path_and_query: &str) -> Option<Url> {
        // A registry's address has no path of its own; the configuration takes none.
        let url = Url::parse(&format!("{}{path_and_query}", self.url.origin().ascii_serialization())).ok()?;
        let path = path_and_query.split(['?', '#']).next()?;
        (url.path() == path && url.fragment().is_none()).then_some(url)
    }

    /// What the registry wants of whoever brings nothing along: what `/v2/` says to that.
    pub(super) async fn required_auth(&self) -> Result<RequiredAuth, ApiError> {
        self.cache.required_auth.try_get_with((), self.probe_required_auth()).await.map_err(|error| (*error).clone())
    }

    async fn probe_required_auth(&self) -> Result<RequiredAuth, ApiError> {
        let url = self.url_of("/v2/").ok_or_else(ApiError::bad_gateway)?;
        let ask = OutgoingRequest {
            remote: &self.peer,
            url: &url,
            method: Method::GET,
            kind: RequestKind::Ping,
            headers: HeaderMap::new(),
            authorization: None,
            content: None,
            limit: 64 << 10,
            repeat: true,
            longest_wait: Duration::ZERO,
            budget: TimeBudget::of(LOOKUP_TIMEOUT),
        };
        let answer = self.transport.ask_once(&ask).await.map_err(|failure| {
            tracing::warn!(error = %ask.failed(failure), "the registry can't be asked what it wants");
            ApiError::unavailable()
        })?;
        if answer.status != 401 || answer.elsewhere {
            return if answer.status >= 500 || answer.status == 429 {
                Err(ApiError::unavailable())
            } else {
                Ok(RequiredAuth::Nothing)
            };
        }
        let fields = || answer.headers.get_all(header::WWW_AUTHENTICATE).iter();
        match Challenge::parse(fields().map(header::HeaderValue::as_bytes)) {
            Ok(Challenge::Bearer { realm, service }) => Ok(RequiredAuth::Bearer { realm, service }),
            Ok(Challenge::Basic) => {
                let basic = fields().find(|field| {
                    field.as_bytes().get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic"))
                });
                let basic = basic.and_then(|field| HeaderValue::from_bytes(field.as_bytes()).ok());
                Ok(RequiredAuth::Basic(basic.unwrap_or_else(|| HeaderValue::from_static("Basic realm=\"registry\""))))
            }
            Err(error) => {
                tracing::warn!(%error, "the registry's challenge can't be read");
                Err(ApiError::bad_gateway())
            }
        }
    }

    /// The registry's own token for these scopes, with a caller's credentials or none.
    pub(super) async fn token(
        &self,
        (realm, service): (&Url, Option<&str>),
        scopes: &[String],
        credentials: Option<header::HeaderValue>,
    ) -> Result<(header::HeaderValue, Duration), ApiError> {
        let server = (&self.peer, &self.url);
        let token =
            exchange(&self.transport, server, (realm, service), scopes, credentials, TimeBudget::of(LOOKUP_TIMEOUT))
                .await;
        token.map_err(|error| match error {
            LookupError::Unauthorized { .. } => ApiError::rejected("the registry does not take these credentials"),
            error => {
                tracing::warn!(%error, "the registry gives out no token");
                ApiError::no_token()
            }
        })
    }

    /// Whether a caller with this `Authorization` may pull the image; that everyone may is remembered.
    pub(super) async fn may_pull(&self, image: &ImageId, authorization: Option<&HeaderValue>) -> PullAnswer {
        if self.cache.public.get(image).await.is_some() {
            return PullAnswer::Yes;
        }
        self.may_pull_now(image, authorization).await
    }

    /// The same, asked of the registry in any case: the image may be gone.
    ///
    /// That everyone may pull an image is learned here alone, from an answer to a request that this program made, without
    /// anything of the caller's. In what passes through there are paths that the registry reads in another way, and
    /// credentials of kinds that nobody knows here (cookies, header fields, queries). What the registry says to credentials
    /// is not kept: they may be withdrawn.
    ///
    /// Some registries redirect such a question, too. That is followed, to another host without the caller's credentials, and
    /// only at a public address. A login page answers 200 as well, so that a yes has the manifest's digest in it: in
    /// `Docker-Content-Digest` or, where a registry leaves that out (the specification lets it), by the manifest's bytes.
    pub(super) async fn may_pull_now(&self, image: &ImageId, authorization: Option<&HeaderValue>) -> PullAnswer {
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

    /// Whether the manifest with this digest is there; an error is another answer than yes.
    ///
    /// It is asked for by HEAD, and by GET where the answer to that does not settle it: there are registries that know no HEAD
    /// of manifests, and answer it with 404 (Nexus), 403 (registry.centos.org), 405 (distribution 2.2) or anything else.
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
                // The same credentials would be refused again, and a registry that is overrun must not get two requests for
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
        // Off this thread: there may be megabytes of it.
        let is_it = tokio::task::spawn_blocking(move || digest.matches(&body)).await.unwrap_or(false);
        if is_it { Ok(PullAnswer::Yes) } else { Err(another_manifest(url)) }
    }

    /// Asks for a manifest, once more if the connection was lost.
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
            // The registry had closed a connection that was kept; or it will be so again.
            Err(Failure::Lost) => self.transport.ask_once(&ask).await,
            answer => answer,
        };
        answer.inspect_err(|failure| {
            let error = ask.failed(failure.clone());
            tracing::warn!(%error, method = %ask.method, "the registry can't be asked for a manifest");
        })
    }
}

/// Returns what a caller gets where the registry gives no answer.
fn unanswered(failure: &Failure) -> PullAnswer {
    let refused = match failure {
        Failure::Unavailable(_) | Failure::Unresolved | Failure::Exhausted(..) => ApiError::unavailable(),
        Failure::TimedOut => ApiError::timed_out(),
        Failure::Lost | Failure::NotPublic | Failure::Misbehaved(_) => ApiError::bad_gateway(),
    };
    PullAnswer::Undecided(refused, None)
}

/// Returns what a caller gets where the registry answers with another status than 200.
fn refusal(answer: &Answer) -> PullAnswer {
    let copied = |name| -> Vec<HeaderValue> {
        let values = answer.headers.get_all(name).iter();
        values.filter_map(|value| HeaderValue::from_bytes(value.as_bytes()).ok()).collect()
    };
    match StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY) {
        StatusCode::NOT_FOUND => PullAnswer::Unknown,
        // Where it redirects to, nobody is to log in.
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
            tracing::warn!(%status, "the registry answers a request for a manifest with a status that is no answer to it");
            PullAnswer::Undecided(ApiError::bad_gateway(), None)
        }
    }
}

/// Returns what a caller gets where the registry answers 200 with something else than the manifest.
fn another_manifest(url: &Url) -> PullAnswer {
    tracing::warn!(url = %shown(url), "the registry answers a request for a manifest with another one, or with something else");
    PullAnswer::Undecided(ApiError::bad_gateway(), None)
}

/// The digest that an answer names. `None`: none of this algorithm, so that it can't be compared.
fn claimed_digest(headers: &HeaderMap, algorithm: Algorithm) -> Option<Result<Digest, ()>> {
    let mut of_algorithm = claimed_digests(headers).filter_map(|said| {
        match said.to_str().ok().and_then(|text| Digest::parse(text).ok()) {
            Some(said) if said.algorithm() != algorithm => None,
            said => Some(said.ok_or(())),
        }
    });
    let first = of_algorithm.next()?;
    // One of several that differ is not believed.
    Some(if of_algorithm.all(|other| other == first) { first } else { Err(()) })
}

/// What a client is told of a failed request.
pub(super) fn failure(error: &reqwest::Error) -> ApiError {
    if error.is_connect() {
        ApiError::unavailable()
    } else if error.is_timeout() {
        ApiError::timed_out()
    } else {
        ApiError::bad_gateway()
    }
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

    #[test]
    fn paths_and_queries_stay_as_they_were_sent() {
        let upstream =
            Upstream { url: "http://r:5000".parse().unwrap(), ca_file: None, token_realms: Vec::new(), insecure: true };
        let settings = Settings::new(&upstream, 0).unwrap();
        let registry = settings.registry(UpstreamCache::new()).unwrap();
        for path in
            ["/v2/", "/v2/a/blobs/sha256%3A00?x=%2F%20&y=a+b&_state=A%3D", "/v2/a//b", "/v2/?", "/v2/a~b?n=1&n=2"]
        {
            assert_eq!(registry.url_of(path).unwrap().as_str(), format!("http://r:5000{path}"));
        }
        for path in ["/v2/../x", "/v2/%2e%2e/x", "/v2/a\\..\\x", "/v2/#/x"] {
            assert!(registry.url_of(path).is_none(), "{path}");
        }
    }
}
