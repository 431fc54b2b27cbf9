//! Challenges: they tell clients where to get a token, and for which scope (distribution specification, "Token
//! Authentication"; RFC 6750, section 3).

use std::{fmt::Write as _, sync::Once};

use actix_web::http::header::HeaderValue;

use super::{AccessError, Rejection, scope::Scope, token::TokenError};
use crate::gateway::{error::ApiError, headers::External};

/// The path of the token endpoint.
const TOKEN_PATH: &str = "/sealgate/v1/token";

/// Makes the answer to a caller that is not authenticated or authorized.
pub(super) fn access_refused(error: &AccessError, external: &External, scope: Option<&Scope>) -> ApiError {
    match error {
        AccessError::Rejected(rejection) => {
            let code = match rejection {
                Rejection::Token(TokenError::Scope) => "insufficient_scope",
                _ => "invalid_token",
            };
            add_challenge(ApiError::rejected(rejection.to_string()), external, scope, Some(code))
        }
        AccessError::Busy { retry_after } => ApiError::too_fast(error.to_string()).after(*retry_after),
        AccessError::Unavailable { retry_after } => ApiError::auth_unavailable(error.to_string()).after(*retry_after),
    }
}

/// Adds the store's challenge to an answer, or the reason why there is none.
pub(super) fn add_challenge(
    refused: ApiError,
    external: &External,
    scope: Option<&Scope>,
    error: Option<&str>,
) -> ApiError {
    match challenge(external, scope, error) {
        Some(challenge) => refused.with_challenges(vec![challenge]),
        None => refused.and(
            "; where to log in is not said over plain HTTP: the store's operator sets gateway.externalUrl to its https address",
        ),
    }
}

/// Returns the store's challenge. Returns `None` if clients would send passwords over a network in plain text.
pub(super) fn challenge(external: &External, scope: Option<&Scope>, error: Option<&str>) -> Option<HeaderValue> {
    static WARNED: Once = Once::new();
    if !external.keeps_secrets() {
        WARNED.call_once(|| {
            tracing::warn!(
                host = external.host.as_deref(),
                "clients seem to use plain HTTP, so challenges have no realm and clients can't log in: set gateway.externalUrl \
                 to the https address, or gateway.trustedProxies to the proxy that ends TLS"
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

/// Returns whether a challenge asks for a token.
pub(super) fn is_bearer(challenge: &HeaderValue) -> bool {
    challenge.as_bytes().get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::{auth::Action, store::RepositoryName};

    #[test]
    fn a_challenge_for_a_token_is_known_in_any_case() {
        for (challenge, bearer) in
            [("Bearer realm=\"r\"", true), ("BEARER", true), ("Basic realm=\"r\"", false), ("", false)]
        {
            assert_eq!(is_bearer(&HeaderValue::from_static(challenge)), bearer, "{challenge}");
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
            let refused = add_challenge(ApiError::credentials_required(), &external("http"), None, None).to_string();
            assert!(refused.starts_with("401 ") && refused.contains("gateway.externalUrl"), "{refused}");
        }
        for host in ["localhost", "LOCALHOST:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"] {
            let external = External { scheme: "http", host: Some(host.to_owned()) };
            assert!(challenge(&external, None, None).is_some(), "{host}");
        }
    }
}
