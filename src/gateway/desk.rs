//! Who comes to the gateway, what they may do, and as whom they go on to the registry.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Once},
    time::Duration,
};

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderValue},
};
use jiff::Timestamp;
use moka::sync::Cache;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;

use super::{
    access::{
        AccessControl, AccessError, Action, Caller, Credentials, Known, Peer, Rejection, scope::Scope,
        token::TokenError,
    },
    answer::Refused,
    headers::External,
    store::{RepositoryName, kept_name},
    upstream::{Registry, Wants},
};
use crate::configuration::{Gateway, Network};

/// Where our tokens come from.
pub(super) const TOKEN_PATH: &str = "/sealgate/v1/token";
/// Signatures that one caller may add at once, and how many a second in the long run.
const BURST: u32 = 1000;
const A_SECOND: u32 = 20;
/// Callers whose rate is known.
const MOST_CALLERS: u64 = 10_000;
/// How long until a registry that could not be asked what it wants is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Why nobody's credentials are good for both.
const MISMATCH_FOR_CALLERS: &str = "; the store takes tokens of its cluster, and the registry behind it names and passwords: \
     through the store only what everyone may pull can be pulled and signed (docs/gateway.md#credentials)";

/// What all workers know of callers.
pub(super) struct Desk {
    access: Arc<AccessControl>,
    external: Option<External>,
    trusted_proxies: Vec<Network>,
    /// Whether only this machine reaches the store.
    on_loopback: bool,
    rates: Cache<Box<str>, Arc<rate::Bucket>>,
}

/// Who sends one request.
pub(super) struct Visitor {
    pub(super) known: Known,
    /// Where they think that they are.
    pub(super) external: External,
    /// The `Authorization` that the registry gets from them.
    pub(super) authorization: Option<HeaderValue>,
    /// Where they come from, for the audit log.
    peer: Option<IpAddr>,
}

/// Writes down what somebody did, also when they have left.
pub(super) struct Witness {
    caller: String,
    peer: Option<IpAddr>,
}

impl Witness {
    pub(super) fn did(&self, action: Action, what: &str) {
        let Self { caller, peer } = self;
        // Strings as such: the log quotes and escapes them.
        tracing::info!(target: "sealgate::audit", audit = true, caller, ?peer, %action, what, "done");
    }
}

impl Desk {
    pub(super) fn new(access: Arc<AccessControl>, settings: &Gateway) -> Self {
        let Gateway { external_url, trusted_proxies, .. } = settings;
        let external = external_url.as_ref().map(External::of_url);
        let rates = Cache::builder().max_capacity(MOST_CALLERS).time_to_idle(Duration::from_mins(10)).build();
        Self { access, external, trusted_proxies: trusted_proxies.clone(), on_loopback: false, rates }
    }

    /// The same, at the address where callers come in.
    pub(super) fn at(self, address: SocketAddr) -> Self {
        Self { on_loopback: address.ip().to_canonical().is_loopback(), ..self }
    }

    /// What gives out tokens.
    pub(super) fn access(&self) -> &AccessControl {
        &self.access
    }

    /// Whether anybody is asked who they are.
    pub(super) fn asks_who(&self) -> bool {
        self.access.asks_who()
    }

