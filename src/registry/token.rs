//! Token authentication (distribution specification, "Token Authentication Specification"; Docker's `OAuth2` variant for
//! identity tokens).

use std::{sync::Arc, time::Duration};

use moka::{Expiry, future::Cache};
use reqwest::{Method, header::HeaderValue};
use secrecy::ExposeSecret;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::{
    blocking_pool::Blocking,
    challenge::Challenge,
    credentials::{self, FindError, Helpers, looked_in},
    dial_guard::host_of,
    failure::Failure,
    helper::HELPER_TIMEOUT,
    login::Login,
    target::Target,
    transport::{Ask, Budget, Content, LONGEST_WAIT_OF_A_FLIGHT, Peer, Transport},
};
use crate::configuration::is_on_loopback;
use crate::redact::shown;
use crate::refusal::LookupError;
use crate::telemetry::RequestKind;

/// Bytes of a token answer.
const LARGEST_ANSWER: usize = 64 << 10;
/// How long a token lives whose answer does not say so (the specification's default).
const DEFAULT_LIFE: u64 = 60;
/// The longest that a token is kept.
const LONGEST_LIFE: u64 = 24 * 60 * 60;
/// The time that one request for a token has, whoever waits for it.
const FLIGHT: Duration = Duration::from_secs(15);
/// Credentials that are read at once; a file on a network may hang.
const FILES_AT_ONCE: usize = 16;
/// The longest token: no server takes headers that are much longer.
const LONGEST_TOKEN: usize = 16 << 10;
/// Bytes that kept tokens take, roughly: some thousands of usual ones.
const TOKEN_BYTES: u64 = 8 << 20;

/// Why credentials stay here.
const FOREIGN: &str = "credentials are not sent there: it is not of the registry's own host or domain; if it is right, name it in the entry's tokenRealms";
const PLAIN: &str =
    "credentials are not sent over plain HTTP (but where the registries entry of this host says insecure: true)";

/// What is to be done in a repository, or with a whole store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// To read.
    Pull,
    /// To read and write.
    Push,
    /// To read and write, and to read in another repository of the registry, from which blobs are mounted.
    Mount(Arc<str>),
    /// To read and write all of a store of signatures, whatever the repository.
    Store,
}

impl Access {
    /// As a token's scopes have it (distribution specification, "Token Scope Documentation").
    fn scopes(&self, repository: &str) -> Vec<String> {
        match self {
            Self::Pull => vec![format!("repository:{repository}:pull")],
            Self::Push => vec![format!("repository:{repository}:pull,push")],
            Self::Mount(from) => {
                vec![format!("repository:{repository}:pull,push"), format!("repository:{from}:pull")]
            }
            Self::Store => vec!["registry:signatures:*".to_owned()],
        }
    }
}

/// What a server asks for, and what it is needed for.
pub(crate) struct Need<'a> {
    pub(crate) challenge: &'a Challenge,
    pub(crate) access: &'a Access,
    /// What it did not take.
    pub(crate) refused: Option<&'a HeaderValue>,
}

/// Which token: settings say which credentials, the scope says for what.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    settings: usize,
    registry: Arc<str>,
    realm: Url,
    service: Option<Box<str>>,
    repository: Box<str>,
    access: Access,
}

/// A token, or whatever else goes into `Authorization`.
#[derive(Clone)]
pub(crate) struct Grant {
    /// Nothing: the request goes without.
    pub(crate) header: Option<HeaderValue>,
    /// Whether credentials stand behind it.
    pub(crate) with_credentials: bool,
    /// Why credentials that are configured were not sent.
    pub(crate) withheld: Option<&'static str>,
    life: Duration,
}

impl Grant {
    pub(crate) const NONE: Self = Self { header: None, with_credentials: false, withheld: None, life: Duration::ZERO };
}

struct Life;

impl Expiry<Key, Grant> for Life {
    fn expire_after_create(&self, _: &Key, grant: &Grant, _: std::time::Instant) -> Option<Duration> {
        Some(grant.life)
    }
}

