//! Passes requests through to the registry: streamed both ways, in bounded memory.

use std::{
    cell::Cell,
    io,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    body::{self, BodyStream, SizedStream},
    error::PayloadError,
    http::{
        Method, StatusCode,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    rt,
    web::{Bytes, Payload},
};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{
    auth::{Caller, RequestAuth, scope::Scope},
    error::ApiError,
    headers::{External, HopByHop, Rewrite, is_about_the_way},
    stall_guard::{STALL_TIMEOUT, Transfer},
    upstream::{Registry, RequiredAuth, failure},
};

/// The header that announces the signature extension to clients, containers/image among them.
const ANNOUNCEMENT: &str = "x-registry-supports-signatures";

/// The methods that pass through to the registry.
const PASSED: &str = "GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE";
/// The time limit for the registry's answer to a change, once it has the whole request: assembling a large upload on an
/// object store takes minutes.
const CHANGE_TIMEOUT: Duration = Duration::from_mins(15);
/// The maximum number of chunks of a body between the two connections. A chunk has some dozen KiB at most, so this
/// bounds an upload's memory.
const CHUNKS: usize = 4;

/// Passes a request to the registry, and its answer back. `ping`: the request is for `/v2/` itself.
pub(super) async fn pass(
    registry: &Registry,
    (auth, caller): (&RequestAuth, &Caller),
    request: &HttpRequest,
    payload: Payload,
    ping: bool,
) -> HttpResponse {
    let method = request.method();
    let read_only = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if !read_only && !matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE) {
        return ApiError::method("this method is not passed to the registry", PASSED).into();
    }
    if wants_another_protocol(request.headers()) {
        return ApiError::bad_request("WebSocket is not passed to the registry").into();
    }
    let path_and_query = request.uri().path_and_query().map_or("/", |whole| whole.as_str());
    let Some(url) = registry.url_of(path_and_query) else {
        return ApiError::bad_request("the path has characters in it that must be percent-encoded").into();
    };
    let Ok(upstream_method) = reqwest::Method::from_bytes(method.as_str().as_bytes()) else {
        return ApiError::method("this method is not passed to the registry", PASSED).into();
    };
    // A client without credentials gets a challenge here. If the registry asks for a password itself, it sends the
    // challenge.
    if ping
        && auth.is_enabled()
        && caller.has_no_credentials()
        && let Ok(RequiredAuth::Nothing | RequiredAuth::Bearer { .. }) = registry.required_auth().await
    {
        let mut response = caller.ask_for_credentials().response();
        response.headers_mut().insert(HeaderName::from_static(ANNOUNCEMENT), HeaderValue::from_static("1"));
        return response;
    }
    let asked_as = match auth.upstream_authorization(registry, caller).await {
        Ok(authorization) if auth.is_enabled() => As::Caller(authorization),
        Ok(_) => As::Itself,
        Err(refused) => return refused.into(),
    };
    let external = &caller.external;
    let way = auth.is_of_trusted_proxy(request);
    let mut outgoing =
        registry.client().request(upstream_method, url.clone()).headers(to_registry(request, external, &asked_as, way));
    let upload = Rc::new(Upload::new(has_body(request.headers())));
    if has_body(request.headers()) {
        let body = stream::poll_fn(pump_up(payload, &upload));
        outgoing = outgoing.body(reqwest::Body::wrap_stream(body));
    }
    let change = if read_only { STALL_TIMEOUT } else { CHANGE_TIMEOUT };
    let answer = match until_silent(outgoing.send(), &upload, change).await {
        Some(Ok(answer)) => answer,
        // The registry's connection ended because the client's did.
        _ if upload.at.get() == At::Lost => {
            tracing::debug!(%method, "a client stopped sending, or left");
            return ApiError::slow_client().into();
        }
        Some(Err(error)) => {
            // The URL contains the client's query: the state of an upload, or a token.
            let error = error.without_url();
            tracing::warn!(error = &error as &dyn std::error::Error, %method, "the registry can't be asked");
            return failure(&error).into();
        }
        None => return ApiError::timed_out().into(),
    };
    let rewrite = Rewrite { requested: &url, external };
    let scope = scope_of(request.uri().path(), read_only);
    let challenges = |given| auth.replace_challenges(caller, given, scope.as_ref());
    from_registry(answer, method == Method::HEAD, ping, &rewrite, challenges)
}

/// The identity with which the registry is asked.
enum As {
    /// The credentials of the request.
    Itself,
    /// This `Authorization`, or none, in place of the one for the gateway.
    Caller(Option<HeaderValue>),
}

/// Returns the scope that a token needs for this path; `None` if the path is about no repository.
fn scope_of(path: &str, read_only: bool) -> Option<Scope> {
    let rest = path.strip_prefix("/v2/")?;
    let (repository, _) =
        ["/manifests/", "/blobs/", "/tags/", "/referrers/"].iter().find_map(|part| rest.rsplit_once(part))?;
    let actions = if read_only { "pull" } else { "pull,push" };
    Scope::parse(&format!("repository:{repository}:{actions}")).ok()
}