    /// Finds out who sends a request. Nobody in particular is somebody, too; credentials that prove nothing are refused.
    pub(super) async fn receive(&self, registry: &Registry, request: &HttpRequest) -> Result<Visitor, Refused> {
        if !self.asks_who() {
            let known = Known { caller: Caller::anonymous(), credentials: Credentials::None, pass: None };
            return self.visitor(registry, known, request).await;
        }
        let fields = request.headers().get_all(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        match Credentials::from_authorization(fields) {
            Ok(credentials) => self.receive_with(registry, request, credentials).await,
            Err(malformed) => {
                let error = Rejection::from(malformed).into();
                self.rejected(request, None, &error);
                Err(refused(&error, &self.external(request), None))
            }
        }
    }

    /// The same, with credentials out of a form.
    pub(super) async fn receive_with(
        &self,
        registry: &Registry,
        request: &HttpRequest,
        credentials: Credentials,
    ) -> Result<Visitor, Refused> {
        let claimed = match &credentials {
            Credentials::Basic { user, .. } => Some(user.clone()),
            _ => None,
        };
        let peer = Peer::of(self.peer(request));
        match self.access.identify_as(credentials.clone(), peer, Timestamp::now()).await {
            Ok(known) => self.visitor(registry, known, request).await,
            // Nobody's here may be somebody's there: who may read is the registry's to say.
            Err(AccessError::Rejected(Rejection::Password))
                if self.access.is_shared_with_the_registry()
                    && matches!(registry.wants().await, Ok(Wants::Basic(_) | Wants::Bearer { .. })) =>
            {
                let known = Known { caller: Caller::anonymous(), credentials, pass: None };
                self.visitor(registry, known, request).await
            }
            Err(error) => {
                self.rejected(request, claimed.as_deref(), &error);
                let refused = refused(&error, &self.external(request), None);
                let mismatched = matches!(error, AccessError::Rejected(_)) && self.is_mismatched(registry).await;
                Err(if mismatched { refused.and(MISMATCH_FOR_CALLERS) } else { refused })
            }
        }
    }

    /// The registry gets a name and password only where it asks for them: an open one could be anybody's, and one that wants
    /// tokens gets them in exchange for a token of its own alone.
    async fn visitor(&self, registry: &Registry, known: Known, request: &HttpRequest) -> Result<Visitor, Refused> {
        let external = self.external(request);
        let authorization = if self.asks_who() {
            let upstream = match &known.pass {
                Some(pass) => pass.upstream.clone(),
                None => match self.for_the_registry(&known) {
                    Some(credentials) if matches!(registry.wants().await?, Wants::Basic(_)) => Some(credentials),
                    _ => None,
                },
            };
            upstream.map(|value| sensitive(&value)).transpose()?
        } else {
            request.headers().get(header::AUTHORIZATION).cloned()
        };
        Ok(Visitor { known, external, authorization, peer: self.peer(request) })
    }

    /// Where a request comes from: the other end of its connection, or whom a proxy names there that is trusted to.
    fn peer(&self, request: &HttpRequest) -> Option<IpAddr> {
        let peer = request.peer_addr()?.ip().to_canonical();
        let path = request.headers().get_all("x-forwarded-for").filter_map(|field| field.to_str().ok());
        Some(self.behind(peer, path.flat_map(|field| field.split(',')).collect()))
    }

    /// Each proxy adds at the end from whom it has the request. What trusted ones added is believed, from the end on, and
    /// nothing of what stands before it.
    fn behind(&self, mut peer: IpAddr, path: Vec<&str>) -> IpAddr {
        for text in path.into_iter().rev().map(str::trim) {
            let address = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
            match address {
                Ok(address) if self.is_trusted(peer) => peer = address.to_canonical(),
                _ => break,
            }
        }
        peer
    }

    fn is_trusted(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(peer))
    }

    /// Whether callers are known by a cluster, and to the registry by a name and a password. There is room for one of both in
    /// a request.
    async fn is_mismatched(&self, registry: &Registry) -> bool {
        self.asks_who()
            && !self.access.is_shared_with_the_registry()
            && matches!(registry.wants().await, Ok(Wants::Basic(_)))
    }

    /// Says once, as soon as the registry can be asked, that they don't go together.
    pub(super) async fn warn_of(desk: Arc<Self>, registry: Registry) {
        if !desk.asks_who() || desk.access.is_shared_with_the_registry() {
            return;
        }
        while registry.wants().await.is_err() {
            tokio::time::sleep(ASK_AGAIN).await;
        }
        if desk.is_mismatched(&registry).await {
            tracing::error!(
                "gateway.access.kubernetes in front of a registry that asks for names and passwords (Basic): what is not for \
                 everyone there can't be pulled or signed through the store; give the registry tokens, or the store \
                 gateway.access.htpasswd with the registry's users (docs/gateway.md#credentials)"
            );
        }
    }

    /// What whoever sends this is told of it.
    pub(super) fn access_refused(&self, request: &HttpRequest, error: &AccessError) -> Refused {
        refused(error, &self.external(request), None)
    }

    /// What somebody brought along that may be good for the registry, too.
    pub(super) fn for_the_registry(&self, known: &Known) -> Option<SecretString> {
        if self.access.is_shared_with_the_registry() { known.credentials.authorization() } else { None }
    }

