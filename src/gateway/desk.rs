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
    auth::{
        AccessControl, AccessError, Action, ClientNetwork, Credentials, Identity, Principal, Rejection, scope::Scope,
        token::TokenError,
    },
    browser,
    error::Refused,
    headers::{External, is_about_the_way},
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
    /// Whether only this machine reaches the store, as far as its settings say.
    on_loopback: bool,
    /// Whether callers come over TLS.
    over_tls: bool,
    rates: Cache<Box<str>, Arc<rate::Bucket>>,
}

/// Who sends one request.
pub(super) struct Visitor {
    pub(super) identity: Identity,
    /// Where they think that they are.
    pub(super) external: External,
    /// The `Authorization` that they sent, where it is the registry's own business.
    passed: Option<HeaderValue>,
    /// The name whose password they don't have: to the registry they may be somebody all the same.
    rejected: Option<Box<str>>,
    /// Where they come from, for the audit log.
    peer: Option<IpAddr>,
    /// Whether they are on this machine, and nobody else sends this through them.
    from_here: bool,
    /// Whether another site's page sends this through their browser.
    is_cross_site: bool,
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
        let on_loopback = !settings.is_reached_through_others();
        Self { access, external, trusted_proxies: trusted_proxies.clone(), on_loopback, over_tls: false, rates }
    }

    /// The same, at the address where callers come in, with or without TLS.
    pub(super) fn at(self, address: SocketAddr, over_tls: bool) -> Self {
        Self { on_loopback: self.on_loopback && address.ip().to_canonical().is_loopback(), over_tls, ..self }
    }

    /// Proxies that bring the requests of others.
    pub(super) fn trusted_proxies(&self) -> &[Network] {
        &self.trusted_proxies
    }

    /// Whether only this machine reaches the store, as far as its settings say.
    pub(super) fn is_on_loopback(&self) -> bool {
        self.on_loopback
    }

    /// What gives out tokens.
    pub(super) fn access(&self) -> &AccessControl {
        &self.access
    }

    /// Whether anybody is asked who they are.
    pub(super) fn is_enabled(&self) -> bool {
        self.access.is_enabled()
    }

    /// Finds out who sends a request. Nobody in particular is somebody, too; credentials that prove nothing are refused.
    pub(super) async fn receive(&self, registry: &Registry, request: &HttpRequest) -> Result<Visitor, Refused> {
        if !self.is_enabled() {
            let identity = Identity { principal: Principal::anonymous(), credentials: Credentials::None, claims: None };
            let passed = request.headers().get(header::AUTHORIZATION).cloned();
            return Ok(Visitor { passed, ..self.visitor(identity, request) });
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
        let peer = ClientNetwork::of(self.peer(request));
        match self.access.authenticate_with(credentials.clone(), peer, Timestamp::now()).await {
            Ok(identity) => Ok(self.visitor(identity, request)),
            // Nobody's here may be somebody's there: who may read is the registry's to say.
            Err(AccessError::Rejected(Rejection::Password))
                if self.access.shares_credentials_with_registry()
                    && matches!(registry.wants().await, Ok(Wants::Basic(_) | Wants::Bearer { .. })) =>
            {
                let identity = Identity { principal: Principal::anonymous(), credentials, claims: None };
                Ok(Visitor { rejected: claimed, ..self.visitor(identity, request) })
            }
            Err(error) => {
                self.rejected(request, claimed.as_deref(), &error);
                let refused = refused(&error, &self.external(request), None);
                let mismatched = matches!(error, AccessError::Rejected(_)) && self.is_mismatched(registry).await;
                Err(if mismatched { refused.and(MISMATCH_FOR_CALLERS) } else { refused })
            }
        }
    }

    fn visitor(&self, identity: Identity, request: &HttpRequest) -> Visitor {
        let (external, peer) = (self.external(request), self.peer(request));
        let from_here = self.on_loopback
            && peer.is_some_and(|peer| peer.is_loopback())
            && !is_passed_on(request)
            && browser::is_for_loopback(request);
        let scheme_is_known = self.external.is_some() || request.app_config().secure();
        let is_cross_site = browser::is_cross_site(request.headers(), &external, scheme_is_known);
        Visitor { identity, external, passed: None, rejected: None, peer, from_here, is_cross_site }
    }

    /// The `Authorization` that the registry gets from a visitor. Asked for where the registry is: what it wants takes a
    /// question to it, and what is the store's alone needs none.
    ///
    /// It gets a name and password only where it asks for them: an open one could be anybody's, and one that wants tokens gets
    /// them in exchange for a token of its own alone.
    pub(super) async fn authorization(
        &self,
        registry: &Registry,
        visitor: &Visitor,
    ) -> Result<Option<HeaderValue>, Refused> {
        if !self.is_enabled() {
            return Ok(visitor.passed.clone());
        }
        let upstream = match &visitor.identity.claims {
            Some(claims) => claims.upstream.clone(),
            None => match self.for_the_registry(&visitor.identity) {
                Some(credentials) if matches!(registry.wants().await?, Wants::Basic(_)) => Some(credentials),
                _ => None,
            },
        };
        upstream.map(|value| sensitive(&value)).transpose()
    }

    /// Where a request comes from: the other end of its connection, or whom a proxy names there that is trusted to.
    fn peer(&self, request: &HttpRequest) -> Option<IpAddr> {
        let peer = request.peer_addr()?.ip().to_canonical();
        let fields = request.headers().get_all("x-forwarded-for");
        Some(self.behind(peer, fields.flat_map(|field| field.as_bytes().split(|&byte| byte == b',')).collect()))
    }

    /// Each proxy adds at the end from whom it has the request. What trusted ones added is believed, from the end on up to
    /// what can't be read, and nothing of what stands before it.
    fn behind(&self, mut peer: IpAddr, path: Vec<&[u8]>) -> IpAddr {
        for piece in path.into_iter().rev() {
            match address_of(piece) {
                Some(address) if self.is_trusted(peer) => peer = address,
                _ => break,
            }
        }
        peer
    }

    /// Whether a request comes over a connection of a proxy that is trusted.
    pub(super) fn is_of_a_trusted_proxy(&self, request: &HttpRequest) -> bool {
        request.peer_addr().is_some_and(|peer| self.is_trusted(peer.ip()))
    }

    fn is_trusted(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(peer))
    }

    /// Whether callers are known by a cluster, and to the registry by a name and a password. There is room for one of both in
    /// a request.
    async fn is_mismatched(&self, registry: &Registry) -> bool {
        self.is_enabled()
            && !self.access.shares_credentials_with_registry()
            && matches!(registry.wants().await, Ok(Wants::Basic(_)))
    }

    /// Says once, as soon as the registry can be asked, that they don't go together.
    pub(super) async fn warn_of(desk: Arc<Self>, registry: Registry) {
        if !desk.is_enabled() || desk.access.shares_credentials_with_registry() {
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
    pub(super) fn for_the_registry(&self, identity: &Identity) -> Option<SecretString> {
        if self.access.shares_credentials_with_registry() { identity.credentials.authorization() } else { None }
    }

    /// Refuses whoever came with a wrong password, and writes that down; for where the registry has no say.
    pub(super) fn must_not_be_rejected(&self, request: &HttpRequest, visitor: &Visitor) -> Result<(), Refused> {
        let Some(claimed) = &visitor.rejected else { return Ok(()) };
        let error = Rejection::Password.into();
        self.rejected(request, Some(claimed), &error);
        Err(refused(&error, &visitor.external, None))
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
        let believed = self.is_of_a_trusted_proxy(request) || !self.is_enabled();
        External::of(request.headers(), self.over_tls, believed)
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
        let outcome = if visitor.is_cross_site {
            // Whoever has logged in to the store, or stands on its machine, has not asked for what a page does.
            Err(Refused::no_role(format!(
                "a browser sends this for the page of another site (its Sec-Fetch-Site or Origin field says so), and no page may {}: \
                 use sealgate, skopeo or another tool, or a page at the store's own address",
                action.in_words(repository)
            )))
        } else if !self.is_enabled() {
            // A signature proves itself. That nobody is asked gives nobody the right to take away those of others.
            if visitor.from_here || action == Action::CreateSignature {
                Ok(())
            } else {
                Err(Refused::no_role(format!(
                    "without gateway.access nobody may {} but on the machine of a store that nobody else reaches (gateway.listen \
                     on loopback, no proxy, no gateway.externalUrl, no gateway.trustedProxies), asked for as localhost, 127.0.0.1 or \
                     [::1]: say in gateway.access who may",
                    action.in_words(repository)
                )))
            }
        } else if visitor.identity.principal.is_anonymous() {
            let rejected = visitor.rejected.as_ref().map(|_| Rejection::Password);
            let refused = rejected.map_or_else(Refused::who_are_you, |why| Refused::rejected(why.to_string()));
            Err(match registry.wants().await {
                // Who they are to the registry they are here.
                Ok(Wants::Basic(challenge)) if self.access.shares_credentials_with_registry() => {
                    refused.with_challenges(vec![challenge])
                }
                _ => challenged(refused, &visitor.external, Some(&scope), rejected.map(|_| "invalid_token")),
            })
        } else {
            match self.access.is_allowed(&visitor.identity, action, repository).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(Refused::no_role(format!(
                    "{} may not {}: that takes the role {}",
                    visitor.identity.principal,
                    action.in_words(repository),
                    self.access.role_for(action)
                ))),
                Err(error) => Err(refused(&error, &visitor.external, Some(&scope))),
            }
        };
        if let Err(refused) = &outcome {
            let what = repository.map_or("the store", RepositoryName::as_str);
            let (caller, refused) = (visitor.identity.principal.to_string(), refused.to_string());
            let claimed = visitor.rejected.as_deref();
            tracing::info!(target: "sealgate::audit", audit = true, caller, claimed, peer = ?visitor.peer, %action, what, refused, "refused");
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
        let cluster = self.is_enabled() && !self.access.shares_credentials_with_registry();
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
        let ours =
            self.is_enabled() && (given.iter().any(is_bearer) || !self.access.shares_credentials_with_registry());
        if ours && !given.is_empty() { visitor.challenge(scope).into_iter().collect() } else { given }
    }

    /// Refuses a caller who adds signatures faster than anybody signs.
    pub(super) fn must_be_slow_enough(&self, visitor: &Visitor) -> Result<(), Refused> {
        let Some(name) = visitor.identity.principal.name() else { return Ok(()) };
        let bucket = self.rates.get_with(name.into(), Arc::default);
        if bucket.take(Instant::now()) {
            return Ok(());
        }
        let caller = visitor.identity.principal.to_string();
        tracing::info!(target: "sealgate::audit", audit = true, caller, peer = ?visitor.peer, "too many signatures at once");
        Err(Refused::too_fast(format!(
            "{} adds more than {A_SECOND} signatures a second (and {BURST} at once)",
            visitor.identity.principal
        )))
    }
}

impl Visitor {
    /// What the audit log has of them.
    pub(super) fn witness(&self) -> Witness {
        Witness { caller: self.identity.principal.to_string(), peer: self.peer }
    }

    /// Who they are, where somebody asked, as the store keeps it.
    pub(super) fn name(&self) -> Option<Box<str>> {
        self.identity.principal.name().map(kept_name)
    }

    /// Whether they said nothing of who they are.
    pub(super) fn brought_nothing(&self) -> bool {
        self.identity.claims.is_none() && matches!(self.identity.credentials, Credentials::None)
    }

    /// What tells them how to be somebody.
    pub(super) fn is_asked_who(&self) -> Refused {
        challenged(Refused::who_are_you(), &self.external, None, self.identity.claims.as_ref().map(|_| "invalid_token"))
    }

    /// Our challenge to whoever the registry would not let do this; nothing: see [`challenge`].
    fn challenge(&self, scope: Option<&Scope>) -> Option<HeaderValue> {
        // A token that was good here and not there has been overtaken by the registry's own.
        challenge(&self.external, scope, self.identity.claims.as_ref().map(|_| "invalid_token"))
    }
}

/// Whether somebody sends this for somebody else, whoever they are. A proxy that says nothing of itself is not seen.
fn is_passed_on(request: &HttpRequest) -> bool {
    request.headers().keys().any(|name| is_about_the_way(name.as_str()) || name.as_str() == "via")
}

/// One step of the way of a request.
fn address_of(piece: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(piece).ok()?.trim();
    let address = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    Some(address.ok()?.to_canonical())
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
    use actix_web::{FromRequest as _, test::TestRequest, web::Payload};
    use base64::{Engine as _, prelude::BASE64_STANDARD};

    use super::*;
    use crate::configuration::{Access, Store, Upstream, Users};
    use crate::gateway::{
        test_log::Log,
        token_endpoint,
        upstream::{Learned, Settings},
    };

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
            over_tls: false,
            rates: Cache::new(1),
        };
        let proxies = desk(&["10.0.0.0/8", "fd00::1"]);
        for (desk, peer, path, expected) in [
            (&desk(&[]), "10.0.0.1", b"192.0.2.1".as_slice(), "10.0.0.1"),
            (&proxies, "192.0.2.9", b"192.0.2.1", "192.0.2.9"),
            (&proxies, "10.0.0.1", b"", "10.0.0.1"),
            (&proxies, "10.0.0.1", b"192.0.2.1", "192.0.2.1"),
            (&proxies, "10.0.0.1", b"198.51.100.1, 192.0.2.1:4711", "192.0.2.1"),
            (&proxies, "10.0.0.1", b"192.0.2.1, fd00::1 , 10.1.1.1", "192.0.2.1"),
            (&proxies, "10.0.0.1", b"192.0.2.1, unknown", "10.0.0.1"),
            (&proxies, "10.0.0.1", b"10.0.0.2", "10.0.0.2"),
            // Whoever sends what can't be read hides nothing of what was added behind it.
            (&proxies, "10.0.0.1", b"\xff, 192.0.2.1", "192.0.2.1"),
            (&proxies, "10.0.0.1", b"198.51.100.1, \xff, 10.0.0.2", "10.0.0.2"),
        ] {
            let peer = desk.behind(peer.parse().unwrap(), path.split(|&byte| byte == b',').collect());
            assert_eq!(peer, expected.parse::<IpAddr>().unwrap(), "{}", String::from_utf8_lossy(path));
        }
    }

    fn settings() -> Gateway {
        Gateway {
            listen: ([127, 0, 0, 1], 0).into(),
            certificate: None,
            anyone_may_sign: false,
            registry: Upstream {
                url: "http://127.0.0.1:1".parse().unwrap(),
                ca_file: None,
                token_realms: Vec::new(),
                insecure: false,
            },
            store: Store::Redb("unused".into()),
            access: None,
            external_url: None,
            trusted_proxies: Vec::new(),
        }
    }

    #[tokio::test]
    async fn who_guesses_passwords_is_written_down_where_the_registry_may_know_them_too() {
        let (log, _logging) = Log::start();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let hash = bcrypt::hash_with_salt("secret", 4, [7; 16]).unwrap();
        std::fs::write(path("htpasswd"), format!("jane:{hash}\n")).unwrap();
        std::fs::write(path("roles"), "apiVersion: sealgate.dev/v1\nkind: StoreRoles\nroles: []\n").unwrap();
        let users = Users::Htpasswd { file: path("htpasswd"), roles: path("roles") };
        let access = AccessControl::open(Some(&Access { users, token_key: None })).await.unwrap();
        let settings = settings();
        let desk = Desk::new(Arc::new(access), &settings).at(settings.listen, false);
        let realm = "http://127.0.0.1:1/token".parse().unwrap();
        for wants in
            [Wants::Basic(HeaderValue::from_static("Basic realm=\"r\"")), Wants::Bearer { realm, service: None }]
        {
            let learned = Learned::that_it_wants(wants).await;
            let registry = Settings::new(&settings.registry, 0).unwrap().registry(learned).unwrap();
            let request = |uri: &str| {
                let basic = format!("Basic {}", BASE64_STANDARD.encode("jane:guessed"));
                let request = TestRequest::with_uri(uri).peer_addr(([192, 0, 2, 7], 1).into());
                request.insert_header(("authorization", basic)).to_http_request()
            };
            let before = log.text().len();
            let visitor = desk.receive(&registry, &request("/v2/")).await.unwrap();
            assert_eq!(log.text().len(), before, "they may read, as far as the registry lets them");
            let refused = desk.must_be_allowed(&registry, &visitor, Action::Export, None).await.unwrap_err();
            assert!(
                refused.to_string().starts_with("401 ") && refused.to_string().contains("password is wrong"),
                "{refused}"
            );
            let line = log.text()[before..].to_owned();
            for part in ["audit=true", "claimed=\"jane\"", "192.0.2.7", "export", "password is wrong", "refused"] {
                assert!(line.contains(part), "{part}: {line}");
            }
            let before = log.text().len();
            let asks = request("/sealgate/v1/token?scope=registry:signatures:*");
            let nothing = Payload::extract(&asks).await.unwrap();
            assert_eq!(token_endpoint::answer(&registry, &desk, &asks, nothing).await.status(), 401);
            let line = log.text()[before..].to_owned();
            for part in ["audit=true", "claimed=\"jane\"", "192.0.2.7", "password is wrong", "credentials rejected"] {
                assert!(line.contains(part), "{part}: {line}");
            }
            assert!(!log.text().contains("guessed"));
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
