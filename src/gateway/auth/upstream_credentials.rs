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