    /// Writes down credentials that proved nothing: who guesses passwords is seen. What was sent is not repeated but for a
    /// name.
    fn rejected(&self, request: &HttpRequest, claimed: Option<&str>, error: &AccessError) {
        if let AccessError::Rejected(why) = error {
            let peer = self.peer(request);
            tracing::info!(target: "sealgate::audit", audit = true, claimed, ?peer, %why, "credentials rejected");
        }
    }

    /// The address that a client knows the gateway by. Where passwords are sent to it, only those are believed who may say it.
    pub(super) fn external(&self, request: &HttpRequest) -> External {
        if let Some(external) = &self.external {
            return external.clone();
        }
        let trusted = request.peer_addr().is_some_and(|peer| self.is_trusted(peer.ip()));
        External::of(request.headers(), request.app_config().secure(), trusted || !self.asks_who())
    }

    /// Refuses whoever may not do this to the signatures of a repository; nothing: of every repository.
    pub(super) async fn must_be_allowed(
        &self,
        registry: &Registry,
        visitor: &Visitor,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> Result<(), Refused> {
        let scope = Scope::needed_for(action, repository);
        let outcome = if !self.asks_who() {
            // A signature proves itself. That nobody is asked gives nobody the right to take away those of others.
            if self.on_loopback || action == Action::CreateSignature {
                Ok(())
            } else {
                Err(Refused::no_role(format!(
                    "without gateway.access nobody may {}, since it listens beyond loopback: \
                     say in gateway.access who may, or set gateway.listen to a loopback address",
                    action.in_words(repository)
                )))
            }
        } else if visitor.known.caller.is_anonymous() {
            Err(match registry.wants().await {
                // Who they are to the registry they are here.
                Ok(Wants::Basic(challenge)) if self.access.is_shared_with_the_registry() => {
                    Refused::who_are_you().with_challenges(vec![challenge])
                }
                _ => challenged(Refused::who_are_you(), &visitor.external, Some(&scope), None),
            })
        } else {
            match self.access.may(&visitor.known, action, repository).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(Refused::no_role(format!(
                    "{} may not {}: that takes the role {}",
                    visitor.known.caller,
                    action.in_words(repository),
                    self.access.role_for(action)
                ))),
                Err(error) => Err(refused(&error, &visitor.external, Some(&scope))),
            }
        };
        if let Err(refused) = &outcome {
            let what = repository.map_or("the store", RepositoryName::as_str);
            let (caller, refused) = (visitor.known.caller.to_string(), refused.to_string());
            tracing::info!(target: "sealgate::audit", audit = true, caller, peer = ?visitor.peer, %action, what, refused, "refused");
        }
        outcome
    }

    /// The registry's no to a visitor.
    pub(super) fn passed_on(
        &self,
        visitor: &Visitor,
        refused: Refused,
        challenges: Vec<HeaderValue>,
        scope: Option<&Scope>,
    ) -> Refused {
        let cluster = self.asks_who() && !self.access.is_shared_with_the_registry();
        let mismatched = cluster && !challenges.is_empty() && !challenges.iter().any(is_bearer);
        let refused = if mismatched { refused.and(MISMATCH_FOR_CALLERS) } else { refused };
        refused.with_challenges(self.challenges(visitor, challenges, scope))
    }

    /// What the registry's challenges become: where it wants a token of its own, the caller gets one of ours, with that in it.
    /// A password for the registry is not to be sent to a store that asks a cluster who somebody is.
    pub(super) fn challenges(
        &self,
        visitor: &Visitor,
        given: Vec<HeaderValue>,
        scope: Option<&Scope>,
    ) -> Vec<HeaderValue> {
        let ours = self.asks_who() && (given.iter().any(is_bearer) || !self.access.is_shared_with_the_registry());
        if ours && !given.is_empty() { visitor.challenge(scope).into_iter().collect() } else { given }
    }

