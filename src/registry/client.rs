//! The client: knows how each registry wants to be asked, and asks.

use std::{sync::Arc, time::Duration};

use moka::{Expiry, future::Cache};
use reqwest::{
    Method,
    header::{ACCEPT, CONTENT_RANGE, HeaderMap, HeaderValue, IF_MATCH, WWW_AUTHENTICATE},
};
use tokio::time::timeout_at;
use url::Url;

use super::{
    blocking_pool::Blocking,
    body::Body,
    challenge::{Challenge, ChallengeError},
    credentials::looked_in,
    dial_guard::NamesHosts,
    failure::Failure,
    request_quota::requests_in_flight,
    settings::{AllSettings, SetupError},
    target::Target,
    token::{Access, Grant, Need, Tokens},
    transport::{Answer, Ask, Budget, Content, LONGEST_WAIT_OF_A_FLIGHT, Transport},
};
use crate::configuration::{Limits, Registries, Scheme, SignatureSource};
use crate::image::Repository;
use crate::redact::shown;
use crate::refusal::LookupError;
use crate::telemetry::{Metrics, RequestKind};

/// How long it is remembered how a registry wants to be asked.
const REMEMBERED: Duration = Duration::from_mins(5);
/// The same where a registry has no signature extension: somebody may be about to give it one.
const REMEMBERED_WITHOUT_EXTENSION: Duration = Duration::from_secs(30);
/// The same where its answer said nothing: a registry, or what stands before it, is perhaps just being exchanged.
const REMEMBERED_IN_DOUBT: Duration = Duration::from_secs(2);
/// The time that one ping has, whoever waits for it.
const PING: Duration = Duration::from_secs(15);
/// The part of it for TLS where plain HTTP is tried, too: a server that knows no TLS may keep silent.
const TLS_BEFORE_PLAIN: Duration = Duration::from_secs(2);
/// Bytes that what is remembered of registries takes, roughly, and again of repositories: some ten thousand of them.
const REMEMBERED_BYTES: u64 = 8 << 20;
/// Bodies up to this size are read where they come; larger ones would keep the others of a worker waiting.
const READ_IN_PLACE: usize = 64 << 10;
/// Larger ones that are read at once.
const READERS: usize = 2;
/// Where a registry says what it is, below its base.
const PING_PATH: &str = "v2/";
/// Says that a registry has the signature extension.
const EXTENSION: &str = "x-registry-supports-signatures";

/// Asks registries and signature sources. Cheap to share: one for the process.
pub struct Client {
    pub(super) transport: Transport,
    pub(super) settings: AllSettings,
    pub(super) manifest_bytes: usize,
    signature_list_bytes: usize,
    readers: Blocking,
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
    pub(crate) extension: Extension,
    challenge: Option<Challenge>,
}

/// Bytes of an entry beside its texts, roughly.
const ENTRY: usize = 512;

fn origin_weight(key: &OriginKey, origin: &Origin) -> u32 {
    let challenge = origin.challenge.as_ref().map_or(0, Challenge::weight);
    let texts = key.base.as_str().len() + origin.base.as_str().len() + challenge;
    u32::try_from(ENTRY + texts).unwrap_or(u32::MAX)
}

fn challenge_weight((key, path): &(OriginKey, Box<str>), challenge: &Challenge) -> u32 {
    u32::try_from(ENTRY + key.base.as_str().len() + path.len() + challenge.weight()).unwrap_or(u32::MAX)
}

/// Whether a registry has the signature extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extension {
    Announced,
    NotAnnounced,
    /// It answered with this status, which says neither.
    Unknown(u16),
}

struct Remembered;

