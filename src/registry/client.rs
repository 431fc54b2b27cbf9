//! The client: knows how each registry wants to be asked, and asks.

use std::{sync::Arc, time::Duration};

use moka::{Expiry, future::Cache};
use reqwest::{
    Method,
    header::{ACCEPT, CONTENT_RANGE, HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use tokio::time::timeout_at;
use url::Url;

use super::{
    challenge::{Challenge, ChallengeError},
    failure::{Failure, shown},
    guard::NamesHosts,
    settings::{AllSettings, SetupError},
    target::Target,
    token::{Access, Grant, Need, Tokens},
    transport::{Answer, Ask, Budget, Content, Transport},
};
use crate::configuration::{Limits, Registries, SignatureSource};
use crate::image::Repository;
use crate::operations::{Metrics, RequestKind};
use crate::verdict::LookupError;

/// How long it is remembered how a registry wants to be asked.
const REMEMBERED: Duration = Duration::from_mins(5);
/// The same where a registry has no signature extension: somebody may be about to give it one.
const REMEMBERED_WITHOUT_EXTENSION: Duration = Duration::from_secs(30);
/// The time that one ping has, whoever waits for it.
const PING: Duration = Duration::from_secs(15);
/// The part of it for TLS where plain HTTP is tried, too: a server that knows no TLS may keep silent.
const TLS_BEFORE_PLAIN: Duration = Duration::from_secs(2);
/// Registries, and challenges of repositories, that are remembered.
const MOST_REMEMBERED: u64 = 10_000;
/// Says that a registry has the signature extension.
const EXTENSION: &str = "x-registry-supports-signatures";

/// Asks registries and signature sources. Cheap to share: one for the process.
pub struct Client {
    pub(super) transport: Transport,
    pub(super) settings: AllSettings,
    pub(super) manifest_bytes: usize,
    signature_list_bytes: usize,
    tokens: Tokens,
    origins: Cache<OriginKey, Arc<Origin>>,
    challenges: Cache<(OriginKey, Box<str>), Challenge>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct OriginKey {
    settings: usize,
    base: Url,
}

/// What `GET /v2/` says of a registry.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// Where it is: https, or http where that is allowed and all there is. A slash is at the end.
    pub(crate) base: Url,
    /// Whether it announces the signature extension.
    pub(crate) has_signatures: bool,
    challenge: Option<Challenge>,
}

struct Remembered;

impl Expiry<OriginKey, Arc<Origin>> for Remembered {
    fn expire_after_create(&self, _: &OriginKey, origin: &Arc<Origin>, _: std::time::Instant) -> Option<Duration> {
        Some(if origin.has_signatures { REMEMBERED } else { REMEMBERED_WITHOUT_EXTENSION })
    }
}

/// What is fetched of a server.
pub(crate) struct What<'a> {
    /// Below the server's base.
    pub(crate) path: &'a str,
    pub(crate) accept: Option<&'static str>,
    pub(crate) kind: RequestKind,
    /// Bytes that a good answer may have.
    pub(crate) limit: usize,
}

/// How a server is asked.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Where, if not at [`What::path`]: what the server answered in `Location`, perhaps another host. Credentials stay
    /// with the server.
    pub(crate) location: Option<Url>,
    pub(crate) content: Option<Content>,
    /// Which part of a whole the content is: `first-last`.
    pub(crate) content_range: Option<HeaderValue>,
    /// What a token has to allow.
    pub(crate) access: Access,
    /// Whether it may be sent again as it is, where nothing says what became of the first time.
    pub(crate) repeat: bool,
}

impl Request {
    const GET: Self = Self::new(Method::GET, Access::Pull);

    /// One without content.
    pub(crate) const fn new(method: Method, access: Access) -> Self {
        Self { method, location: None, content: None, content_range: None, access, repeat: true }
    }
}

/// An answer. Of [`Client::fetch`] its status is 200 or 404; anything else is an error.
pub(crate) struct Fetched {
    pub(crate) url: Url,
    pub(crate) answer: Answer,
}

