//! A request to a server, and its answer.

use reqwest::{Method, header::HeaderValue};
use url::Url;

use super::{access::Access, answer::Answer, content::Content};
use crate::telemetry::RequestKind;

/// The resource that a request is for, and the maximum size of its answer.
pub(crate) struct RequestSpec<'a> {
    /// The path below the server's base.
    pub(crate) path: &'a str,
    pub(crate) accept: Option<&'static str>,
    pub(crate) kind: RequestKind,
    /// The maximum size of a successful answer, in bytes.
    pub(crate) limit: usize,
}

/// A request to a server.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// The URL, if it is not that of [`RequestSpec::path`].
    pub(crate) place: Option<RequestLocation>,
    pub(crate) content: Option<Content>,
    /// The content's range within the whole: `first-last`.
    pub(crate) content_range: Option<HeaderValue>,
    /// The version (`If-Match`) that the server must still have for the request to take effect.
    pub(crate) if_match: Option<HeaderValue>,
    /// The access that a token must permit.
    pub(crate) access: Access,
    /// The request is idempotent: it may be sent again although the first outcome is unknown.
    pub(crate) repeat: bool,
}

/// The URL from a server's `Location`, at the server or at another host. Credentials stay with the server.
#[derive(Clone)]
pub(crate) struct RequestLocation {
    pub(crate) url: Url,
    /// Another host gave the URL. A request to it has no credentials, even if it leads back to the server.
    pub(crate) elsewhere: bool,
}

impl RequestLocation {
    /// Makes the location of a URL that no other host gave.
    pub(crate) fn own(url: Url) -> Self {
        Self { url, elsewhere: false }
    }
}

impl Request {
    pub(super) const GET: Self = Self::new(Method::GET, Access::Pull);

    /// Makes a request without content.
    pub(crate) const fn new(method: Method, access: Access) -> Self {
        Self { method, place: None, content: None, content_range: None, if_match: None, access, repeat: true }
    }
}

/// An answer and its URL. From [`Client::fetch`], the status is 200 or 404; any other is an error.
pub(crate) struct Fetched {
    pub(crate) url: Url,
    pub(crate) answer: Answer,
}

/// Appends a path to a base. Paths consist of checked names, tags and digests, which need no escaping.
pub(crate) fn join(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path()));
    url
}
