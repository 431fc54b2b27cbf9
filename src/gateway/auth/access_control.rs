//! Authenticates callers, authorizes them, and issues tokens, over one of the backends.

use std::{path::Path, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    AccessError, Action, AllowAll, AuthBackend, ClientNetwork, Credentials, Principal, Rejection,
    htpasswd::{Htpasswd, UsersError},
    kubernetes::{Kubernetes, KubernetesError},
    scope::{Scope, Scopes},
    token::{Claims, SealError, TOKEN_TTL, TokenError, is_ours},
    token_key::{KeyRing, TokenKeyError},
};
use crate::configuration;
use crate::gateway::store::RepositoryName;

/// The reason why access control can't be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessSetupError {
    /// The files with users and roles can't be read or watched, or have mistakes.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The API server can't be asked.
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
    /// The keys of tokens can't be read or made.
    #[error(transparent)]
    TokenKey(#[from] TokenKeyError),
}

/// Authenticates callers, authorizes them, and issues tokens.
#[derive(Debug)]
pub struct AccessControl {
    backend: Arc<dyn AuthBackend>,
    keys: KeyRing,
    is_enabled: bool,
    shared: bool,
}

/// An authenticated caller, and what they sent.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The principal that the credentials prove.
    pub principal: Principal,
    /// The credentials, for a registry that has the same users. Never a token of this store: see [`Identity::claims`].
    pub credentials: Credentials,
    /// The claims of the caller's token, if this store issued it.
    pub claims: Option<Claims>,
}

/// The `Authorization` for the registry in place of the store's token.
#[derive(Clone, Debug)]
pub struct UpstreamAuthorization {
    /// The value of the field.
    pub authorization: SecretString,
    /// The time for which the registry accepts it.
    pub life: SignedDuration,
}

/// A token that this store issued.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// The token.
    pub token: SecretString,
    /// Its time to live, in whole seconds.
    pub seconds: i64,
}

impl AccessControl {
    /// Sets up access control from the configuration. `None` allows every caller everything.
    ///
    /// Call it on the runtime that outlives all callers.
    ///
    /// # Errors
    /// A file can't be read or has mistakes, or there is no address of an API server.
    pub async fn open(settings: Option<&configuration::Access>) -> Result<Self, AccessSetupError> {
        Self::with(settings, KeyRing::open).await
    }

    /// Reads everything that [`AccessControl::open`] reads, and makes no file.
    ///
    /// # Errors
    /// The errors of [`AccessControl::open`].
    pub async fn check(settings: Option<&configuration::Access>) -> Result<(), AccessSetupError> {
        Self::with(settings, KeyRing::look).await.map(drop)
    }

    async fn with(
        settings: Option<&configuration::Access>,
        keys: impl FnOnce(&Path) -> Result<KeyRing, TokenKeyError>,
    ) -> Result<Self, AccessSetupError> {
        let Some(configuration::Access { users, token_key }) = settings else {
            return Ok(Self::everyone()?);
        };
        let shared = matches!(users, configuration::Users::Htpasswd { .. });
        let backend: Arc<dyn AuthBackend> = match users {
            configuration::Users::Htpasswd { file, roles } => Arc::new(Htpasswd::open(file, roles)?),
            configuration::Users::Kubernetes { kubeconfig, audiences } => {
                Arc::new(Kubernetes::connect(kubeconfig.as_deref(), audiences).await?)
            }
        };
        let keys = match token_key {
            Some(path) => keys(path)?,
            None => KeyRing::random()?,
        };
        Ok(Self { backend, keys, is_enabled: true, shared })
    }

    /// Makes an access control that allows every caller everything.
    pub(in crate::gateway) fn everyone() -> Result<Self, TokenKeyError> {
        Ok(Self { backend: Arc::new(AllowAll), keys: KeyRing::random()?, is_enabled: false, shared: true })
    }

