//! What the server asks: one way in for everybody, whatever they bring along.

use std::{path::Path, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    Access, AccessError, Action, Caller, Credentials, Everyone, Peer, Rejection,
    htpasswd::{Htpasswd, UsersError},
    kubernetes::{Kubernetes, KubernetesError},
    scope::{Scope, Scopes},
    token::{LIFETIME, Pass, SealError, TokenError, is_ours},
    token_key::{KeyRing, TokenKeyError},
};
use crate::configuration;
use crate::gateway::store::RepositoryName;

/// Why nobody could be let in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessSetupError {
    /// The files with users and roles.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The API server.
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
    /// The keys of tokens.
    #[error(transparent)]
    TokenKey(#[from] TokenKeyError),
}

/// Says who sends a request, what they may do, and gives out tokens.
#[derive(Debug)]
pub struct AccessControl {
    backend: Arc<dyn Access>,
    keys: KeyRing,
    asks_who: bool,
    shared: bool,
}

/// Who sends a request, and what they brought along.
#[derive(Clone, Debug)]
pub struct Known {
    /// Who they are, proved.
    pub caller: Caller,
    /// What they sent: for the registry, where they are known there too. Never a token of ours: see [`Known::pass`].
    pub credentials: Credentials,
    /// What their token says, if it was one of ours.
    pub pass: Option<Pass>,
}

/// What goes to the registry in place of a token.
#[derive(Clone, Debug)]
pub struct ForTheRegistry {
    /// As `Authorization`.
    pub authorization: SecretString,
    /// How long the registry takes it.
    pub life: SignedDuration,
}

/// A token that was given out.
#[derive(Clone, Debug)]
pub struct Given {
    /// The token.
    pub token: SecretString,
    /// How many whole seconds it is good for.
    pub seconds: i64,
}

impl AccessControl {
    /// Puts together what the configuration says; nothing: everyone may do everything.
    ///
    /// To be called on the runtime that outlives all who ask.
    ///
    /// # Errors
    /// Files that can't be read or have mistakes, an API server that can't be asked.
    pub async fn open(settings: Option<&configuration::Access>) -> Result<Self, AccessSetupError> {
        Self::with(settings, KeyRing::open).await
    }

