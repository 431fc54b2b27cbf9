//! Decides which credentials the registry gets, and which challenges callers get if the registry refuses them.

use std::{sync::Arc, time::Duration};

use actix_web::http::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    Identity,
    authenticate::{MISMATCH_FOR_CALLERS, RequestAuth},
    caller::Caller,
    challenge::{challenge, is_bearer},
    scope::Scope,
};
use crate::gateway::{
    error::ApiError,
    upstream::{Registry, RequiredAuth},
};

/// The time until a registry that could not be asked for its authentication is asked again.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

impl RequestAuth {
    /// Returns the `Authorization` that the registry gets for a caller.
    ///
    /// The registry gets a name and password only if it asks for them. An open registry could be anyone's. One that
    /// wants tokens gets its own token, which the store exchanged the credentials for.
    pub(in crate::gateway) async fn upstream_authorization(
        &self,
        registry: &Registry,
        caller: &Caller,
    ) -> Result<Option<HeaderValue>, ApiError> {
        if !self.is_enabled() {
            return Ok(caller.forwarded_authorization.clone());
        }
        let upstream = match &caller.identity.claims {
            Some(claims) => claims.upstream.clone(),
            None => match self.upstream_credentials(&caller.identity) {
                Some(credentials) if matches!(registry.required_auth().await?, RequiredAuth::Basic(_)) => {
                    Some(credentials)
                }
                _ => None,
            },
        };
        upstream.map(|value| header_value(&value)).transpose()
    }

    /// Returns the credentials of a caller that the registry may accept, too.
    pub(in crate::gateway) fn upstream_credentials(&self, identity: &Identity) -> Option<SecretString> {
        if self.access.shares_credentials_with_registry() { identity.credentials.authorization() } else { None }
    }

    /// Logs an error, once the registry can be asked, if no caller's credentials can be valid for both servers.
    pub(in crate::gateway) async fn warn_of_mismatch(auth: Arc<Self>, registry: Registry) {
        if !auth.is_enabled() || auth.access.shares_credentials_with_registry() {
            return;
        }
        while registry.required_auth().await.is_err() {
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
        if auth.is_mismatched(&registry).await {
            tracing::error!(
                "gateway.access.kubernetes in front of a registry that asks for names and passwords (Basic): images that \
                 not everyone may pull can't be pulled or signed through the store; give the registry tokens, or the store \
                 gateway.access.htpasswd with the registry's users (docs/gateway.md#credentials)"
            );
        }
    }

    /// Makes the answer to a caller that the registry refused.
    pub(in crate::gateway) fn registry_refused(
        &self,
        caller: &Caller,
        refused: ApiError,
        challenges: Vec<HeaderValue>,
        scope: Option<&Scope>,
    ) -> ApiError {
        let cluster = self.is_enabled() && !self.access.shares_credentials_with_registry();
        let mismatched = cluster && !challenges.is_empty() && !challenges.iter().any(is_bearer);
        let refused = if mismatched { refused.and(MISMATCH_FOR_CALLERS) } else { refused };
        refused.with_challenges(self.replace_challenges(caller, challenges, scope))
    }

    /// Replaces the registry's challenges. If the registry wants its own token, the caller is asked for one of this
    /// store, which contains it. Callers that a cluster authenticates are never asked for the registry's password.
    pub(in crate::gateway) fn replace_challenges(
        &self,
        caller: &Caller,
        given: Vec<HeaderValue>,
        scope: Option<&Scope>,
    ) -> Vec<HeaderValue> {
        let ours =
            self.is_enabled() && (given.iter().any(is_bearer) || !self.access.shares_credentials_with_registry());
        if ours && !given.is_empty() {
            challenge(&caller.external, scope, caller.challenge_error()).into_iter().collect()
        } else {
            given
        }
    }
}

fn header_value(value: &SecretString) -> Result<HeaderValue, ApiError> {
    let refused = |_| ApiError::bad_request("the field Authorization has characters in it that it can't have");
    HeaderValue::from_str(value.expose_secret()).map_err(refused)
}

#[cfg(test)]
mod tests {
    use actix_web::{http::header, test::TestRequest};
    use jiff::Timestamp;

    use super::*;
    use crate::gateway::{
        auth::{access_control::tests::control_of_any_user, authorize::tests::settings, scope::Scopes},
        upstream::{Settings, UpstreamCache},
    };