    /// Returns whether callers are authenticated. If not, credentials go to the registry unchecked.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Returns whether the registry may have the same users. A cluster's token is for the store alone.
    pub fn shares_credentials_with_registry(&self) -> bool {
        self.shared
    }

    /// Authenticates the sender of a request with these `Authorization` fields. An anonymous caller is an error only if
    /// an action requires a permission.
    ///
    /// # Errors
    /// [`AccessError::Rejected`]: 401 with a challenge. [`AccessError::Busy`]: 429. [`AccessError::Unavailable`]: 503.
    pub async fn authenticate<'a>(
        &self,
        authorization: impl IntoIterator<Item = &'a [u8]>,
        peer: ClientNetwork,
        now: Timestamp,
    ) -> Result<Identity, AccessError> {
        if !self.is_enabled {
            return Ok(Identity { principal: Principal::anonymous(), credentials: Credentials::None, claims: None });
        }
        let credentials = Credentials::from_authorization(authorization).map_err(Rejection::from)?;
        self.authenticate_with(credentials, peer, now).await
    }

    /// Authenticates the sender of credentials from a form.
    ///
    /// # Errors
    /// The errors of [`AccessControl::authenticate`].
    pub async fn authenticate_with(
        &self,
        credentials: Credentials,
        peer: ClientNetwork,
        now: Timestamp,
    ) -> Result<Identity, AccessError> {
        if let Credentials::Bearer(token) = &credentials
            && is_ours(token.expose_secret())
        {
            let claims = self.keys.get().open(token.expose_secret(), now).map_err(Rejection::from)?;
            return Ok(Identity {
                principal: claims.principal.clone(),
                credentials: Credentials::None,
                claims: Some(claims),
            });
        }
        let principal = self.backend.authenticate(&credentials, peer).await?;
        Ok(Identity { principal, credentials, claims: None })
    }

    /// Returns the role that allows an action, for the refusal of a caller without it.
    pub fn role_for(&self, action: Action) -> &'static str {
        self.backend.role_for(action)
    }

    /// Returns whether a caller may act on the signatures of a repository, or of every repository for `None`. A token of
    /// this store allows no more than its scopes.
    ///
    /// # Errors
    /// [`AccessError::Rejected`] with [`TokenError::Scope`]: 401, with a challenge that names [`Scope::needed_for`] it.
    /// [`AccessError::Busy`]: 429. [`AccessError::Unavailable`]: 503.
    pub async fn is_allowed(
        &self,
        identity: &Identity,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> Result<bool, AccessError> {
        if !self.backend.is_allowed(&identity.principal, action, repository).await? {
            return Ok(false);
        }
        match &identity.claims {
            Some(claims) if !claims.scopes.cover(&Scope::needed_for(action, repository)) => {
                Err(Rejection::from(TokenError::Scope).into())
            }
            _ => Ok(true),
        }
    }

    /// Issues a token for [`TOKEN_TTL`], or for as long as the registry accepts its part of it. A caller that is
    /// authenticated by a token gets no more time, no more scopes, and no other `Authorization` for the registry than
    /// that token has.
    ///
    /// # Errors
    /// The token would be too long, or expire at once.
    pub fn issue_token(
        &self,
        identity: &Identity,
        scopes: Scopes,
        upstream: Option<UpstreamAuthorization>,
        now: Timestamp,
    ) -> Result<IssuedToken, SealError> {
        let latest = now.saturating_add(TOKEN_TTL).map_err(|_| SealError::Failed)?;
        let (scopes, upstream, expires_at) = match (&identity.claims, upstream) {
            (Some(claims), _) => {
                (scopes.within(&claims.scopes), claims.upstream.clone(), claims.expires_at.min(latest))
            }
            (None, Some(UpstreamAuthorization { authorization, life })) => {
                let over = now.saturating_add(life).map_err(|_| SealError::Failed)?;
                (scopes, Some(authorization), over.min(latest))
            }
            (None, None) => (scopes, None, latest),
        };
        let seconds =
            Timestamp::from_second(expires_at.as_second()).map_err(|_| SealError::Failed)?.duration_since(now);
        if seconds.as_secs() < 1 {
            return Err(SealError::Over);
        }
        let principal = identity.principal.clone();
        let token = self.keys.get().seal(&Claims { principal, scopes, upstream, expires_at })?;
        Ok(IssuedToken { token, seconds: seconds.as_secs() })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use async_trait::async_trait;
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    /// Knows everybody, and lets jane do everything.
    #[derive(Debug)]
    struct Jane;

    #[async_trait]
    impl AuthBackend for Jane {
        async fn authenticate(&self, credentials: &Credentials, _: ClientNetwork) -> Result<Principal, AccessError> {
            match credentials {
                Credentials::None => Ok(Principal::anonymous()),
                Credentials::Basic { user, .. } => Ok(Principal { name: Some(user.clone()), ..Principal::default() }),
                Credentials::Bearer(token) if is_ours(token.expose_secret()) => panic!("ours stay here"),
                Credentials::Bearer(_) => Err(Rejection::Unknown.into()),
            }
        }

        async fn is_allowed(
            &self,
            principal: &Principal,
            _: Action,
            _: Option<&RepositoryName>,
        ) -> Result<bool, AccessError> {
            Ok(principal.name() == Some("jane"))
        }
    }

    /// Makes an access control with any user, whose users the registry may have, too (`shared`).
    pub(in crate::gateway::auth) fn control_of_any_user(shared: bool) -> AccessControl {
        AccessControl { backend: Arc::new(Jane), keys: KeyRing::random().unwrap(), is_enabled: true, shared }
    }

    fn control() -> AccessControl {
        control_of_any_user(true)
    }

    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    async fn authenticate(control: &AccessControl, field: &str) -> Result<Identity, AccessError> {
        control.authenticate([field.as_bytes()], ClientNetwork::default(), now()).await
    }

    fn basic(user: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:x")))
    }

    async fn token(control: &AccessControl, user: &str, scope: &str) -> String {
        let identity = authenticate(control, &basic(user)).await.unwrap();
        let upstream = UpstreamAuthorization { authorization: "Basic up".into(), life: TOKEN_TTL };
        let given = control.issue_token(&identity, Scopes::parse([scope]).unwrap(), Some(upstream), now()).unwrap();
        format!("Bearer {}", given.token.expose_secret())
    }

    #[tokio::test]
    async fn who_got_a_token_is_known_by_it_and_by_nothing_else_of_what_they_sent() {
        let control = control();
        let identity = authenticate(&control, &token(&control, "jane", "repository:a:pull").await).await.unwrap();
        assert_eq!(identity.principal.name(), Some("jane"));
        assert!(matches!(identity.credentials, Credentials::None), "our tokens never leave us");
        assert_eq!(identity.claims.unwrap().upstream.unwrap().expose_secret(), "Basic up");
        let identity = authenticate(&control, &basic("joe")).await.unwrap();
        assert!(matches!(identity.credentials, Credentials::Basic { .. }) && identity.claims.is_none());
        let identity = control.authenticate([], ClientNetwork::default(), now()).await.unwrap();
        assert!(identity.principal.is_anonymous());
    }

    #[tokio::test]
    async fn bad_credentials_are_never_taken_for_none() {
        let control = control();
        let foreign = token(&self::control(), "jane", "repository:a:pull").await;
        for (field, expected) in [
            (foreign.as_str(), Rejection::Token(TokenError::Unknown)),
            ("Bearer sealgate_", Rejection::Token(TokenError::Unknown)),
            ("Bearer eyJ", Rejection::Unknown),
            ("Digest x", Rejection::Malformed(super::super::MalformedCredentials::Scheme)),
        ] {
            assert_eq!(authenticate(&control, field).await.unwrap_err(), expected.into(), "{field}");
        }
    }

    #[tokio::test]
    async fn a_token_is_for_what_it_was_asked_for_and_a_role_is_needed_all_the_same() {
        let control = control();
        let repository = RepositoryName::parse("a").unwrap();
        let sign = async |field: &str| {
            let identity = authenticate(&control, field).await.unwrap();
            control.is_allowed(&identity, Action::CreateSignature, Some(&repository)).await
        };
        assert_eq!(sign(&basic("jane")).await, Ok(true));
        assert_eq!(sign(&basic("joe")).await, Ok(false));
        assert_eq!(sign(&token(&control, "jane", "repository:a:pull,push").await).await, Ok(true));
        assert_eq!(sign(&token(&control, "joe", "repository:a:pull,push").await).await, Ok(false));
        for scope in ["repository:a:pull", "repository:b:pull,push", ""] {
            let refused = sign(&token(&control, "jane", scope).await).await;
            assert_eq!(refused, Err(Rejection::Token(TokenError::Scope).into()), "{scope}");
            assert_eq!(sign(&token(&control, "joe", scope).await).await, Ok(false), "no scope would help");
        }
    }

    #[tokio::test]
    async fn a_token_is_worth_no_more_than_the_one_that_it_was_given_for() {
        let control = control();
        let first = authenticate(&control, &token(&control, "jane", "repository:a:pull").await).await.unwrap();
        let end = now() + TOKEN_TTL;
        let later = end - SignedDuration::from_secs(1);
        let more = Scopes::parse(["repository:a:pull,push repository:a:pull repository:b:pull"]).unwrap();
        let upstream = UpstreamAuthorization { authorization: "Basic other".into(), life: TOKEN_TTL };
        let second = control.issue_token(&first, more, Some(upstream), later).unwrap();
        assert_eq!(second.seconds, 1);
        let field = format!("Bearer {}", second.token.expose_secret());
        let identity = control.authenticate([field.as_bytes()], ClientNetwork::default(), later).await.unwrap();
        let claims = identity.claims.unwrap();
        assert_eq!((claims.scopes, claims.upstream.unwrap().expose_secret()), (Scopes::default(), "Basic up"));
        let over = control.authenticate([field.as_bytes()], ClientNetwork::default(), end).await.unwrap_err();
        assert_eq!(over, Rejection::Token(TokenError::Expired).into());
        let last = later + SignedDuration::from_millis(1);
        assert_eq!(control.issue_token(&first, Scopes::default(), None, last).unwrap_err(), SealError::Over);
    }

    #[tokio::test]
    async fn a_token_ends_with_what_it_has_for_the_registry() {
        let control = control();
        let jane = authenticate(&control, &basic("jane")).await.unwrap();
        let given = |life: i64| {
            let upstream =
                UpstreamAuthorization { authorization: "Bearer up".into(), life: SignedDuration::from_secs(life) };
            control.issue_token(&jane, Scopes::default(), Some(upstream), now()).unwrap()
        };
        assert_eq!(given(3600).seconds, TOKEN_TTL.as_secs(), "never longer than our own");
        let short = given(20);
        assert_eq!(short.seconds, 20);
        let field = format!("Bearer {}", short.token.expose_secret());
        let at = |seconds| now() + SignedDuration::from_secs(seconds);
        assert!(control.authenticate([field.as_bytes()], ClientNetwork::default(), at(19)).await.is_ok());
        let over = control.authenticate([field.as_bytes()], ClientNetwork::default(), at(20)).await.unwrap_err();
        assert_eq!(over, Rejection::Token(TokenError::Expired).into());
    }

    #[tokio::test]
    async fn without_access_nobody_is_asked_and_everybody_may_do_everything() {
        let control = AccessControl::open(None).await.unwrap();
        assert!(!control.is_enabled());
        let identity = authenticate(&control, "Digest of the registry's").await.unwrap();
        assert!(identity.principal.is_anonymous());
        assert!(control.is_allowed(&identity, Action::Import, None).await.unwrap());
    }
}