/// Bytes that a token takes with its key, roughly.
fn weight(key: &Key, grant: &Grant) -> u32 {
    let key = key.realm.as_str().len() + key.service.as_ref().map_or(0, |service| service.len()) + key.repository.len();
    let token = grant.header.as_ref().map_or(0, HeaderValue::len);
    u32::try_from(512 + key + token).unwrap_or(u32::MAX)
}

/// Tokens, kept until they expire; one flight each.
pub(crate) struct Tokens {
    kept: Cache<Key, Grant>,
    /// Reads credentials.
    files: Blocking,
    helpers: Helpers,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        let kept = Cache::builder().max_capacity(TOKEN_BYTES).weigher(weight).expire_after(Life).build();
        Self { kept, files: Blocking::new(FILES_AT_ONCE), helpers: Helpers::new() }
    }

    /// What answers a challenge. `refused` is what did not: it is not given again.
    pub(crate) async fn answer(
        &self,
        transport: &Transport,
        target: &Target,
        base: &Url,
        need: &Need<'_>,
        budget: Budget,
    ) -> Result<Grant, LookupError> {
        let Need { challenge, access, refused } = *need;
        match challenge {
            Challenge::Basic => self.basic(target, base, budget).await,
            Challenge::Bearer { realm, service } => {
                let key = Key {
                    settings: target.peer.settings.number,
                    registry: Arc::clone(&target.peer.registry),
                    realm: realm.clone(),
                    service: service.clone(),
                    repository: target.path.clone(),
                    access: access.clone(),
                };
                if let Some(refused) = refused
                    && self.kept.get(&key).await.is_some_and(|grant| grant.header.as_ref() == Some(refused))
                {
                    self.kept.invalidate(&key).await;
                }
                let flight = self.request(transport, target, base, (realm, service.as_deref()), access);
                match timeout_at(budget.deadline, self.kept.try_get_with(key, flight)).await {
                    Ok(Ok(grant)) => Ok(grant),
                    Ok(Err(error)) => Err((*error).clone()),
                    Err(_) => Err(Failure::TimedOut.at(&target.peer.registry, base, budget.total())),
                }
            }
        }
    }

    async fn basic(&self, target: &Target, base: &Url, budget: Budget) -> Result<Grant, LookupError> {
        let may_be_seen = base.scheme() != "https" && !target.peer.settings.insecure;
        if may_be_seen && !target.peer.settings.is_asked_by_a_person() {
            let withheld = target.peer.settings.credentials.as_ref().map(|_| PLAIN);
            return Ok(Grant { withheld, ..Grant::NONE });
        }
        let login = self.login(target, base, budget).await?;
        if may_be_seen {
            return Ok(Grant { withheld: login.map(|_| PLAIN), ..Grant::NONE });
        }
        let header = login.as_ref().and_then(Login::basic);
        Ok(Grant { with_credentials: header.is_some(), header, ..Grant::NONE })
    }

    async fn login(&self, target: &Target, base: &Url, budget: Budget) -> Result<Option<Login>, LookupError> {
        let Some(credentials) = &target.peer.settings.credentials else { return Ok(None) };
        let found = credentials::find(credentials, &target.repository, &self.files, &self.helpers, budget.deadline);
        let found = timeout_at(budget.deadline, found).await.unwrap_or(Err(FindError::Failure(Failure::TimedOut)));
        let registry = &target.peer.registry;
        found.map_err(|error| match error {
            FindError::Failure(failure) => failure.at(registry, base, budget.total()),
            error if target.peer.settings.is_for_command => LookupError::CredentialsUnusable {
                registry: (&**registry).into(),
                url: shown(base),
                cause: error.to_string().into(),
            },
            // Which files the gate has concerns those alone who run it.
            error => {
                tracing::error!(%registry, %error, "credentials can't be used");
                Failure::Unavailable("the credentials for it can't be used (the log says why)".to_owned()).at(
                    registry,
                    base,
                    budget.total(),
                )
            }
        })
    }

    /// Asks a realm for a token.
    async fn request(
        &self,
        transport: &Transport,
        target: &Target,
        base: &Url,
        (realm, service): (&Url, Option<&str>),
        access: &Access,
    ) -> Result<Grant, LookupError> {
        let budget = Budget::until(Instant::now() + FLIGHT);
        let settings = &target.peer.settings;
        let at_base = |failure: Failure| failure.at(&target.peer.registry, base, budget.total());
        if realm.scheme() != "https" && !settings.insecure {
            return Err(at_base(Failure::Misbehaved("its token realm is not https".to_owned())));
        }
        let trusted = is_trusted(realm, base, &target.peer);
        // Of a person's login files, it is not known whether they have credentials until they are read; and a helper may have to ask
        // for a passphrase. The realm has its whole time after that.
        let is_person = settings.is_asked_by_a_person();
        let finding = if is_person { Budget::until(Instant::now() + 2 * HELPER_TIMEOUT) } else { budget };
        let login = if trusted || is_person { self.login(target, base, finding).await? } else { None };
        let budget = if is_person { Budget::until(Instant::now() + FLIGHT) } else { budget };
        let is_withheld = !trusted && if is_person { login.is_some() } else { settings.credentials.is_some() };
        let withheld = is_withheld.then_some(FOREIGN);
        let login = login.filter(|_| trusted);
        if withheld.is_some() {
            tracing::warn!(
                registry = %target.peer.registry,
                realm = %shown(realm),
                "credentials are not sent to this token realm: it is not of the registry's own host or domain; if it is right, add it to the entry's tokenRealms"
            );
        }

        // The scopes are ours, not what the challenge says: we know best what is needed.
        let scopes = access.scopes(&target.path);
        let mut url = realm.clone();
        let mut authorization = None;
        let (mut method, mut content) = (Method::GET, None);
        if let Some(Login::IdentityToken(token)) = &login {
            let mut fields = url::form_urlencoded::Serializer::new(String::new());
            fields.append_pair("grant_type", "refresh_token").append_pair("client_id", "sealgate");
            fields.append_pair("scope", &scopes.join(" ")).append_pair("refresh_token", token.expose_secret());
            if let Some(service) = service {
                fields.append_pair("service", service);
            }
            method = Method::POST;
            let bytes = fields.finish().into_bytes().into();
            content = Some(Content { kind: "application/x-www-form-urlencoded".into(), bytes, may_move: false });
        } else {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in &scopes {
                query.append_pair("scope", scope);
            }
            drop(query);
            authorization = login.as_ref().and_then(Login::basic);
        }
        let own = host_of(realm).is_some() && host_of(realm) == host_of(base);
        let peer = Peer { named: target.peer.named && own, ..target.peer.clone() };
        let ask = Ask {
            peer: &peer,
            url: &url,
            method,
            kind: RequestKind::Token,
            headers: reqwest::header::HeaderMap::new(),
            authorization,
            content,
            repeat: true,
            limit: LARGEST_ANSWER,
            longest_wait: LONGEST_WAIT_OF_A_FLIGHT,
            budget,
        };
        // A realm's URL is the registry's text; only one that is trusted is shown.
        let failed = |failure| failure_at(failure, &target.peer.registry, if trusted { &url } else { base }, budget);
        let answer = transport.ask(&ask).await.map_err(|failure| {
            failed(match failure {
                Failure::NotPublic => Failure::Unavailable(
                    "no public address of its token realm can be found, and no registries entry names it (tokenRealms)"
                        .to_owned(),
                ),
                Failure::Unresolved => Failure::Unavailable("its token realm's name can't be resolved".to_owned()),
                Failure::Unavailable(cause) => Failure::Unavailable(format!("its token realm can't be asked: {cause}")),
                Failure::Misbehaved(what) => Failure::Misbehaved(format!("of its token realm: {what}")),
                failure => failure,
            })
        })?;
        match answer.status {
            200 => {}
            status @ (401 | 403) if withheld.is_some() => {
                return Err(failed(Failure::Misbehaved(format!("its token realm answers {status}, and {FOREIGN}"))));
            }
            status @ (401 | 403) => {
                return Err(LookupError::Unauthorized {
                    registry: (&*target.peer.registry).into(),
                    url: shown(if trusted { &url } else { base }),
                    status,
                    with_credentials: login.is_some(),
                    looked_in: looked_in(settings.credentials.as_ref(), login.is_some()),
                });
            }
            status @ (429 | 500..) => {
                return Err(LookupError::Unavailable {
                    registry: (&*target.peer.registry).into(),
                    url: shown(if trusted { &url } else { base }),
                    cause: format!("its token realm answers {status}").into(),
                    retry_after: answer.retry_after(),
                });
            }
            status => return Err(failed(Failure::Misbehaved(format!("its token realm answers {status}")))),
        }
        let (token, life) = parse(&answer.body)
            .ok_or_else(|| failed(Failure::Misbehaved("what its token realm sends is no token".to_owned())))?;
        Ok(Grant { header: Some(token), with_credentials: login.is_some(), withheld, life })
    }
}

