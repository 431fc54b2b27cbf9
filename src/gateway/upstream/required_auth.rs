//! Learns which authentication the registry requires, and fetches the registry's tokens.

use std::time::Duration;

use actix_web::http::header::HeaderValue;
use reqwest::{
    Method,
    header::{self, HeaderMap},
};
use url::Url;

use super::{
    cache::RequiredAuth,
    registry::{LOOKUP_TIMEOUT, Registry},
};
use crate::gateway::error::ApiError;
use crate::refusal::LookupError;
use crate::registry::{Challenge, OutgoingRequest, TimeBudget, exchange};
use crate::telemetry::RequestKind;

impl Registry {
    /// Returns the authentication that the registry requires, from its answer to `/v2/` without credentials.
    pub(in crate::gateway) async fn required_auth(&self) -> Result<RequiredAuth, ApiError> {
        self.cache.required_auth.try_get_with((), self.probe_required_auth()).await.map_err(|error| (*error).clone())
    }

    async fn probe_required_auth(&self) -> Result<RequiredAuth, ApiError> {
        let url = self.url_of("/v2/").ok_or_else(ApiError::bad_gateway)?;
        let ask = OutgoingRequest {
            remote: &self.peer,
            url: &url,
            method: Method::GET,
            kind: RequestKind::Ping,
            headers: HeaderMap::new(),
            authorization: None,
            content: None,
            limit: 64 << 10,
            repeat: true,
            longest_wait: Duration::ZERO,
            budget: TimeBudget::of(LOOKUP_TIMEOUT),
        };
        let answer = self.transport.ask_once(&ask).await.map_err(|failure| {
            tracing::warn!(error = %ask.failed(failure), "the registry can't be asked which authentication it requires");
            ApiError::unavailable()
        })?;
        if answer.status != 401 || answer.elsewhere {
            return if answer.status >= 500 || answer.status == 429 {
                Err(ApiError::unavailable())
            } else {
                Ok(RequiredAuth::Nothing)
            };
        }
        let fields = || answer.headers.get_all(header::WWW_AUTHENTICATE).iter();
        match Challenge::parse(fields().map(header::HeaderValue::as_bytes)) {
            Ok(Challenge::Bearer { realm, service }) => Ok(RequiredAuth::Bearer { realm, service }),
            Ok(Challenge::Basic) => {
                let basic = fields().find(|field| {
                    field.as_bytes().get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic"))
                });
                let basic = basic.and_then(|field| HeaderValue::from_bytes(field.as_bytes()).ok());
                Ok(RequiredAuth::Basic(basic.unwrap_or_else(|| HeaderValue::from_static("Basic realm=\"registry\""))))
            }
            Err(error) => {
                tracing::warn!(%error, "the registry's challenge can't be read");
                Err(ApiError::bad_gateway())
            }
        }
    }

    /// Fetches the registry's own token for these scopes, with a caller's credentials or none.
    pub(in crate::gateway) async fn token(
        &self,
        (realm, service): (&Url, Option<&str>),
        scopes: &[String],
        credentials: Option<header::HeaderValue>,
    ) -> Result<(header::HeaderValue, Duration), ApiError> {
        let server = (&self.peer, &self.url);
        let token =
            exchange(&self.transport, server, (realm, service), scopes, credentials, TimeBudget::of(LOOKUP_TIMEOUT))
                .await;
        token.map_err(|error| match error {
            LookupError::Unauthorized { .. } => ApiError::rejected("the registry does not take these credentials"),
            error => {
                tracing::warn!(%error, "the registry issues no token");
                ApiError::no_token()
            }
        })
    }
}
