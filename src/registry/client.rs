//! The registry client: learns how each registry is reached, and sends requests.

use std::{sync::Arc, time::Duration};

use reqwest::header::{ACCEPT, CONTENT_RANGE, HeaderMap, HeaderValue, IF_MATCH};
use url::Url;

use super::{
    allowed_hosts::AllowedHosts,
    answer::Answer,
    authorization::{AuthRequest, Authorization},
    blocking_pool::BlockingPool,
    body::Body,
    credentials::looked_in,
    failure::Failure,
    origin::{Origin, Origins, challenge},
    request::{Fetched, Request, RequestLocation, RequestSpec, join},
    request_quota::requests_in_flight,
    settings::AllSettings,
    setup_error::SetupError,
    target::Target,
    time_budget::TimeBudget,
    token::Tokens,
    transport::{MAX_SHARED_BACKOFF, OutgoingRequest, Transport},
};
use crate::configuration::{Limits, Registries, SignatureSource};
use crate::image::Repository;
use crate::redact::shown;
use crate::refusal::LookupError;
use crate::telemetry::{Metrics, RequestKind};

/// The maximum size of a body that is parsed on the runtime's worker. A larger one would block the worker's other
/// tasks.
const MAX_READ_IN_PLACE: usize = 64 << 10;
/// The maximum number of larger bodies that are parsed at once.
const MAX_CONCURRENT_READERS: usize = 2;

/// The client for registries and signature sources. It is cheap to share; a process has one.
pub struct Client {
    pub(super) transport: Transport,
    pub(super) settings: AllSettings,
    pub(super) manifest_bytes: usize,
    signature_list_bytes: usize,
    readers: BlockingPool,
    tokens: Tokens,
    pub(super) origins: Origins,
}