/// Asks a realm for a token with somebody else's credentials: those of a caller, who gets no more with it than they have.
///
/// # Errors
/// [`LookupError::Unauthorized`]: the realm does not take them. Anything else: it can't be asked.
pub(crate) async fn exchange(
    transport: &Transport,
    (peer, base): (&Peer, &Url),
    (realm, service): (&Url, Option<&str>),
    scopes: &[String],
    credentials: Option<HeaderValue>,
    budget: Budget,
) -> Result<(HeaderValue, Duration), LookupError> {
    let failed = |failure: Failure| failure.at(&peer.registry, base, budget.total());
    if realm.scheme() != "https" && base.scheme() == "https" {
        return Err(failed(Failure::Misbehaved("its token realm is not https".to_owned())));
    }
    if realm.scheme() != "https" && !peer.settings.insecure && !is_on_loopback(realm) {
        let what = "it would be asked over plain HTTP beyond loopback; give it https, or accept that everyone on the way reads \
                    the credentials of callers, with gateway.registry.insecure: true";
        return Err(failed(Failure::Misbehaved(format!("of its token realm {}: {what}", shown(realm)))));
    }
    if credentials.is_some() && !is_trusted(realm, base, peer) {
        let what = "callers' credentials are not sent there: it is not of the registry's own host or domain; if it is right, \
                    name it in gateway.registry.tokenRealms";
        return Err(failed(Failure::Misbehaved(format!("of its token realm {}: {what}", shown(realm)))));
    }
    let mut url = realm.clone();
    let mut query = url.query_pairs_mut();
    if let Some(service) = service {
        query.append_pair("service", service);
    }
    for scope in scopes {
        query.append_pair("scope", scope);
    }
    drop(query);
    let own = host_of(realm).is_some() && host_of(realm) == host_of(base);
    let asked = Peer { named: peer.named && own, ..peer.clone() };
    let with_credentials = credentials.is_some();
    let ask = Ask {
        peer: &asked,
        url: &url,
        method: Method::GET,
        kind: RequestKind::Token,
        headers: reqwest::header::HeaderMap::new(),
        authorization: credentials,
        content: None,
        limit: LARGEST_ANSWER,
        repeat: true,
        longest_wait: LONGEST_WAIT_OF_A_FLIGHT,
        budget,
    };
    let answer = transport.ask(&ask).await.map_err(|failure| {
        failed(match failure {
            Failure::NotPublic => Failure::Unavailable(format!(
                "no public address of its token realm {} can be found; if it is right, name it in \
                 gateway.registry.tokenRealms",
                shown(realm)
            )),
            Failure::Unresolved => Failure::Unavailable("its token realm's name can't be resolved".to_owned()),
            Failure::Unavailable(cause) => Failure::Unavailable(format!("its token realm can't be asked: {cause}")),
            Failure::Misbehaved(what) => Failure::Misbehaved(format!("of its token realm: {what}")),
            failure => failure,
        })
    })?;
    match answer.status {
        200 => parse(&answer.body)
            .ok_or_else(|| failed(Failure::Misbehaved("what its token realm sends is no token".to_owned()))),
        status @ (401 | 403) => Err(LookupError::Unauthorized {
            registry: (&*peer.registry).into(),
            url: shown(base),
            status,
            with_credentials,
            looked_in: None,
        }),
        status => Err(failed(Failure::Unavailable(format!("its token realm answers {status}")))),
    }
}

