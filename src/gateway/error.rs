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

/// How long clients should wait before they try again, in seconds, when the registry can't be asked.
const RETRY_AFTER_SECONDS: &str = "5";

/// An answer that says why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// The methods, where it is for the method that it is refused.
    allowed: Option<&'static str>,
    more: Box<ErrorHeaders>,
}

/// What few refusals have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ErrorHeaders {
    /// `WWW-Authenticate`.
    challenges: Vec<HeaderValue>,
    /// `Retry-After`, where it is another than usual.
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

    /// The path is not one of ours.
    pub(super) fn no_such_path() -> Self {
        let message = "only /v2/, /extensions/v2/<name>/signatures/<digest> and /sealgate/v1/ are served here";
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    /// The request can't be understood, or must not be passed on.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", message)
    }

    /// The path is there, but not for this method.
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

    /// The signature can't be one.
    pub(super) fn signature(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "SIGNATURE_INVALID", message)
    }

    /// The client took too long over its request, or left in the middle of it.
    pub(super) fn slow_client() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "UNSUPPORTED", "the request's body stopped coming")
    }

    /// There is one already.
    pub(super) fn exists(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "SIGNATURE_EXISTS", message)
    }

    /// Over a limit.
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

    /// The registry wants other credentials, or any.
    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "the registry asks for credentials")
    }

    /// The store wants to know who it is.
    pub(super) fn credentials_required() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "changing what is stored takes credentials: log in, or send a token",
        )
    }

    /// The credentials prove nothing.
    pub(super) fn rejected(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
    }

    /// The caller has not got the role.
    pub(super) fn role_missing(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", message)
    }

    /// The caller adds signatures too fast.
    pub(super) fn too_fast(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message)
    }

    /// Who may do this can't be told now.
    pub(super) fn auth_unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
    }

    /// There is no signature of this name.
    pub(super) fn no_such_signature() -> Self {
        Self::new(StatusCode::NOT_FOUND, "SIGNATURE_UNKNOWN", "the image has no signature of this name")
    }

    /// The signature of this name is another one than was looked at.
    pub(super) fn another_signature() -> Self {
        let message = "the signature of this name is another one than was looked at: another client replaced it meanwhile; look again";
        Self::new(StatusCode::PRECONDITION_FAILED, "SIGNATURE_CHANGED", message)
    }

    /// The body is not of the kind that is taken.
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

    /// Sets when the client may try again, where that is another time than usual.
    pub(super) fn retry_after(mut self, retry_after: Option<HeaderValue>) -> Self {
        self.more.retry_after = retry_after;
        self
    }

    /// Sets after what time the client may try again.
    pub(super) fn after(self, wait: Duration) -> Self {
        self.retry_after(Some(wait.as_secs().max(1).into()))
    }

    /// The registry says no.
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

    /// The registry, or where its tokens come from, gives none.
    pub(super) fn no_token() -> Self {
        let message = "the registry's own token can't be had; the store's log says why";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
    }

    /// The registry answers what it should not.
    pub(super) fn bad_gateway() -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "UNAVAILABLE", "the registry's answer can't be used")
    }

    /// The registry does not answer.
    pub(super) fn timed_out() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "UNAVAILABLE", "the registry did not answer in time")
    }

    /// The store is in trouble. What kind is in the log, not here.
    pub(super) fn store() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "signatures can't be stored or read at the moment")
    }

    /// The status.
    pub(super) fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The code.
    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// The answer.
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