    const BASIC: &str = "Basic realm=\"r\"";
    const BEARER: &str = "Bearer realm=\"https://registry.example.com/token\"";

    async fn registry(required_auth: RequiredAuth) -> Registry {
        let cache = UpstreamCache::with_required_auth(required_auth).await;
        Settings::new(&settings().registry, 0).unwrap().registry(cache).unwrap()
    }

    fn required_auths() -> [(&'static str, RequiredAuth); 3] {
        let realm = "https://registry.example.com/token".parse().unwrap();
        [
            ("", RequiredAuth::Nothing),
            (BASIC, RequiredAuth::Basic(HeaderValue::from_static(BASIC))),
            (BEARER, RequiredAuth::Bearer { realm, service: None }),
        ]
    }

    async fn auth(shared: Option<bool>) -> RequestAuth {
        let access = match shared {
            Some(shared) => control_of_any_user(shared),
            None => super::super::AccessControl::open(None).await.unwrap(),
        };
        let settings = settings();
        RequestAuth::new(Arc::new(access), &settings).at(settings.listen, false)
    }

    fn request(authorization: Option<&str>) -> actix_web::HttpRequest {
        let request = TestRequest::with_uri("/v2/").insert_header((header::HOST, "127.0.0.1:5000"));
        let request = request.peer_addr(([127, 0, 0, 1], 1).into());
        match authorization {
            Some(value) => request.insert_header((header::AUTHORIZATION, value)).to_http_request(),
            None => request.to_http_request(),
        }
    }

    #[tokio::test]
    async fn store_and_registry_are_mismatched_if_only_one_of_them_takes_passwords() {
        for shared in [None, Some(true), Some(false)] {
            for (challenge, required_auth) in required_auths() {
                let mismatched = auth(shared).await.is_mismatched(&registry(required_auth).await).await;
                assert_eq!(mismatched, shared == Some(false) && challenge == BASIC, "{shared:?} {challenge}");
            }
        }
    }

    #[tokio::test]
    async fn a_caller_that_the_registry_refuses_gets_the_challenge_it_can_answer() {
        for shared in [None, Some(true), Some(false)] {
            for (given, required_auth) in required_auths() {
                let (auth, registry) = (auth(shared).await, registry(required_auth).await);
                let caller = auth.authenticate(&registry, &request(None)).await.unwrap();
                let challenges = Some(given).filter(|given| !given.is_empty()).map(HeaderValue::from_static);
                let challenges = challenges.into_iter().collect();
                let refused = auth.registry_refused(&caller, ApiError::denied(), challenges, None);
                assert_eq!(
                    refused.to_string().contains(MISMATCH_FOR_CALLERS),
                    shared == Some(false) && given == BASIC,
                    "{shared:?} {given}: {refused}"
                );
                let answer = refused.response();
                let challenge = answer.headers().get(header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap());
                let of_store = "Bearer realm=\"http://127.0.0.1:5000/sealgate/v1/token\",service=\"127.0.0.1:5000\"";
                let expected = match (shared, given) {
                    (_, "") => None,
                    (Some(true), BEARER) | (Some(false), _) => Some(of_store),
                    _ => Some(given),
                };
                assert_eq!(challenge, expected, "{shared:?} {given}");
            }
        }
    }

    #[tokio::test]
    async fn a_challenge_names_a_token_as_invalid_only_if_the_caller_sent_one() {
        let (auth, registry) = (auth(Some(true)).await, registry(RequiredAuth::Nothing).await);
        let basic = "Basic amFuZTp4";
        let with_password = auth.authenticate(&registry, &request(Some(basic))).await.unwrap();
        let scopes = Scopes::parse(["repository:acme/web:pull"]).unwrap();
        let token = auth.access().issue_token(&with_password.identity, scopes, None, Timestamp::now()).unwrap();
        let token = format!("Bearer {}", token.token.expose_secret());
        for (authorization, error) in [(None, None), (Some(basic), None), (Some(&*token), Some("invalid_token"))] {
            let caller = auth.authenticate(&registry, &request(authorization)).await.unwrap();
            assert_eq!(caller.challenge_error(), error, "{authorization:?}");
            assert_eq!(caller.has_no_credentials(), authorization.is_none(), "{authorization:?}");
        }
    }
}