fn failure_at(failure: Failure, registry: &str, url: &Url, budget: Budget) -> LookupError {
    failure.at(registry, url, budget.total())
}

fn parse(body: &[u8]) -> Option<(HeaderValue, Duration)> {
    #[derive(Deserialize)]
    struct Body {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<serde_json::Value>,
    }
    let Body { token, access_token, expires_in } = serde_json::from_slice(body).ok()?;
    let token = token.filter(|token| !token.is_empty()).or(access_token).filter(|token| !token.is_empty())?;
    if token.len() > LONGEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    // Zero is what servers write that mean to leave it out.
    let life = expires_in.and_then(|value| value.as_u64()).filter(|&life| life > 0);
    let life = life.unwrap_or(DEFAULT_LIFE).min(LONGEST_LIFE);
    // Given up early, so that none expires under way.
    let slack = (life / 4).min(10);
    Some((header, Duration::from_secs(life - slack)))
}

/// Realms of well-known registries that are not of the registry's own domain.
const KNOWN: [(&str, &str); 4] = [
    ("docker.io", "auth.docker.io"),
    ("registry.redhat.io", "sso.redhat.com"),
    ("registry.access.redhat.com", "sso.redhat.com"),
    ("registry.connect.redhat.com", "sso.redhat.com"),
];