    /// Refuses a caller who adds signatures faster than anybody signs.
    pub(super) fn must_be_slow_enough(&self, visitor: &Visitor) -> Result<(), Refused> {
        let Some(name) = visitor.known.caller.name() else { return Ok(()) };
        let bucket = self.rates.get_with(name.into(), Arc::default);
        if bucket.take(Instant::now()) {
            return Ok(());
        }
        let caller = visitor.known.caller.to_string();
        tracing::info!(target: "sealgate::audit", audit = true, caller, peer = ?visitor.peer, "too many signatures at once");
        Err(Refused::too_fast(format!(
            "{} adds more than {A_SECOND} signatures a second (and {BURST} at once)",
            visitor.known.caller
        )))
    }
}

impl Visitor {
    /// What the audit log has of them.
    pub(super) fn witness(&self) -> Witness {
        Witness { caller: self.known.caller.to_string(), peer: self.peer }
    }

    /// Who they are, where somebody asked, as the store keeps it.
    pub(super) fn name(&self) -> Option<Box<str>> {
        self.known.caller.name().map(kept_name)
    }

    /// Whether they said nothing of who they are.
    pub(super) fn brought_nothing(&self) -> bool {
        self.known.pass.is_none() && matches!(self.known.credentials, Credentials::None)
    }

    /// What tells them how to be somebody.
    pub(super) fn is_asked_who(&self) -> Refused {
        challenged(Refused::who_are_you(), &self.external, None, self.known.pass.as_ref().map(|_| "invalid_token"))
    }

    /// Our challenge to whoever the registry would not let do this; nothing: see [`challenge`].
    fn challenge(&self, scope: Option<&Scope>) -> Option<HeaderValue> {
        // A token that was good here and not there has been overtaken by the registry's own.
        challenge(&self.external, scope, self.known.pass.as_ref().map(|_| "invalid_token"))
    }
}

fn is_bearer(challenge: &HeaderValue) -> bool {
    challenge.as_bytes().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"))
}

fn refused(error: &AccessError, external: &External, scope: Option<&Scope>) -> Refused {
    match error {
        AccessError::Rejected(rejection) => {
            let code = match rejection {
                Rejection::Token(TokenError::Scope) => "insufficient_scope",
                _ => "invalid_token",
            };
            challenged(Refused::rejected(rejection.to_string()), external, scope, Some(code))
        }
        AccessError::Busy { retry_after } => Refused::too_fast(error.to_string()).after(*retry_after),
        AccessError::Unavailable { retry_after } => Refused::nobody_knows(error.to_string()).after(*retry_after),
    }
}

/// A refusal with our challenge, or with what keeps us from it.
fn challenged(refused: Refused, external: &External, scope: Option<&Scope>, error: Option<&str>) -> Refused {
    match challenge(external, scope, error) {
        Some(challenge) => refused.with_challenges(vec![challenge]),
        None => refused.and(
            "; where to log in is not said over plain HTTP: the store's operator sets gateway.externalUrl to its https address",
        ),
    }
}