impl Client {
    /// Reads the CA files and makes the HTTP clients. `allowed` has the hosts that the policy names; `registries` has
    /// those of its entries.
    ///
    /// # Errors
    /// A CA file is missing or has no certificates, or a mirror is no prefix.
    pub fn new(
        registries: &Registries,
        limits: &Limits,
        allowed: Arc<dyn AllowedHosts>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SetupError> {
        let settings = AllSettings::new(registries, &metrics)?;
        let largest = limits.manifest_bytes.max(limits.signature_list_bytes);
        Ok(Self {
            transport: Transport::new(
                settings.named.clone(),
                allowed,
                largest,
                requests_in_flight(Arc::clone(&metrics)),
                metrics,
            ),
            settings,
            manifest_bytes: limits.manifest_bytes,
            signature_list_bytes: limits.signature_list_bytes,
            readers: BlockingPool::new(MAX_CONCURRENT_READERS),
            tokens: Tokens::new(),
            origins: Origins::new(),
        })
    }

    /// Returns the signature sources of a repository, from its registries entry.
    pub(crate) fn signature_sources(&self, repository: &Repository) -> Vec<SignatureSource> {
        let configured = self.settings.of(repository).signatures.clone();
        configured.unwrap_or_else(|| vec![SignatureSource::RegistryExtension])
    }

    /// Returns the target of a repository on a server whose URL is in the configuration.
    pub(crate) fn target_at(&self, url: &Url, repository: &Repository) -> Result<Target, LookupError> {
        Target::at_url(url, repository, &self.settings).ok_or_else(|| LookupError::Unavailable {
            registry: url.host_str().unwrap_or_default().into(),
            url: shown(url),
            cause: "its URL has no host that can be asked".into(),
            retry_after: None,
        })
    }

    /// Returns the maximum size of all signatures of one source, in bytes.
    pub(crate) fn signature_list_bytes(&self) -> usize {
        self.signature_list_bytes
    }

    /// Returns the target of a repository on its registry.
    pub(crate) fn target(&self, repository: &Repository) -> Result<Target, LookupError> {
        Target::of(repository, &self.settings, &self.transport).ok_or_else(|| LookupError::Unavailable {
            registry: repository.host().into(),
            url: format!("https://{}/", repository.host()).into(),
            cause: "its host is none that a URL can have".into(),
            retry_after: None,
        })
    }

    /// Fetches a resource, with authentication if the server asks for it.
    pub(crate) async fn fetch(
        &self,
        target: &Target,
        what: &RequestSpec<'_>,
        budget: TimeBudget,
    ) -> Result<Fetched, LookupError> {
        let (fetched, grant) = self.exchange(target, what, Request::GET, budget).await?;
        match fetched.answer.status {
            200 | 404 => Ok(fetched),
            _ => Err(self.status(target, &fetched.url, &fetched.answer, &grant, budget)),
        }
    }

    /// Sends a request, with authentication if the server asks for it. Trouble (429, 5xx except 501) is an error; the
    /// caller interprets all other statuses.
    pub(crate) async fn send(
        &self,
        target: &Target,
        what: &RequestSpec<'_>,
        request: Request,
        budget: TimeBudget,
    ) -> Result<Fetched, LookupError> {
        let (fetched, grant) = self.exchange(target, what, request, budget).await?;
        match fetched.answer.status {
            // 501 is permanent: the server does not support the request.
            501 => Ok(fetched),
            429 | 500.. => Err(self.status(target, &fetched.url, &fetched.answer, &grant, budget)),
            401 | 403 if grant.withheld.is_some() => {
                Err(self.status(target, &fetched.url, &fetched.answer, &grant, budget))
            }
            _ => Ok(fetched),
        }
    }

    async fn exchange(
        &self,
        target: &Target,
        what: &RequestSpec<'_>,
        request: Request,
        budget: TimeBudget,
    ) -> Result<(Fetched, Authorization), LookupError> {
        let origin = self.origin(target, budget).await?;
        let RequestLocation { url, elsewhere } = match &request.place {
            Some(place) => place.clone(),
            None => RequestLocation { url: join(&origin.base, what.path), elsewhere: false },
        };
        if elsewhere || url.origin() != origin.base.origin() {
            // Another host, or a URL that another host gave: it gets no credentials, and the registry's permission for
            // private addresses does not apply.
            let mut stranger = target.clone();
            stranger.remote.named = false;
            let answer = self.ask(&stranger, &url, what, &request, None, budget).await?;
            return Ok((Fetched { url, answer: Answer { elsewhere: true, ..answer } }, Authorization::NONE));
        }
        let known = match self.origins.challenge(target, &origin.base).await {
            Some(challenge) => Some(challenge),
            None => origin.challenge.clone(),
        };
        let mut grant = match &known {
            Some(challenge) => {
                let need = AuthRequest { challenge, access: &request.access, refused: None };
                self.grant(target, &origin, need, budget).await?
            }
            None => Authorization::NONE,
        };
        let first = self.ask(target, &url, what, &request, grant.header.clone(), budget).await;
        if let (Err(LookupError::Unavailable { .. }), false) = (&first, target.fixed) {
            // The server may have come back with TLS, or without it.
            self.origins.forget(target).await;
        }
        let mut answer = first?;
        if answer.status == 401 && !answer.elsewhere {
            let asked_for = challenge(&answer)
                .map_err(|error| self.misbehaved(target, &url, format!("it answers 401, but {error}"), budget))?;
            let refused = grant.header.as_ref();
            let need = AuthRequest { challenge: &asked_for, access: &request.access, refused };
            let fresh = self.grant(target, &origin, need, budget).await?;
            if fresh.header.is_some() && (fresh.header != grant.header) {
                grant = fresh;
                answer = self.ask(target, &url, what, &request, grant.header.clone(), budget).await?;
                if answer.status != 401 && known.as_ref() != Some(&asked_for) {
                    self.origins.remember_challenge(target, &origin.base, asked_for).await;
                }
            } else {
                grant.withheld = grant.withheld.or(fresh.withheld);
            }
        }
        answer.with_credentials = grant.with_credentials;
        Ok((Fetched { url, answer }, grant))
    }

    async fn grant(
        &self,
        target: &Target,
        origin: &Origin,
        need: AuthRequest<'_>,
        budget: TimeBudget,
    ) -> Result<Authorization, LookupError> {
        self.tokens.answer(&self.transport, target, &origin.base, &need, budget).await
    }

    /// Fetches without credentials and without a ping: for web servers that are no registries.
    pub(crate) async fn fetch_plain(
        &self,
        target: &Target,
        what: &RequestSpec<'_>,
        budget: TimeBudget,
    ) -> Result<Fetched, LookupError> {
        let url = join(&target.base, what.path);
        let answer = self.ask(target, &url, what, &Request::GET, None, budget).await?;
        match answer.status {
            200 | 404 => Ok(Fetched { url, answer }),
            status @ (401 | 403) => Err(LookupError::LookasideDenied {
                registry: (&*target.remote.registry).into(),
                url: shown(&url),
                status,
            }),
            _ => Err(self.status(target, &url, &answer, &Authorization::NONE, budget)),
        }
    }

    /// Runs `read` on the bytes of an answer, off the runtime's workers if the body is large.
    pub(crate) async fn read_body<T: Send + 'static>(
        &self,
        body: Body,
        budget: TimeBudget,
        read: impl FnOnce(&[u8]) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        if body.len() <= MAX_READ_IN_PLACE {
            return Ok(read(&body));
        }
        self.readers.run(budget.deadline, move || read(&body)).await
    }