/// Whether credentials may go to a realm.
///
/// It is one of `tokenRealms` (scheme, host and port), a well-known one, or of the registry's own host or domain: the same
/// host on any port, a host below it, or a host below the registry's parent domain. A parent domain is one of at least two
/// labels, and not of the kind `co.uk`: two labels, of which the last has two letters and the first at most three.
fn is_trusted(realm: &Url, base: &Url, peer: &Peer) -> bool {
    let settings = &peer.settings;
    if settings.token_realms.iter().any(|url| url.origin() == realm.origin()) {
        return true;
    }
    // insecure concerns the registry; what it says of others must be https.
    let (Some(realm_host), Some(own)) = (realm.host_str(), base.host_str()) else { return false };
    if realm_host == own {
        return true;
    }
    if realm.scheme() != "https" || realm.port().is_some() {
        return false;
    }
    if KNOWN.iter().any(|(registry, host)| *registry == &*peer.registry && *host == realm_host) {
        return true;
    }
    let (Some(url::Host::Domain(realm_host)), Some(url::Host::Domain(own))) = (realm.host(), base.host()) else {
        return false;
    };
    let below = |domain: &str| realm_host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if own.contains('.') && below(own) {
        return true;
    }
    own.split_once('.').is_some_and(|(_, parent)| is_own_domain(parent) && (realm_host == parent || below(parent)))
}

