//! The token endpoint (distribution specification, "Token Authentication"; OAuth 2 as registries use it).

use actix_web::{HttpRequest, HttpResponse, http::Method, web::Payload};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::{
    auth::{
        Caller, Credentials, Rejection, RequestAuth, UpstreamAuthorization,
        scope::Scopes,
        token::{SealError, TOKEN_TTL, TokenError},
    },
    error::ApiError,
    request::read_body,
    upstream::{Registry, RequiredAuth},
};

/// The maximum size of a form, in bytes.
const MAX_FORM_BYTES: usize = 16 << 10;

/// Issues a token to a caller, also to an anonymous one.
pub(super) async fn answer(
    registry: &Registry,
    auth: &RequestAuth,
    request: &HttpRequest,
    payload: Payload,
) -> HttpResponse {
    let answer = match *request.method() {
        Method::GET => issue(registry, auth, request, request.query_string().as_bytes(), false).await,
        Method::POST => match read_body(request, payload, MAX_FORM_BYTES).await {
            Ok(form) => issue(registry, auth, request, &form, true).await,
            Err(refused) => Err(refused),
        },
        _ => Err(ApiError::method("tokens are asked for with GET or POST", "GET, POST")),
    };
    answer.unwrap_or_else(Into::into)
}

#[derive(Serialize)]
struct TokenResponse<'a> {
    token: &'a str,
    access_token: &'a str,
    expires_in: i64,
    issued_at: Timestamp,
}

async fn issue(
    registry: &Registry,
    auth: &RequestAuth,
    request: &HttpRequest,
    parameters: &[u8],
    form: bool,
) -> Result<HttpResponse, ApiError> {
    if !auth.is_enabled() {
        return Err(ApiError::no_such_path());
    }
    let mut scopes = Vec::new();
    let (mut user, mut password, mut grant) = (None, None, None);
    for (name, value) in url::form_urlencoded::parse(parameters) {
        match &*name {
            "scope" => scopes.push(value.into_owned()),
            "username" if form => user = Some(value),
            "password" if form => password = Some(SecretString::from(value.into_owned())),
            "grant_type" if form => grant = Some(value),
            // service, client_id, account and offline_token are ignored: a token is for this store alone.
            _ => {}
        }
    }
    let scopes = Scopes::parse(scopes.iter().map(String::as_str))
        .map_err(|error| ApiError::bad_request(format!("scope: {error}")))?;
    let caller = match grant.as_deref() {
        Some("password") => {
            let password = password.unwrap_or_default();
            let credentials = Credentials::of_user(user.as_deref().unwrap_or_default(), password.expose_secret())
                .ok_or_else(|| ApiError::bad_request("no user name or password looks like this"))?;
            auth.authenticate_with(registry, request, credentials).await?
        }
        Some(_) => return Err(ApiError::bad_request("grant_type must be password; refresh tokens are not given out")),
        // It would get an anonymous token.
        None if user.is_some() || password.is_some() => {
            return Err(ApiError::bad_request("a user name and password are sent with grant_type=password"));
        }
        None => auth.authenticate(registry, request).await?,
    };
    let upstream = upstream(registry, (auth, request), &caller, &scopes).await?;
    let now = Timestamp::now();
    let given = auth.access().issue_token(&caller.identity, scopes, upstream, now).map_err(|error| match error {
        SealError::Over => auth.access_refused(request, &Rejection::Token(TokenError::Expired).into()),
        error => ApiError::bad_request(error.to_string()),
    })?;
    let token = given.token.expose_secret();
    let given = TokenResponse { token, access_token: token, expires_in: given.seconds, issued_at: now };
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(given))
}

/// Returns the registry's `Authorization` for the token.
async fn upstream(
    registry: &Registry,
    (auth, request): (&RequestAuth, &HttpRequest),
    caller: &Caller,
    scopes: &Scopes,
) -> Result<Option<UpstreamAuthorization>, ApiError> {
    // A caller with a token of this store gets what that token has.
    if caller.identity.claims.is_some() {
        return Ok(None);
    }
    // Without the registry, the store alone decides: an anonymous token would confirm a wrong password without a line
    // in the log.
    let Some(wanted) = scopes.of_the_registry() else {
        return auth.refuse_wrong_password(request, caller).map(|()| None);
    };
    // An open registry gets no credentials. If a registry asks for passwords, the client sends them with each request:
    // a token would carry them to other servers that see it.
    let RequiredAuth::Bearer { realm, service } = registry.required_auth().await? else {
        return auth.refuse_wrong_password(request, caller).map(|()| None);
    };
    let credentials = auth.upstream_credentials(&caller.identity);
    let credentials =
        credentials.map(|value| reqwest::header::HeaderValue::from_str(value.expose_secret())).transpose();
    let credentials = credentials.map_err(|_| ApiError::bad_request("the field Authorization can't be passed on"))?;
    let (token, life) = match registry.token((&realm, service.as_deref()), &wanted, credentials).await {
        Ok(given) => given,
        Err(refused) => {
            // Valid for neither.
            if refused.status() == 401 {
                auth.refuse_wrong_password(request, caller)?;
            }
            return Err(refused);
        }
    };
    let authorization = token.to_str().map_err(|_| ApiError::bad_gateway())?.into();
    Ok(Some(UpstreamAuthorization { authorization, life: SignedDuration::try_from(life).unwrap_or(TOKEN_TTL) }))
}