/// The challenge of the distribution specification ("Token Authentication"; RFC 6750, section 3). Nothing: it would have
/// clients send passwords over a network in the clear.
fn challenge(external: &External, scope: Option<&Scope>, error: Option<&str>) -> Option<HeaderValue> {
    static WARNED: Once = Once::new();
    if !external.keeps_secrets() {
        WARNED.call_once(|| {
            tracing::warn!(
                host = external.host.as_deref(),
                "clients come over plain HTTP as far as the store knows, and are not told where to log in: set \
                 gateway.externalUrl to the https address, or gateway.trustedProxies to the proxy that ends TLS"
            );
        });
        return None;
    }
    let host = external.host.as_deref().unwrap_or("localhost");
    let mut text = format!(r#"Bearer realm="{}://{host}{TOKEN_PATH}",service="{host}""#, external.scheme);
    for (name, value) in [("scope", scope.map(ToString::to_string)), ("error", error.map(str::to_owned))] {
        if let Some(value) = value {
            let _ = write!(text, r#",{name}="{value}""#);
        }
    }
    // Host names and scopes were checked, and have no other characters.
    HeaderValue::from_str(&text).ok()
}

fn sensitive(value: &SecretString) -> Result<HeaderValue, Refused> {
    let refused = |_| Refused::bad_request("the field Authorization has characters in it that it can't have");
    HeaderValue::from_str(value.expose_secret()).map_err(refused)
}

mod rate {
    use std::sync::{Mutex, PoisonError};

    use tokio::time::Instant;

    use super::{A_SECOND, BURST};

    /// How many signatures a caller may still add (a token bucket).
    #[derive(Default)]
    pub(super) struct Bucket(Mutex<Option<(f64, Instant)>>);

    impl Bucket {
        /// Takes one, if there is one.
        pub(super) fn take(&self, now: Instant) -> bool {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let (left, since) = state.unwrap_or((f64::from(BURST), now));
            let left = (left + now.duration_since(since).as_secs_f64() * f64::from(A_SECOND)).min(f64::from(BURST));
            let taken = left >= 1.0;
            *state = Some((if taken { left - 1.0 } else { left }, now));
            taken
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_may_add_many_at_once_and_then_some_a_second() {
        let bucket = rate::Bucket::default();
        let now = Instant::now();
        assert_eq!((0..2 * BURST).filter(|_| bucket.take(now)).count(), BURST as usize);
        let later = now + Duration::from_secs(3);
        assert_eq!((0..BURST).filter(|_| bucket.take(later)).count(), 3 * A_SECOND as usize);
    }

    #[test]
    fn a_peer_is_who_the_nearest_trusted_proxy_has_its_request_from() {
        let desk = |trusted: &[&str]| Desk {
            access: Arc::new(AccessControl::everyone().unwrap()),
            external: None,
            trusted_proxies: trusted.iter().map(|network| Network::parse(network).unwrap()).collect(),
            on_loopback: false,
            rates: Cache::new(1),
        };
        let proxies = desk(&["10.0.0.0/8", "fd00::1"]);
        for (desk, peer, path, expected) in [
            (&desk(&[]), "10.0.0.1", "192.0.2.1", "10.0.0.1"),
            (&proxies, "192.0.2.9", "192.0.2.1", "192.0.2.9"),
            (&proxies, "10.0.0.1", "", "10.0.0.1"),
            (&proxies, "10.0.0.1", "192.0.2.1", "192.0.2.1"),
            (&proxies, "10.0.0.1", "198.51.100.1, 192.0.2.1:4711", "192.0.2.1"),
            (&proxies, "10.0.0.1", "192.0.2.1, fd00::1 , 10.1.1.1", "192.0.2.1"),
            (&proxies, "10.0.0.1", "192.0.2.1, unknown", "10.0.0.1"),
            (&proxies, "10.0.0.1", "10.0.0.2", "10.0.0.2"),
        ] {
            let peer = desk.behind(peer.parse().unwrap(), path.split(',').collect());
            assert_eq!(peer, expected.parse::<IpAddr>().unwrap(), "{path}");
        }
    }

    #[test]
    fn a_challenge_says_where_tokens_come_from_and_what_for() {
        let external = External { scheme: "https", host: Some("store.example.com:5000".to_owned()) };
        let repository = RepositoryName::parse("acme/web").unwrap();
        let scope = Scope::needed_for(Action::CreateSignature, Some(&repository));
        assert_eq!(
            challenge(&external, Some(&scope), Some("invalid_token")).unwrap(),
            r#"Bearer realm="https://store.example.com:5000/sealgate/v1/token",service="store.example.com:5000",scope="repository:acme/web:pull,push",error="invalid_token""#
        );
    }

    #[test]
    fn nobody_is_told_to_send_a_password_over_a_network_in_the_clear() {
        for host in ["store.example.com", "10.0.0.1:5000", "localhost.example.com", "127.0.0.1.example.com", "[::2]:80"]
        {
            let external = |scheme| External { scheme, host: Some(host.to_owned()) };
            assert_eq!(challenge(&external("http"), None, None), None, "{host}");
            assert!(challenge(&external("https"), None, None).is_some(), "{host}");
            let refused = challenged(Refused::who_are_you(), &external("http"), None, None).to_string();
            assert!(refused.starts_with("401 ") && refused.contains("gateway.externalUrl"), "{refused}");
        }
        for host in ["localhost", "LOCALHOST:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"] {
            let external = External { scheme: "http", host: Some(host.to_owned()) };
            assert!(challenge(&external, None, None).is_some(), "{host}");
        }
    }
}