impl Expiry<OriginKey, Arc<Origin>> for Remembered {
    fn expire_after_create(&self, _: &OriginKey, origin: &Arc<Origin>, _: std::time::Instant) -> Option<Duration> {
        Some(match origin.extension {
            Extension::Announced => REMEMBERED,
            Extension::NotAnnounced => REMEMBERED_WITHOUT_EXTENSION,
            Extension::Unknown(_) => REMEMBERED_IN_DOUBT,
        })
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
    /// Where, if not at [`What::path`].
    pub(crate) place: Option<Place>,
    pub(crate) content: Option<Content>,
    /// Which part of a whole the content is: `first-last`.
    pub(crate) content_range: Option<HeaderValue>,
    /// What the server must still have for the request to do anything.
    pub(crate) if_match: Option<HeaderValue>,
    /// What a token has to allow.
    pub(crate) access: Access,
    /// Whether it may be sent again as it is, where nothing says what became of the first time.
    pub(crate) repeat: bool,
}

/// Where a server says in `Location` that something goes on: there, or at another host. Credentials stay with the server.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) url: Url,
    /// Whether another host led there: then it gets no credentials, be it at the server itself.
    pub(crate) elsewhere: bool,
}

impl Place {
    /// One that no other host led to.
    pub(crate) fn own(url: Url) -> Self {
        Self { url, elsewhere: false }
    }
}

impl Request {
    const GET: Self = Self::new(Method::GET, Access::Pull);