fn is_own_domain(domain: &str) -> bool {
    match domain.split('.').collect::<Vec<_>>()[..] {
        [] | [_] => false,
        [second, top] => top.len() != 2 || second.len() > 3,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Repository;

    fn trusted(registry: &str, realm: &str) -> bool {
        let target = Target::for_tests(&Repository::parse(&format!("{registry}/acme/web")).unwrap(), &[]);
        is_trusted(&Url::parse(realm).unwrap(), &target.base, &target.peer)
    }

    #[test]
    fn credentials_go_to_the_registrys_own_host_or_domain_only() {
        for (registry, realm) in [
            ("registry.example.com", "https://registry.example.com/token"),
            ("registry.example.com:5000", "https://registry.example.com:5001/auth"),
            ("registry.example.com", "https://auth.example.com/token"),
            ("registry.example.com", "https://example.com/token"),
            ("registry.example.com", "https://a.b.example.com/token"),
            ("example.com", "https://auth.example.com/token"),
            ("registry.acme.co.uk", "https://auth.acme.co.uk/token"),
            ("nginx.example.com", "https://login.nginx.example.com/"),
            ("docker.io", "https://auth.docker.io/token"),
            ("registry.redhat.io", "https://sso.redhat.com/auth"),
            ("10.0.0.1", "https://10.0.0.1:444/token"),
        ] {
            assert!(trusted(registry, realm), "{registry} {realm}");
        }
        for (registry, realm) in [
            ("registry.example.com", "https://auth.example.org/token"),
            ("registry.example.com", "https://auth.evilexample.com/token"),
            ("registry.example.com", "https://example.com.evil.org/token"),
            ("registry.example.com", "http://auth.example.com/token"),
            ("registry.example.com", "https://auth.example.com:8443/token"),
            ("example.com", "https://evil.com/token"),
            ("acme.co.uk", "https://evil.co.uk/token"),
            ("acme.com.au", "https://evil.com.au/token"),
            ("localhost", "https://evil.localhost/token"),
            ("10.0.0.1", "https://11.0.0.1/token"),
            ("registry.redhat.io", "https://auth.docker.io/token"),
        ] {
            assert!(!trusted(registry, realm), "{registry} {realm}");
        }
    }

    #[test]
    fn a_realm_of_the_configuration_is_trusted_by_its_origin() {
        let realms = [Url::parse("https://login.example.org").unwrap()];
        let target = Target::for_tests(&Repository::parse("registry.example.com/x").unwrap(), &realms);
        let trusted = |realm: &str| is_trusted(&Url::parse(realm).unwrap(), &target.base, &target.peer);
        assert!(trusted("https://login.example.org/any/path?x=y"));
        assert!(!trusted("https://login.example.org:444/"));
        assert!(!trusted("http://login.example.org/"));
    }

    #[test]
    fn a_token_lives_as_long_as_its_answer_says_and_a_little_less() {
        let life = |body: &str| parse(body.as_bytes()).map(|(_, life)| life.as_secs());
        assert_eq!(life(r#"{"token": "t"}"#), Some(50));
        assert_eq!(life(r#"{"token": "t", "expires_in": 0}"#), Some(50));
        assert_eq!(life(r#"{"access_token": "t", "expires_in": 300}"#), Some(290));
        assert_eq!(life(r#"{"token": "", "access_token": "t", "expires_in": 4}"#), Some(3));
        assert_eq!(life(r#"{"token": "t", "expires_in": "x"}"#), Some(50));
        assert_eq!(life(r#"{"token": "t", "expires_in": 99999999999}"#), Some(24 * 60 * 60 - 10));
        for body in
            ["", "{}", "[]", r#"{"token": "a\nb"}"#, r#"{"token": "a b"}"#, r#"{"token": 1}"#, r#"{"token": "é"}"#]
        {
            assert_eq!(life(body), None, "{body}");
        }
    }

    #[test]
    fn a_token_has_a_longest_length() {
        let of = |length| parse(format!(r#"{{"token": "{}"}}"#, "t".repeat(length)).as_bytes());
        assert!(of(LONGEST_TOKEN).is_some());
        assert!(of(LONGEST_TOKEN + 1).is_none());
    }

    #[tokio::test]
    async fn kept_tokens_are_bounded_in_bytes() {
        let tokens = Tokens::new();
        let mut header = HeaderValue::from_str(&"t".repeat(LONGEST_TOKEN)).unwrap();
        header.set_sensitive(true);
        let grant = Grant { header: Some(header), life: Duration::from_hours(24), ..Grant::NONE };
        for number in 0..2000 {
            let key = Key {
                settings: 0,
                registry: "registry.example.com".into(),
                realm: Url::parse("https://registry.example.com/token").unwrap(),
                service: None,
                repository: format!("acme/{number}").into(),
                access: Access::Pull,
            };
            tokens.kept.insert(key, grant.clone()).await;
        }
        tokens.kept.run_pending_tasks().await;
        let tokens = tokens.kept.entry_count();
        assert!(tokens > 0 && tokens * LONGEST_TOKEN as u64 <= TOKEN_BYTES, "{tokens}");
    }
}