/// Returns whether a client requires WebSocket. Other upgrades are offers that may be ignored.
fn wants_another_protocol(headers: &HeaderMap) -> bool {
    headers.get_all(header::UPGRADE).any(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"websocket"))
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
}

/// Returns the header fields for the registry. If `way` is false, the fields in which proxies describe the request are
/// removed, because the registry trusts this gateway.
fn to_registry(request: &HttpRequest, external: &External, asked_as: &As, way: bool) -> reqwest::header::HeaderMap {
    let headers = request.headers();
    let hops = HopByHop::new(headers.get_all(header::CONNECTION).map(HeaderValue::as_bytes));
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let mut outgoing = reqwest::header::HeaderMap::with_capacity(headers.len() + 4);
    for (name, value) in headers {
        let name = name.as_str();
        let ours = match name {
            // The gateway answers 100-continue itself, and sets the host.
            "host" | "expect" | "x-forwarded-host" | "x-forwarded-proto" | "x-forwarded-for" => true,
            "content-length" => chunked,
            // Credentials for the gateway stay here.
            "authorization" => matches!(asked_as, As::Caller(_)),
            name => hops.contains(name) || (!way && is_about_the_way(name)),
        };
        if !ours {
            append(&mut outgoing, name, value.as_bytes());
        }
    }
    if let As::Caller(Some(authorization)) = asked_as {
        append(&mut outgoing, "authorization", authorization.as_bytes());
    }
    append(&mut outgoing, "x-forwarded-proto", external.scheme.as_bytes());
    if let Some(host) = &external.host {
        append(&mut outgoing, "x-forwarded-host", host.as_bytes());
    }
    let told = headers.get_all("x-forwarded-for").filter(|_| way);
    let mut path: Vec<Vec<u8>> = told.map(|value| value.as_bytes().to_vec()).collect();
    path.extend(request.peer_addr().map(|peer| peer.ip().to_string().into_bytes()));
    append(&mut outgoing, "x-forwarded-for", &path.join(b", ".as_slice()));
    outgoing
}

fn append(headers: &mut reqwest::header::HeaderMap, name: &str, value: &[u8]) {
    // A parser with the same rules has accepted both.
    if let (Ok(name), Ok(value)) = (name.parse::<reqwest::header::HeaderName>(), value.try_into()) {
        headers.append::<reqwest::header::HeaderName>(name, value);
    }
}

/// The progress of a request's body.
struct Upload {
    at: Cell<At>,
    since: Cell<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Waiting for the client to send more.
    Client,
    /// Waiting for the registry to accept more.
    Registry,
    /// The registry has the whole body (or there is none).
    End,
    /// The client stopped sending, or left.
    Lost,
}

impl Upload {
    fn new(body: bool) -> Self {
        Self { at: Cell::new(if body { At::Client } else { At::End }), since: Cell::new(Instant::now()) }
    }

    fn is_at(&self, at: At) {
        self.at.set(at);
        self.since.set(Instant::now());
    }

    /// Returns when to give the registry up. `change` is the time limit once the registry has the whole request.
    fn ends(&self, change: Duration) -> Instant {
        let silence = match self.at.get() {
            At::Registry => STALL_TIMEOUT,
            At::End => change,
            // `pump_up` has the time limit here, and ends the registry's connection.
            At::Client | At::Lost => 2 * STALL_TIMEOUT,
        };
        self.since.get() + silence
    }
}

/// Forwards a request's body from the client's connection (tied to this thread) to the registry's.
fn pump_up(
    mut payload: impl Stream<Item = Result<Bytes, PayloadError>> + Unpin + 'static,
    upload: &Rc<Upload>,
) -> impl FnMut(&mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> + Send + 'static {
    let (sender, mut receiver) = mpsc::channel(CHUNKS);
    let upload = Rc::clone(upload);
    rt::spawn(async move {
        loop {
            upload.is_at(At::Client);
            let chunk = tokio::select! {
                chunk = timeout(STALL_TIMEOUT, payload.next()) => chunk,
                // The registry has answered already, or its connection is lost.
                () = sender.closed() => return,
            };
            let chunk = match chunk {
                Ok(Some(Ok(chunk))) => Ok(chunk),
                Ok(None) => return upload.is_at(At::End),
                Ok(Some(Err(error))) => Err(io::Error::other(error.to_string())),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the request's body stopped coming")),
            };
            let last = chunk.is_err();
            upload.is_at(if last { At::Lost } else { At::Registry });
            // An error ends the connection to the registry, so that an incomplete body does not look complete.
            if sender.send(chunk).await.is_err() || last {
                return;
            }
        }
    });
    move |context| receiver.poll_recv(context)
}

/// Waits for the answer. Returns `None` if the registry stalls: it accepts no more of the body, or has all of it and
/// does not answer.
async fn until_silent<T>(answer: impl Future<Output = T>, upload: &Upload, change: Duration) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    loop {
        // The body may reach a state with an earlier deadline.
        let look = upload.ends(change).min(Instant::now() + STALL_TIMEOUT / 4);
        tokio::select! {
            answer = &mut answer => return Some(answer),
            () = sleep_until(look) => {
                if Instant::now() >= upload.ends(change) {
                    return None;
                }
            }
        }
    }
}