    pub(super) async fn ask(
        &self,
        target: &Target,
        url: &Url,
        what: &RequestSpec<'_>,
        request: &Request,
        authorization: Option<HeaderValue>,
        budget: TimeBudget,
    ) -> Result<Answer, LookupError> {
        let mut headers = HeaderMap::new();
        if let Some(accept) = what.accept {
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
        }
        if let Some(range) = &request.content_range {
            headers.insert(CONTENT_RANGE, range.clone());
        }
        if let Some(tag) = &request.if_match {
            headers.insert(IF_MATCH, tag.clone());
        }
        let (kind, limit, repeat) = (what.kind, what.limit, request.repeat);
        // A ping is a single flight, with more time than its waiters have.
        let longest_wait = if kind == RequestKind::Ping { MAX_SHARED_BACKOFF } else { Duration::MAX };
        let (remote, method, content) = (&target.remote, request.method.clone(), request.content.clone());
        let ask = OutgoingRequest {
            remote,
            url,
            method,
            kind,
            headers,
            authorization,
            content,
            repeat,
            limit,
            longest_wait,
            budget,
        };
        self.transport.ask(&ask).await.map_err(|failure| ask.failed(failure))
    }

    /// Makes the error for a status that is no success.
    pub(super) fn status(
        &self,
        target: &Target,
        url: &Url,
        answer: &Answer,
        grant: &Authorization,
        budget: TimeBudget,
    ) -> LookupError {
        let registry: Box<str> = (&*target.remote.registry).into();
        match answer.status {
            status @ (401 | 403) if grant.withheld.is_some() => {
                let why = grant.withheld.unwrap_or_default();
                self.misbehaved(target, url, format!("it answers {status}, and {why}"), budget)
            }
            status @ (401 | 403) => LookupError::Unauthorized {
                registry,
                url: shown(url),
                status,
                with_credentials: grant.with_credentials && !answer.elsewhere,
                looked_in: looked_in(target.remote.settings.credentials.as_ref(), grant.with_credentials),
            },
            status @ (429 | 500..) => LookupError::Unavailable {
                registry,
                url: shown(url),
                cause: format!("it answers {status}").into(),
                retry_after: answer.retry_after(),
            },
            status => self.misbehaved(target, url, format!("it answers {status}"), budget),
        }
    }

    #[allow(clippy::unused_self)] // Reads better beside `status`.
    pub(crate) fn misbehaved(&self, target: &Target, url: &Url, what: String, budget: TimeBudget) -> LookupError {
        Failure::Misbehaved(what).at(&target.remote.registry, url, budget.total())
    }
}
