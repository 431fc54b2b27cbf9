//! Error answers, with the body of the distribution specification ("Error Codes").

use std::{fmt, time::Duration};

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
};
use serde::Serialize;

/// The default `Retry-After` when the registry can't be asked, in seconds.
const RETRY_AFTER_SECONDS: &str = "5";

/// An error answer with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// The allowed methods, if the method is the reason.
    allowed: Option<&'static str>,
    more: Box<ErrorHeaders>,
}

/// Headers that few errors have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ErrorHeaders {
    /// The headers `WWW-Authenticate`.
    challenges: Vec<HeaderValue>,
    /// The header `Retry-After`, if it differs from the default.
    retry_after: Option<HeaderValue>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    errors: [ErrorEntry<'a>; 1],
}

#[derive(Serialize)]
struct ErrorEntry<'a> {
    code: &'a str,
    message: &'a str,
    detail: (),
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), allowed: None, more: Box::default() }
    }

    /// The path does not exist here.
    pub(super) fn no_such_path() -> Self {
        let message = "only /v2/, /extensions/v2/<name>/signatures/<digest> and /sealgate/v1/ are served here";
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    /// The request is malformed, or must not be passed on.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", message)
    }

    /// The path exists, but not for this method.
    pub(super) fn method(message: impl Into<String>, allowed: &'static str) -> Self {
        Self { allowed: Some(allowed), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", message) }
    }

    /// The repository's name is malformed.
    pub(super) fn name(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "NAME_INVALID", message)
    }

    /// The digest is malformed.
    pub(super) fn digest(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }

    /// The body is no valid signature.
    pub(super) fn signature(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "SIGNATURE_INVALID", message)
    }

    /// The client took too long, or left in the middle of the request.
    pub(super) fn slow_client() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "UNSUPPORTED", "the request's body stopped coming")
    }

    /// The signature, or one of its name, exists already.
    pub(super) fn exists(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "SIGNATURE_EXISTS", message)
    }

    /// A limit is exceeded.
    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message)
    }

    /// The registry has no such image.
    pub(super) fn manifest_unknown() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            "the registry has no manifest of this digest in this repository",
        )
    }

    /// The registry wants credentials, or others.
    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "the registry asks for credentials")
    }

    /// The store wants credentials.
    pub(super) fn credentials_required() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "changing what is stored takes credentials: log in, or send a token",
        )
    }

    /// The credentials are invalid.
    pub(super) fn rejected(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
    }

    /// The caller lacks the role.
    pub(super) fn role_missing(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", message)
    }

    /// The caller exceeds the rate limit.
    pub(super) fn too_fast(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message)
    }

    /// The caller's permission can't be checked now.
    pub(super) fn auth_unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
    }

    /// There is no signature of this name.
    pub(super) fn no_such_signature() -> Self {
        Self::new(StatusCode::NOT_FOUND, "SIGNATURE_UNKNOWN", "the image has no signature of this name")
    }

    /// The signature of this name has another content than the one that was checked.
    pub(super) fn another_signature() -> Self {
        let message = "the signature of this name is another one than was looked at: another client replaced it meanwhile; look again";
        Self::new(StatusCode::PRECONDITION_FAILED, "SIGNATURE_CHANGED", message)
    }

    /// The media type of the body is not supported.
    pub(super) fn media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED", message)
    }

    /// Appends to the message.
    pub(super) fn and(mut self, more: &str) -> Self {
        self.message.push_str(more);
        self
    }

    /// Sets the challenges.
    pub(super) fn with_challenges(mut self, challenges: Vec<HeaderValue>) -> Self {
        self.more.challenges = challenges;
        self
    }

    /// Sets `Retry-After`, unless it is `None`.
    pub(super) fn retry_after(mut self, retry_after: Option<HeaderValue>) -> Self {
        self.more.retry_after = retry_after;
        self
    }

    /// Sets `Retry-After` to this time.
    pub(super) fn after(self, wait: Duration) -> Self {
        self.retry_after(Some(wait.as_secs().max(1).into()))
    }

    /// The registry denies access.
    pub(super) fn denied() -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", "the registry does not let this caller see the image")
    }

    /// The registry asks for fewer requests.
    pub(super) fn too_many_requests() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "the registry asks for fewer requests")
    }

    /// The registry can't be reached.
    pub(super) fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "the registry can't be reached; try again")
    }

    /// The registry's token server issues no token.
    pub(super) fn no_token() -> Self {
        let message = "the registry's own token can't be had; the store's log says why";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
    }

    /// The registry's answer is malformed.
    pub(super) fn bad_gateway() -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "UNAVAILABLE", "the registry's answer can't be used")
    }

    /// The registry does not answer in time.
    pub(super) fn timed_out() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "UNAVAILABLE", "the registry did not answer in time")
    }

    /// The store failed. The log has the details, the answer does not.
    pub(super) fn store() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "signatures can't be stored or read at the moment")
    }

    /// Returns the status.
    pub(super) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// Returns the code.
    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// Returns the answer.
    pub(super) fn response(&self) -> HttpResponse {
        let entry = ErrorEntry { code: self.code, message: &self.message, detail: () };
        let mut response = HttpResponse::build(self.status);
        let later = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        if let Some(retry_after) = &self.more.retry_after {
            response.insert_header((header::RETRY_AFTER, retry_after.clone()));
        } else if later.contains(&self.status) {
            response.insert_header((header::RETRY_AFTER, RETRY_AFTER_SECONDS));
        }
        for challenge in &self.more.challenges {
            response.append_header((header::WWW_AUTHENTICATE, challenge.clone()));
        }
        if let Some(allowed) = self.allowed {
            response.insert_header((header::ALLOW, allowed));
        }
        response.json(ErrorBody { errors: [entry] })
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.code, self.message)
    }
}

impl From<ApiError> for HttpResponse {
    fn from(refused: ApiError) -> Self {
        refused.response()
    }
}
