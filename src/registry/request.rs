//! What is asked of a server, and its answer.

use reqwest::{Method, header::HeaderValue};
use url::Url;

use super::{access::Access, answer::Answer, content::Content};
use crate::telemetry::RequestKind;

/// Which resource of a server a request is for, and how large its answer may be.
pub(crate) struct RequestSpec<'a> {
    /// Below the server's base.
    pub(crate) path: &'a str,
    pub(crate) accept: Option<&'static str>,
    pub(crate) kind: RequestKind,
    /// Bytes that a good answer may have.
    pub(crate) limit: usize,
}

/// A request to a server.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Where, if not at [`RequestSpec::path`].
    pub(crate) place: Option<RequestLocation>,
    pub(crate) content: Option<Content>,
    /// Which part of a whole the content is: `first-last`.
    pub(crate) content_range: Option<HeaderValue>,
    /// The version that the server must still have for the request to take effect.
    pub(crate) if_match: Option<HeaderValue>,
    /// The access that a token must permit.
    pub(crate) access: Access,
    /// Whether it may be sent again as it is, where nothing says what became of the first time.
    pub(crate) repeat: bool,
}

/// Where a server says in `Location` that something goes on: there, or at another host. Credentials stay with the server.
#[derive(Clone)]
pub(crate) struct RequestLocation {
    pub(crate) url: Url,
    /// Whether another host led there: then it gets no credentials, be it at the server itself.
    pub(crate) elsewhere: bool,
}

impl RequestLocation {
    /// One that no other host led to.
    pub(crate) fn own(url: Url) -> Self {
        Self { url, elsewhere: false }
    }
}

impl Request {
    pub(super) const GET: Self = Self::new(Method::GET, Access::Pull);

    /// One without content.
    pub(crate) const fn new(method: Method, access: Access) -> Self {
        Self { method, place: None, content: None, content_range: None, if_match: None, access, repeat: true }
    }
}

/// An answer. Of [`Client::fetch`] its status is 200 or 404; anything else is an error.
pub(crate) struct Fetched {
    pub(crate) url: Url,
    pub(crate) answer: Answer,
}

/// A path below a base. Paths are made of checked names, tags and digests: nothing in them needs escaping.
pub(crate) fn join(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path()));
    url
}
