//! Token authentication (distribution specification, "Token Authentication Specification"; Docker's `OAuth2` variant for
//! identity tokens).

use std::{sync::Arc, time::Duration};

use moka::{Expiry, future::Cache};
use reqwest::{Method, header::HeaderValue};
use secrecy::ExposeSecret;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::{
    access::Access,
    allowed_hosts::host_of,
    authorization::{AuthRequest, Authorization},
    blocking_pool::BlockingPool,
    challenge::Challenge,
    content::Content,
    credentials::{self, CredentialHelpers, FindError, looked_in},
    failure::Failure,
    helper::HELPER_TIMEOUT,
    login::Login,
    remote_server::RemoteServer,
    target::Target,
    time_budget::TimeBudget,
    token_realm::is_trusted,
    token_response::{MAX_ANSWER, parse},
    transport::{MAX_SHARED_BACKOFF, OutgoingRequest, Transport},
};
use crate::redact::shown;
use crate::refusal::LookupError;
use crate::telemetry::RequestKind;

/// The time limit of one request for a token, which all waiting callers share.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(15);
/// The maximum number of credential files that are read at once; a file on a network may hang.
const MAX_CONCURRENT_FILES: usize = 16;
/// The approximate memory of the token cache, in bytes: some thousands of usual tokens.
const MAX_TOKEN_CACHE_BYTES: u64 = 8 << 20;

/// The reason why credentials were withheld.
const FOREIGN: &str = "credentials are not sent there: it is not of the registry's own host or domain; if it is right, name it in the entry's tokenRealms";
const PLAIN: &str =
    "credentials are not sent over plain HTTP (but where the registries entry of this host says insecure: true)";

/// The key of a token: the settings identify the credentials, the scope is what the token permits.
#[derive(Clone, PartialEq, Eq, Hash)]
struct TokenKey {
    settings: usize,
    registry: Arc<str>,
    realm: Url,
    service: Option<Box<str>>,
    repository: Box<str>,
    access: Access,
}

struct TokenTtl;

impl Expiry<TokenKey, Authorization> for TokenTtl {
    fn expire_after_create(&self, _: &TokenKey, grant: &Authorization, _: std::time::Instant) -> Option<Duration> {
        Some(grant.life)
    }
}

/// Returns the approximate memory of a token with its key, in bytes.
fn weight(key: &TokenKey, grant: &Authorization) -> u32 {
    let key = key.realm.as_str().len() + key.service.as_ref().map_or(0, |service| service.len()) + key.repository.len();
    let token = grant.header.as_ref().map_or(0, HeaderValue::len);
    u32::try_from(512 + key + token).unwrap_or(u32::MAX)
}