    /// Reads all that [`AccessControl::open`] reads, and makes no file.
    ///
    /// # Errors
    /// The same.
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
        let backend: Arc<dyn Access> = match users {
            configuration::Users::Htpasswd { file, roles } => Arc::new(Htpasswd::open(file, roles)?),
            configuration::Users::Kubernetes { kubeconfig, audiences } => {
                Arc::new(Kubernetes::connect(kubeconfig.as_deref(), audiences).await?)
            }
        };
        let keys = match token_key {
            Some(path) => keys(path)?,
            None => KeyRing::random()?,
        };
        Ok(Self { backend, keys, asks_who: true, shared })
    }

    /// Everyone may do everything.
    pub(in crate::gateway) fn everyone() -> Result<Self, TokenKeyError> {
        Ok(Self { backend: Arc::new(Everyone), keys: KeyRing::random()?, asks_who: false, shared: true })
    }

    /// Whether anybody is asked who they are. Where not, credentials are the registry's own business.
    pub fn asks_who(&self) -> bool {
        self.asks_who
    }

    /// Whether callers may be known to the registry by the same credentials. A cluster's token is for the store alone.
    pub fn is_shared_with_the_registry(&self) -> bool {
        self.shared
    }

    /// Who sends a request with these `Authorization` fields. Nobody in particular is no error: what they may not do,
    /// they are told when they try.
    ///
    /// # Errors
    /// [`AccessError::Rejected`]: 401 with a challenge. [`AccessError::Busy`]: 429. [`AccessError::Unavailable`]: 503.
    pub async fn identify<'a>(
        &self,
        authorization: impl IntoIterator<Item = &'a [u8]>,
        peer: Peer,
        now: Timestamp,
    ) -> Result<Known, AccessError> {
        if !self.asks_who {
            return Ok(Known { caller: Caller::anonymous(), credentials: Credentials::None, pass: None });
        }
        let credentials = Credentials::from_authorization(authorization).map_err(Rejection::from)?;
        self.identify_as(credentials, peer, now).await
    }

    /// As [`AccessControl::identify`], for credentials out of a form.
    ///
    /// # Errors
    /// The same.
    pub async fn identify_as(
        &self,
        credentials: Credentials,
        peer: Peer,
        now: Timestamp,
    ) -> Result<Known, AccessError> {
        if let Credentials::Bearer(token) = &credentials
            && is_ours(token.expose_secret())
        {
            let pass = self.keys.get().open(token.expose_secret(), now).map_err(Rejection::from)?;
            return Ok(Known { caller: pass.caller.clone(), credentials: Credentials::None, pass: Some(pass) });
        }
        let caller = self.backend.authenticate(&credentials, peer).await?;
        Ok(Known { caller, credentials, pass: None })
    }

    /// The role that lets do this, for whoever is refused without it.
    pub fn role_for(&self, action: Action) -> &'static str {
        self.backend.role_for(action)
    }

    /// Whether they may do this to the signatures of a repository; nothing: of every repository. A token of ours lets do
    /// no more than it was asked for.
    ///
    /// # Errors
    /// [`AccessError::Rejected`] with [`TokenError::Scope`]: 401, with a challenge that names [`Scope::needed_for`] it.
    /// [`AccessError::Busy`]: 429. [`AccessError::Unavailable`]: 503.
    pub async fn may(
        &self,
        known: &Known,
        action: Action,
        repository: Option<&RepositoryName>,
    ) -> Result<bool, AccessError> {
        if !self.backend.may(&known.caller, action, repository).await? {
            return Ok(false);
        }
        match &known.pass {
            Some(pass) if !pass.scopes.cover(&Scope::needed_for(action, repository)) => {
                Err(Rejection::from(TokenError::Scope).into())
            }
            _ => Ok(true),
        }
    }

    /// Gives out a token for [`LIFETIME`], or for as long as what it has in it. Whoever comes with one gets no more than that
    /// has: neither time nor scopes, and the same for the registry.
    ///
    /// # Errors
    /// It would be too long, or over at once.
    pub fn token(
        &self,
        known: &Known,
        scopes: Scopes,
        upstream: Option<ForTheRegistry>,
        now: Timestamp,
    ) -> Result<Given, SealError> {
        let latest = now.saturating_add(LIFETIME).map_err(|_| SealError::Failed)?;
        let (scopes, upstream, expires_at) = match (&known.pass, upstream) {
            (Some(pass), _) => (scopes.within(&pass.scopes), pass.upstream.clone(), pass.expires_at.min(latest)),
            (None, Some(ForTheRegistry { authorization, life })) => {
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
        let token = self.keys.get().seal(&Pass { caller: known.caller.clone(), scopes, upstream, expires_at })?;
        Ok(Given { token, seconds: seconds.as_secs() })
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    /// Knows everybody, and lets jane do everything.
    #[derive(Debug)]
    struct Jane;

    #[async_trait]
    impl Access for Jane {
        async fn authenticate(&self, credentials: &Credentials, _: Peer) -> Result<Caller, AccessError> {
            match credentials {
                Credentials::None => Ok(Caller::anonymous()),
                Credentials::Basic { user, .. } => Ok(Caller { name: Some(user.clone()), ..Caller::default() }),
                Credentials::Bearer(token) if is_ours(token.expose_secret()) => panic!("ours stay here"),
                Credentials::Bearer(_) => Err(Rejection::Unknown.into()),
            }
        }

        async fn may(&self, caller: &Caller, _: Action, _: Option<&RepositoryName>) -> Result<bool, AccessError> {
            Ok(caller.name() == Some("jane"))
        }
    }

    fn control() -> AccessControl {
        AccessControl { backend: Arc::new(Jane), keys: KeyRing::random().unwrap(), asks_who: true, shared: true }
    }

    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    async fn identify(control: &AccessControl, field: &str) -> Result<Known, AccessError> {
        control.identify([field.as_bytes()], Peer::default(), now()).await
    }

    fn basic(user: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:x")))
    }

    async fn token(control: &AccessControl, user: &str, scope: &str) -> String {
        let known = identify(control, &basic(user)).await.unwrap();
        let upstream = ForTheRegistry { authorization: "Basic up".into(), life: LIFETIME };
        let given = control.token(&known, Scopes::parse([scope]).unwrap(), Some(upstream), now()).unwrap();
        format!("Bearer {}", given.token.expose_secret())
    }

    #[tokio::test]
    async fn who_got_a_token_is_known_by_it_and_by_nothing_else_of_what_they_sent() {
        let control = control();
        let known = identify(&control, &token(&control, "jane", "repository:a:pull").await).await.unwrap();
        assert_eq!(known.caller.name(), Some("jane"));
        assert!(matches!(known.credentials, Credentials::None), "our tokens never leave us");
        assert_eq!(known.pass.unwrap().upstream.unwrap().expose_secret(), "Basic up");
        let known = identify(&control, &basic("joe")).await.unwrap();
        assert!(matches!(known.credentials, Credentials::Basic { .. }) && known.pass.is_none());
        let known = control.identify([], Peer::default(), now()).await.unwrap();
        assert!(known.caller.is_anonymous());
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
            assert_eq!(identify(&control, field).await.unwrap_err(), expected.into(), "{field}");
        }
    }

    #[tokio::test]
    async fn a_token_is_for_what_it_was_asked_for_and_a_role_is_needed_all_the_same() {
        let control = control();
        let repository = RepositoryName::parse("a").unwrap();
        let sign = async |field: &str| {
            let known = identify(&control, field).await.unwrap();
            control.may(&known, Action::CreateSignature, Some(&repository)).await
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
        let first = identify(&control, &token(&control, "jane", "repository:a:pull").await).await.unwrap();
        let end = now() + LIFETIME;
        let later = end - SignedDuration::from_secs(1);
        let more = Scopes::parse(["repository:a:pull,push repository:a:pull repository:b:pull"]).unwrap();
        let upstream = ForTheRegistry { authorization: "Basic other".into(), life: LIFETIME };
        let second = control.token(&first, more, Some(upstream), later).unwrap();
        assert_eq!(second.seconds, 1);
        let field = format!("Bearer {}", second.token.expose_secret());
        let known = control.identify([field.as_bytes()], Peer::default(), later).await.unwrap();
        let pass = known.pass.unwrap();
        assert_eq!((pass.scopes, pass.upstream.unwrap().expose_secret()), (Scopes::default(), "Basic up"));
        let over = control.identify([field.as_bytes()], Peer::default(), end).await.unwrap_err();
        assert_eq!(over, Rejection::Token(TokenError::Expired).into());
        let last = later + SignedDuration::from_millis(1);
        assert_eq!(control.token(&first, Scopes::default(), None, last).unwrap_err(), SealError::Over);
    }

    #[tokio::test]
    async fn a_token_ends_with_what_it_has_for_the_registry() {
        let control = control();
        let jane = identify(&control, &basic("jane")).await.unwrap();
        let given = |life: i64| {
            let upstream = ForTheRegistry { authorization: "Bearer up".into(), life: SignedDuration::from_secs(life) };
            control.token(&jane, Scopes::default(), Some(upstream), now()).unwrap()
        };
        assert_eq!(given(3600).seconds, LIFETIME.as_secs(), "never longer than our own");
        let short = given(20);
        assert_eq!(short.seconds, 20);
        let field = format!("Bearer {}", short.token.expose_secret());
        let at = |seconds| now() + SignedDuration::from_secs(seconds);
        assert!(control.identify([field.as_bytes()], Peer::default(), at(19)).await.is_ok());
        let over = control.identify([field.as_bytes()], Peer::default(), at(20)).await.unwrap_err();
        assert_eq!(over, Rejection::Token(TokenError::Expired).into());
    }

    #[tokio::test]
    async fn without_access_nobody_is_asked_and_everybody_may_do_everything() {
        let control = AccessControl::open(None).await.unwrap();
        assert!(!control.asks_who());
        let known = identify(&control, "Digest of the registry's").await.unwrap();
        assert!(known.caller.is_anonymous());
        assert!(control.may(&known, Action::Import, None).await.unwrap());
    }
}