    /// One without content.
    pub(crate) const fn new(method: Method, access: Access) -> Self {
        Self { method, place: None, content: None, content_range: None, if_match: None, access, repeat: true }
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
        let settings = AllSettings::new(registries, &metrics)?;
        let largest = limits.manifest_bytes.max(limits.signature_list_bytes);
        Ok(Self {
            transport: Transport::new(
                settings.named.clone(),
                named,
                largest,
                requests_in_flight(Arc::clone(&metrics)),
                metrics,
            ),
            settings,
            manifest_bytes: limits.manifest_bytes,
            signature_list_bytes: limits.signature_list_bytes,
            readers: Blocking::new(READERS),
            tokens: Tokens::new(),
            origins: Cache::builder()
                .max_capacity(REMEMBERED_BYTES)
                .weigher(|key, origin: &Arc<_>| origin_weight(key, origin))
                .expire_after(Remembered)
                .build(),
            challenges: Cache::builder()
                .max_capacity(REMEMBERED_BYTES)
                .weigher(challenge_weight)
                .time_to_live(REMEMBERED)
                .build(),
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
            let base = target.base.clone();
            return Ok(Arc::new(Origin { base, extension: Extension::Announced, challenge: None }));
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
        let told = |base, answer: Result<Answer, LookupError>| self.told(target, base, &answer?, budget);
        let secure = target.base.clone();
        let mut plain = secure.clone();
        match (target.peer.settings.insecure, target.peer.settings.scheme) {
            (true, None) => {}
            (true, Some(Scheme::Http)) if plain.set_scheme("http").is_ok() => {
                let answer = self.ping_at(target, &plain, budget).await;
                return told(plain, answer);
            }
            _ => {
                let answer = self.ping_at(target, &secure, budget).await;
                return told(secure, answer);
            }
        }
        let first = self.ping_at(target, &secure, Budget::of(TLS_BEFORE_PLAIN)).await;
        let failed = |answer: &Result<Answer, LookupError>| {
            matches!(answer, Err(LookupError::Unavailable { .. } | LookupError::TimedOut { .. }))
        };
        // Whoever answers over TLS, be it that it is busy, is not asked without.
        if !(failed(&first) || matches!(first, Err(LookupError::Misbehaved { .. })))
            || plain.set_scheme("http").is_err()
        {
            return told(secure, first);
        }
        let second = self.ping_at(target, &plain, budget).await;
        if failed(&second) { told(secure, first) } else { told(plain, second) }
    }

    async fn ping_at(&self, target: &Target, base: &Url, budget: Budget) -> Result<Answer, LookupError> {
        let what = What { path: PING_PATH, accept: None, kind: RequestKind::Ping, limit: 64 << 10 };
        self.ask(target, &join(base, what.path), &what, &Request::GET, None, budget).await
    }

    /// What the answer to a ping says.
    fn told(&self, target: &Target, base: Url, answer: &Answer, budget: Budget) -> Result<Arc<Origin>, LookupError> {
        let announced = !answer.elsewhere && answer.headers.get(EXTENSION).is_some_and(|value| value == "1");
        let extension = if announced { Extension::Announced } else { Extension::NotAnnounced };
        match answer.status {
            200 => Ok(Arc::new(Origin { base, extension, challenge: None })),
            // A challenge that can't be read is an error when it is needed: what is asked for may be open to all.
            401 => Ok(Arc::new(Origin { base, extension, challenge: challenge(answer).ok() })),
            429 | 500.. => {
                let url = join(&base, PING_PATH);
                Err(self.status(target, &url, answer, &Grant::NONE, budget))
            }
            // Some registries have nothing there, and manifests all the same.
            status => Ok(Arc::new(Origin { base, extension: Extension::Unknown(status), challenge: None })),
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

    /// Sends something to a server, with whatever it takes to be let in. What any status but those of trouble (429, 5xx but
    /// 501) means is the caller's to say.
    pub(crate) async fn send(
        &self,
        target: &Target,
        what: &What<'_>,
        request: Request,
        budget: Budget,
    ) -> Result<Fetched, LookupError> {
        let (fetched, grant) = self.exchange(target, what, request, budget).await?;
        match fetched.answer.status {
            // No trouble that passes: the server can't do this at all.
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
        what: &What<'_>,
        request: Request,
        budget: Budget,
    ) -> Result<(Fetched, Grant), LookupError> {
        let origin = self.origin(target, budget).await?;
        let Place { url, elsewhere } = match &request.place {
            Some(place) => place.clone(),
            None => Place { url: join(&origin.base, what.path), elsewhere: false },
        };
        if elsewhere || url.origin() != origin.base.origin() {
            // Somebody else's word or host: no credentials, and not named because the registry is.
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
        answer.with_credentials = grant.with_credentials;
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
            status @ (401 | 403) => Err(LookupError::LookasideDenied {
                registry: (&*target.peer.registry).into(),
                url: shown(&url),
                status,
            }),
            _ => Err(self.status(target, &url, &answer, &Grant::NONE, budget)),
        }
    }

    /// Makes something of an answer's bytes, away from the runtime's workers where they are many.
    pub(crate) async fn read_body<T: Send + 'static>(
        &self,
        body: Body,
        budget: Budget,
        read: impl FnOnce(&[u8]) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        if body.len() <= READ_IN_PLACE {
            return Ok(read(&body));
        }
        self.readers.run(budget.deadline, move || read(&body)).await
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
        if let Some(tag) = &request.if_match {
            headers.insert(IF_MATCH, tag.clone());
        }
        let (kind, limit, repeat) = (what.kind, what.limit, request.repeat);
        // A ping is a flight of its own, with more time than those who wait for it.
        let longest_wait = if kind == RequestKind::Ping { LONGEST_WAIT_OF_A_FLIGHT } else { Duration::MAX };
        let (peer, method, content) = (&target.peer, request.method.clone(), request.content.clone());
        let ask = Ask { peer, url, method, kind, headers, authorization, content, repeat, limit, longest_wait, budget };
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
                looked_in: looked_in(target.peer.settings.credentials.as_ref(), grant.with_credentials),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_registries_say_of_themselves_is_bounded_in_bytes() {
        let named: Arc<dyn NamesHosts> = Arc::new(|_: &str| false);
        let client = Client::new(&Registries::default(), &Limits::default(), named, Arc::default()).unwrap();
        let long = "x".repeat(2000);
        let realm = Url::parse(&format!("https://r.example.com/{long}")).unwrap();
        let challenge = Challenge::Bearer { realm, service: Some(long.as_str().into()) };
        for number in 0..4000 {
            let base = Url::parse(&format!("https://{number}.example.com/")).unwrap();
            let key = OriginKey { settings: 0, base: base.clone() };
            let origin = Origin { base, extension: Extension::Announced, challenge: Some(challenge.clone()) };
            client.origins.insert(key.clone(), Arc::new(origin)).await;
            client.challenges.insert((key, "acme/web".into()), challenge.clone()).await;
        }
        client.origins.run_pending_tasks().await;
        client.challenges.run_pending_tasks().await;
        for kept in [client.origins.entry_count(), client.challenges.entry_count()] {
            assert!(kept > 0 && kept * challenge.weight() as u64 <= REMEMBERED_BYTES, "{kept}");
        }
    }
}