/// Makes the client's answer from the registry's.
fn from_registry(
    answer: reqwest::Response,
    head: bool,
    ping: bool,
    rewrite: &Rewrite<'_>,
    challenges: impl FnOnce(Vec<HeaderValue>) -> Vec<HeaderValue>,
) -> HttpResponse {
    let Ok(status) = StatusCode::from_u16(answer.status().as_u16()) else { return ApiError::bad_gateway().into() };
    let mut response = HttpResponseBuilder::new(status);
    let hops = HopByHop::new(answer.headers().get_all("connection").iter().map(reqwest::header::HeaderValue::as_bytes));
    let length = answer.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let given = answer.headers().get_all("www-authenticate").iter();
    let given = given.filter_map(|value| HeaderValue::from_bytes(value.as_bytes()).ok()).collect();
    for challenge in challenges(given) {
        response.append_header((header::WWW_AUTHENTICATE, challenge));
    }
    for (name, value) in answer.headers() {
        let name = name.as_str();
        // The body below sets the length.
        let ours = matches!(name, ANNOUNCEMENT | "www-authenticate") || (name == "content-length" && !bodiless);
        if ours || hops.contains(name) {
            continue;
        }
        let rewritten = match (name, value.to_str()) {
            ("location", Ok(value)) => rewrite.location(value),
            ("link", Ok(value)) => rewrite.link(value),
            _ => None,
        };
        let value = rewritten.as_deref().map_or(value.as_bytes(), str::as_bytes);
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value)) {
            response.append_header((name, value));
        }
    }
    if ping && matches!(status, StatusCode::OK | StatusCode::UNAUTHORIZED) {
        response.insert_header((ANNOUNCEMENT, "1"));
    }
    match (head || bodiless, length) {
        (true, Some(length)) if !bodiless => {
            response.body(SizedStream::new(length, stream::empty::<Result<Bytes, io::Error>>()))
        }
        (true, _) => response.body(body::None::new()),
        (false, Some(length)) => response.no_chunking(length).body(SizedStream::new(length, pump_down(answer))),
        (false, None) => response.body(BodyStream::new(pump_down(answer))),
    }
}

/// Forwards an answer's body to the client's connection. If the registry stalls or breaks off, the client's connection
/// ends irregularly.
fn pump_down(answer: reqwest::Response) -> impl Stream<Item = io::Result<Bytes>> + 'static {
    let body = answer.bytes_stream().map_err(|error| {
        let error = error.without_url();
        tracing::warn!(error = &error as &dyn std::error::Error, "the registry broke off an answer");
        io::Error::other("the registry broke off")
    });
    Transfer::new(body, "the registry stopped sending")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::stall_guard::testing::{endless, on_a_clock_of_its_own};

    #[test]
    fn a_registry_that_stops_taking_an_upload_has_the_time_of_a_stall_not_of_a_change() {
        on_a_clock_of_its_own(async {
            let started = Instant::now();
            let upload = Rc::new(Upload::new(true));
            // No client reads it.
            let _body = pump_up(endless().map(|chunk| Ok(chunk.unwrap())), &upload);
            assert!(until_silent(std::future::pending::<()>(), &upload, CHANGE_TIMEOUT).await.is_none());
            assert!(started.elapsed() < 2 * STALL_TIMEOUT && upload.at.get() == At::Registry);
        });
    }

    #[test]
    fn a_registry_that_has_all_of_an_upload_has_its_time() {
        on_a_clock_of_its_own(async {
            let upload = Rc::new(Upload::new(true));
            let mut body = pump_up(stream::iter([Ok(Bytes::from_static(b"all"))]), &upload);
            let answer = async {
                while std::future::poll_fn(&mut body).await.is_some() {}
                tokio::time::sleep(CHANGE_TIMEOUT / 2).await;
                "assembled"
            };
            assert_eq!(until_silent(answer, &upload, CHANGE_TIMEOUT).await, Some("assembled"));
        });
    }

    #[test]
    fn a_client_that_stalls_or_leaves_is_told_apart_from_a_silent_registry() {
        for rest in [None, Some(Err(PayloadError::Incomplete(None)))] {
            on_a_clock_of_its_own(async {
                let upload = Rc::new(Upload::new(true));
                let first = stream::iter([Ok(Bytes::from_static(b"first"))]);
                let rest = stream::iter(rest).chain(stream::pending());
                let mut body = pump_up(first.chain(rest), &upload);
                let answer = async {
                    while !matches!(std::future::poll_fn(&mut body).await, Some(Err(_)) | None) {}
                    "the connection ended"
                };
                assert_eq!(until_silent(answer, &upload, CHANGE_TIMEOUT).await, Some("the connection ended"));
                assert_eq!(upload.at.get(), At::Lost);
            });
        }
    }
}