/// The token cache. Tokens are kept until they expire, and concurrent requests for one are a single flight.
pub(crate) struct Tokens {
    kept: Cache<TokenKey, Authorization>,
    /// The pool for reads of credential files.
    files: BlockingPool,
    helpers: CredentialHelpers,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        let kept = Cache::builder().max_capacity(MAX_TOKEN_CACHE_BYTES).weigher(weight).expire_after(TokenTtl).build();
        Self { kept, files: BlockingPool::new(MAX_CONCURRENT_FILES), helpers: CredentialHelpers::new() }
    }

    /// Returns the authorization that answers a challenge. The one in `refused` is not returned again.
    pub(crate) async fn answer(
        &self,
        transport: &Transport,
        target: &Target,
        base: &Url,
        need: &AuthRequest<'_>,
        budget: TimeBudget,
    ) -> Result<Authorization, LookupError> {
        let AuthRequest { challenge, access, refused } = *need;
        match challenge {
            Challenge::Basic => self.basic(target, base, budget).await,
            Challenge::Bearer { realm, service } => {
                let key = TokenKey {
                    settings: target.remote.settings.number,
                    registry: Arc::clone(&target.remote.registry),
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
                    Err(_) => Err(Failure::TimedOut.at(&target.remote.registry, base, budget.total())),
                }
            }
        }
    }

    async fn basic(&self, target: &Target, base: &Url, budget: TimeBudget) -> Result<Authorization, LookupError> {
        let may_be_seen = base.scheme() != "https" && !target.remote.settings.insecure;
        if may_be_seen && !target.remote.settings.is_asked_by_a_person() {
            let withheld = target.remote.settings.credentials.as_ref().map(|_| PLAIN);
            return Ok(Authorization { withheld, ..Authorization::NONE });
        }
        let login = self.login(target, base, budget).await?;
        if may_be_seen {
            return Ok(Authorization { withheld: login.map(|_| PLAIN), ..Authorization::NONE });
        }
        let header = login.as_ref().and_then(Login::basic);
        Ok(Authorization { with_credentials: header.is_some(), header, ..Authorization::NONE })
    }

    async fn login(&self, target: &Target, base: &Url, budget: TimeBudget) -> Result<Option<Login>, LookupError> {
        let Some(credentials) = &target.remote.settings.credentials else { return Ok(None) };
        let found = credentials::find(credentials, &target.repository, &self.files, &self.helpers, budget.deadline);
        let found = timeout_at(budget.deadline, found).await.unwrap_or(Err(FindError::Failure(Failure::TimedOut)));
        let registry = &target.remote.registry;
        found.map_err(|error| match error {
            FindError::Failure(failure) => failure.at(registry, base, budget.total()),
            error if target.remote.settings.is_for_command => LookupError::CredentialsUnusable {
                registry: (&**registry).into(),
                url: shown(base),
                cause: error.to_string().into(),
            },
            // The paths of the gate's files are for its operators only, so the log has them and the denial does not.
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

    /// Requests a token from a realm.
    async fn request(
        &self,
        transport: &Transport,
        target: &Target,
        base: &Url,
        (realm, service): (&Url, Option<&str>),
        access: &Access,
    ) -> Result<Authorization, LookupError> {
        let budget = TimeBudget::until(Instant::now() + TOKEN_TIMEOUT);
        let settings = &target.remote.settings;
        let at_base = |failure: Failure| failure.at(&target.remote.registry, base, budget.total());
        if realm.scheme() != "https" && !settings.insecure {
            return Err(at_base(Failure::Misbehaved("its token realm is not https".to_owned())));
        }
        let trusted = is_trusted(realm, base, &target.remote);
        // The login files of a user must be read to know whether they have credentials, and a helper may have to ask
        // for a passphrase. The realm has its whole time after that.
        let is_person = settings.is_asked_by_a_person();
        let finding = if is_person { TimeBudget::until(Instant::now() + 2 * HELPER_TIMEOUT) } else { budget };
        let login = if trusted || is_person { self.login(target, base, finding).await? } else { None };
        let budget = if is_person { TimeBudget::until(Instant::now() + TOKEN_TIMEOUT) } else { budget };
        let is_withheld = !trusted && if is_person { login.is_some() } else { settings.credentials.is_some() };
        let withheld = is_withheld.then_some(FOREIGN);
        let login = login.filter(|_| trusted);
        if withheld.is_some() {
            tracing::warn!(
                registry = %target.remote.registry,
                realm = %shown(realm),
                "credentials are not sent to this token realm: it is not of the registry's own host or domain; if it is right, add it to the entry's tokenRealms"
            );
        }

        // The request names the scopes that it needs, not those of the challenge.
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
        let remote = RemoteServer { named: target.remote.named && own, ..target.remote.clone() };
        let ask = OutgoingRequest {
            remote: &remote,
            url: &url,
            method,
            kind: RequestKind::Token,
            headers: reqwest::header::HeaderMap::new(),
            authorization,
            content,
            repeat: true,
            limit: MAX_ANSWER,
            longest_wait: MAX_SHARED_BACKOFF,
            budget,
        };
        // A realm's URL is the registry's text; messages show only a trusted one.
        let failed = |failure| failure_at(failure, &target.remote.registry, if trusted { &url } else { base }, budget);
        let answer = transport.ask(&ask).await.map_err(|failure| {
            failed(failure.of_token_realm(|| {
                "no public address of its token realm can be found, and no registries entry names it (tokenRealms)"
                    .to_owned()
            }))
        })?;
        match answer.status {
            200 => {}
            status @ (401 | 403) if withheld.is_some() => {
                return Err(failed(Failure::Misbehaved(format!("its token realm answers {status}, and {FOREIGN}"))));
            }
            status @ (401 | 403) => {
                return Err(LookupError::Unauthorized {
                    registry: (&*target.remote.registry).into(),
                    url: shown(if trusted { &url } else { base }),
                    status,
                    with_credentials: login.is_some(),
                    looked_in: looked_in(settings.credentials.as_ref(), login.is_some()),
                });
            }
            status @ (429 | 500..) => {
                return Err(LookupError::Unavailable {
                    registry: (&*target.remote.registry).into(),
                    url: shown(if trusted { &url } else { base }),
                    cause: format!("its token realm answers {status}").into(),
                    retry_after: answer.retry_after(),
                });
            }
            status => return Err(failed(Failure::Misbehaved(format!("its token realm answers {status}")))),
        }
        let (token, life) = parse(&answer.body)
            .ok_or_else(|| failed(Failure::Misbehaved("what its token realm sends is no token".to_owned())))?;
        Ok(Authorization { header: Some(token), with_credentials: login.is_some(), withheld, life })
    }
}

fn failure_at(failure: Failure, registry: &str, url: &Url, budget: TimeBudget) -> LookupError {
    failure.at(registry, url, budget.total())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::token_response::MAX_TOKEN;

    #[tokio::test]
    async fn kept_tokens_are_bounded_in_bytes() {
        let tokens = Tokens::new();
        let mut header = HeaderValue::from_str(&"t".repeat(MAX_TOKEN)).unwrap();
        header.set_sensitive(true);
        let grant = Authorization { header: Some(header), life: Duration::from_hours(24), ..Authorization::NONE };
        for number in 0..2000 {
            let key = TokenKey {
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
        assert!(tokens > 0 && tokens * MAX_TOKEN as u64 <= MAX_TOKEN_CACHE_BYTES, "{tokens}");
    }
}