impl Client {
    /// Reads the CA files and makes the clients. `named` says which hosts the policy names ([`super::PolicyHosts`]); those of
    /// registries entries are known from `registries`.
    ///
    /// # Errors
    /// A CA file that is missing or has no certificates; a mirror that is no prefix.
    pub fn new(
        registries: &Registries,
        limits: &Limits,
        named: Arc<dyn NamesHosts>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SetupError> {
        let settings = AllSettings::new(registries)?;
        Ok(Self {
            transport: Transport::new(settings.named.clone(), named, metrics),
            settings,
            manifest_bytes: limits.manifest_bytes,
            signature_list_bytes: limits.signature_list_bytes,
            tokens: Tokens::new(),
            origins: Cache::builder().max_capacity(MOST_REMEMBERED).expire_after(Remembered).build(),
            challenges: Cache::builder().max_capacity(MOST_REMEMBERED).time_to_live(REMEMBERED).build(),
        })
    }

    /// Where the signatures of a repository are, as its registries entry says.
    pub(crate) fn signature_sources(&self, repository: &Repository) -> Vec<SignatureSource> {
        let configured = self.settings.of(repository).signatures.clone();
        configured.unwrap_or_else(|| vec![SignatureSource::RegistryExtension])
    }

    /// A server whose URL the configuration gives, asked about a repository.
    pub(crate) fn target_at(&self, url: &Url, repository: &Repository) -> Result<Target, LookupError> {
        Target::at_url(url, repository, &self.settings).ok_or_else(|| LookupError::Unavailable {
            registry: url.host_str().unwrap_or_default().into(),
            url: shown(url),
            cause: "its URL has no host that can be asked".into(),
            retry_after: None,
        })
    }

    /// Bytes that all signatures of one source may have.
    pub(crate) fn signature_list_bytes(&self) -> usize {
        self.signature_list_bytes
    }

    /// The registry of a repository.
    pub(crate) fn target(&self, repository: &Repository) -> Result<Target, LookupError> {
        Target::of(repository, &self.settings, &self.transport).ok_or_else(|| LookupError::Unavailable {
            registry: repository.host().into(),
            url: format!("https://{}/", repository.host()).into(),
            cause: "its host is none that a URL can have".into(),
            retry_after: None,
        })
    }

    /// How a server wants to be asked: remembered, or learned by one ping for all who wait.
    pub(crate) async fn origin(&self, target: &Target, budget: Budget) -> Result<Arc<Origin>, LookupError> {
        if target.fixed {
            return Ok(Arc::new(Origin { base: target.base.clone(), has_signatures: true, challenge: None }));
        }
        let key = OriginKey { settings: target.peer.settings.number, base: target.base.clone() };
        match timeout_at(budget.deadline, self.origins.try_get_with(key, self.ping(target))).await {
            Ok(Ok(origin)) => Ok(origin),
            Ok(Err(error)) => Err((*error).clone()),
            Err(_) => Err(Failure::TimedOut.at(&target.peer.registry, &target.base, budget.total())),
        }
    }

    async fn ping(&self, target: &Target) -> Result<Arc<Origin>, LookupError> {
        let budget = Budget::of(PING);
        if !target.peer.settings.insecure {
            return self.ping_at(target, target.base.clone(), budget).await;
        }
        let first = self.ping_at(target, target.base.clone(), Budget::of(TLS_BEFORE_PLAIN)).await;
        let Err(LookupError::Unavailable { .. } | LookupError::Misbehaved { .. } | LookupError::TimedOut { .. }) =
            first
        else {
            return first;
        };
        let mut plain = target.base.clone();
        if plain.set_scheme("http").is_err() {
            return first;
        }
        match self.ping_at(target, plain, budget).await {
            Ok(origin) => Ok(origin),
            Err(LookupError::Unavailable { .. } | LookupError::TimedOut { .. }) => first,
            Err(error) => Err(error),
        }
    }

    async fn ping_at(&self, target: &Target, base: Url, budget: Budget) -> Result<Arc<Origin>, LookupError> {
        let what = What { path: "v2/", accept: None, kind: RequestKind::Ping, limit: 64 << 10 };
        let url = join(&base, what.path);
        let answer = self.ask(target, &url, &what, &Request::GET, None, budget).await?;
        let has_signatures = !answer.elsewhere && answer.headers.get(EXTENSION).is_some_and(|value| value == "1");
        match answer.status {
            200 => Ok(Arc::new(Origin { base, has_signatures, challenge: None })),
            // A challenge that can't be read is an error when it is needed: what is asked for may be open to all.
            401 => Ok(Arc::new(Origin { base, has_signatures, challenge: challenge(&answer).ok() })),
            429 | 500.. => Err(self.status(target, &url, &answer, &Grant::NONE, budget)),
            _ => Ok(Arc::new(Origin { base, has_signatures: false, challenge: None })),
        }
    }

    /// Fetches something of a server, with whatever it takes to be let in.
    pub(crate) async fn fetch(&self, target: &Target, what: &What<'_>, budget: Budget) -> Result<Fetched, LookupError> {
        let (fetched, grant) = self.exchange(target, what, Request::GET, budget).await?;
        match fetched.answer.status {
            200 | 404 => Ok(fetched),
            _ => Err(self.status(target, &fetched.url, &fetched.answer, &grant, budget)),
        }
    }

    /// Sends something to a server, with whatever it takes to be let in. What any status but those of trouble (429, 5xx)
    /// means is the caller's to say.
    pub(crate) async fn send(
        &self,
        target: &Target,
        what: &What<'_>,
        request: Request,
        budget: Budget,
    ) -> Result<Fetched, LookupError> {
        let (fetched, grant) = self.exchange(target, what, request, budget).await?;
        match fetched.answer.status {
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
        what: &What<'_>,
        request: Request,
        budget: Budget,
    ) -> Result<(Fetched, Grant), LookupError> {
        let origin = self.origin(target, budget).await?;
        let url = request.location.clone().unwrap_or_else(|| join(&origin.base, what.path));
        if url.origin() != origin.base.origin() {
            // Somebody else's host: no credentials, and not named because the registry is.
            let mut stranger = target.clone();
            stranger.peer.named = false;
            let answer = self.ask(&stranger, &url, what, &request, None, budget).await?;
            return Ok((Fetched { url, answer: Answer { elsewhere: true, ..answer } }, Grant::NONE));
        }
        let key = (OriginKey { settings: target.peer.settings.number, base: origin.base.clone() }, target.path.clone());
        let known = match self.challenges.get(&key).await {
            Some(challenge) => Some(challenge),
            None => origin.challenge.clone(),
        };
        let mut grant = match &known {
            Some(challenge) => {
                let need = Need { challenge, access: &request.access, refused: None };
                self.grant(target, &origin, need, budget).await?
            }
            None => Grant::NONE,
        };
        let first = self.ask(target, &url, what, &request, grant.header.clone(), budget).await;
        if let (Err(LookupError::Unavailable { .. }), false) = (&first, target.fixed) {
            // Perhaps it came back elsewhere: without TLS, or with it.
            let base = target.base.clone();
            self.origins.invalidate(&OriginKey { settings: target.peer.settings.number, base }).await;
        }
        let mut answer = first?;
        if answer.status == 401 && !answer.elsewhere {
            let asked_for = challenge(&answer)
                .map_err(|error| self.misbehaved(target, &url, format!("it answers 401, but {error}"), budget))?;
            let refused = grant.header.as_ref();
            let need = Need { challenge: &asked_for, access: &request.access, refused };
            let fresh = self.grant(target, &origin, need, budget).await?;
            if fresh.header.is_some() && (fresh.header != grant.header) {
                grant = fresh;
                answer = self.ask(target, &url, what, &request, grant.header.clone(), budget).await?;
                if answer.status != 401 && known.as_ref() != Some(&asked_for) {
                    self.challenges.insert(key, asked_for).await;
                }
            } else {
                grant.withheld = grant.withheld.or(fresh.withheld);
            }
        }
        Ok((Fetched { url, answer }, grant))
    }

    async fn grant(
        &self,
        target: &Target,
        origin: &Origin,
        need: Need<'_>,
        budget: Budget,
    ) -> Result<Grant, LookupError> {
        self.tokens.answer(&self.transport, target, &origin.base, &need, budget).await
    }

    /// Fetches without any credentials and without asking first: for web servers that are no registries.
    pub(crate) async fn fetch_plain(
        &self,
        target: &Target,
        what: &What<'_>,
        budget: Budget,
    ) -> Result<Fetched, LookupError> {
        let url = join(&target.base, what.path);
        let answer = self.ask(target, &url, what, &Request::GET, None, budget).await?;
        match answer.status {
            200 | 404 => Ok(Fetched { url, answer }),
            _ => Err(self.status(target, &url, &answer, &Grant::NONE, budget)),
        }
    }

    async fn ask(
        &self,
        target: &Target,
        url: &Url,
        what: &What<'_>,
        request: &Request,
        authorization: Option<HeaderValue>,
        budget: Budget,
    ) -> Result<Answer, LookupError> {
        let mut headers = HeaderMap::new();
        if let Some(accept) = what.accept {
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
        }
        if let Some(range) = &request.content_range {
            headers.insert(CONTENT_RANGE, range.clone());
        }
        let (kind, limit, repeat) = (what.kind, what.limit, request.repeat);
        let (method, content) = (request.method.clone(), request.content.clone());
        let ask = Ask { peer: &target.peer, url, kind, headers, authorization, method, content, repeat, limit, budget };
        self.transport.ask(&ask).await.map_err(|failure| ask.failed(failure))
    }

    /// What a status that is no success means.
    fn status(&self, target: &Target, url: &Url, answer: &Answer, grant: &Grant, budget: Budget) -> LookupError {
        let registry: Box<str> = (&*target.peer.registry).into();
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
    pub(crate) fn misbehaved(&self, target: &Target, url: &Url, what: String, budget: Budget) -> LookupError {
        Failure::Misbehaved(what).at(&target.peer.registry, url, budget.total())
    }
}

fn challenge(answer: &Answer) -> Result<Challenge, ChallengeError> {
    Challenge::parse(answer.headers.get_all(WWW_AUTHENTICATE).iter().map(HeaderValue::as_bytes))
}

/// A path below a base. Paths are made of checked names, tags and digests: nothing in them needs escaping.
pub(crate) fn join(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path()));
    url
}
