//! What is the registry's goes through to the registry: streamed both ways, in bounded memory.

use std::{cell::Cell, io, rc::Rc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    body::{self, BodyStream, SizedStream},
    http::{
        Method, StatusCode,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    rt,
    web::{Bytes, Payload},
};
use futures_util::{Stream, StreamExt, stream};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{
    answer::Refused,
    headers::{External, HopByHop, Rewrite},
    upstream::{Registry, failure},
};

/// Tells clients (containers/image among them) that signatures are found here.
const ANNOUNCEMENT: &str = "x-registry-supports-signatures";

/// How long a transfer may stand still. There is no limit on one that moves.
const STANDSTILL: Duration = Duration::from_mins(1);
/// How long a registry may be silent over a request that changes something, once it has all of it: assembling a large
/// upload on an object store takes minutes.
const SLOWEST_CHANGE: Duration = Duration::from_mins(15);
/// Chunks on the way between two connections. With at most some hundred KiB each, this bounds a transfer's memory.
const CHUNKS: usize = 4;

/// Passes a request to the registry, and its answer back. `ping`: it is for `/v2/` itself.
pub(super) async fn pass(registry: &Registry, request: &HttpRequest, payload: Payload, ping: bool) -> HttpResponse {
    let method = request.method();
    let read_only = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if !read_only && !matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE) {
        return Refused::method("this method is not passed to the registry").into();
    }
    if wants_another_protocol(request.headers()) {
        return Refused::bad_request("WebSocket is not passed to the registry").into();
    }
    let path_and_query = request.uri().path_and_query().map_or("/", |whole| whole.as_str());
    let Some(url) = registry.url_of(path_and_query) else {
        return Refused::bad_request("the path has characters in it that must be percent-encoded").into();
    };
    let Ok(upstream_method) = reqwest::Method::from_bytes(method.as_str().as_bytes()) else {
        return Refused::method("this method is not passed to the registry").into();
    };
    let external = External::of(request.headers(), request.app_config().secure());
    let mut outgoing = registry.client().request(upstream_method, url.clone()).headers(to_registry(request, &external));
    let moved = Rc::new(Cell::new(Instant::now()));
    if has_body(request.headers()) {
        let body = stream::poll_fn(pump_up(payload, &moved));
        outgoing = outgoing.body(reqwest::Body::wrap_stream(body));
    }
    let silence = if read_only { STANDSTILL } else { SLOWEST_CHANGE };
    let answer = match until_silent(outgoing.send(), &moved, silence).await {
        Some(Ok(answer)) => answer,
        Some(Err(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, %method, "the registry can't be asked");
            return failure(&error).into();
        }
        None => return Refused::timed_out().into(),
    };
    let rewrite = Rewrite { requested: &url, external: &external };
    from_registry(answer, method == Method::HEAD, ping, &rewrite)
}

/// Only WebSocket: other upgrades are offers that may be ignored.
fn wants_another_protocol(headers: &HeaderMap) -> bool {
    headers.get_all(header::UPGRADE).any(|value| value.as_bytes().to_ascii_lowercase().starts_with(b"websocket"))
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
}

/// The header fields that the registry gets.
fn to_registry(request: &HttpRequest, external: &External) -> reqwest::header::HeaderMap {
    let headers = request.headers();
    let hops = HopByHop::new(headers.get_all(header::CONNECTION).map(HeaderValue::as_bytes));
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    let mut outgoing = reqwest::header::HeaderMap::with_capacity(headers.len() + 4);
    for (name, value) in headers {
        let name = name.as_str();
        let ours = match name {
            // This hop has answered 100-continue, and says itself which host it means.
            "host" | "expect" | "x-forwarded-host" | "x-forwarded-proto" | "x-forwarded-for" => true,
            "content-length" => chunked,
            name => hops.contains(name),
        };
        if !ours {
            append(&mut outgoing, name, value.as_bytes());
        }
    }
    append(&mut outgoing, "x-forwarded-proto", external.scheme.as_bytes());
    if let Some(host) = &external.host {
        append(&mut outgoing, "x-forwarded-host", host.as_bytes());
    }
    let mut path: Vec<Vec<u8>> = headers.get_all("x-forwarded-for").map(|value| value.as_bytes().to_vec()).collect();
    path.extend(request.peer_addr().map(|peer| peer.ip().to_string().into_bytes()));
    append(&mut outgoing, "x-forwarded-for", &path.join(b", ".as_slice()));
    outgoing
}

fn append(headers: &mut reqwest::header::HeaderMap, name: &str, value: &[u8]) {
    // Both were accepted by a parser of the same rules.
    if let (Ok(name), Ok(value)) = (name.parse::<reqwest::header::HeaderName>(), value.try_into()) {
        headers.append::<reqwest::header::HeaderName>(name, value);
    }
}

/// Carries a request's body from the client's connection (tied to this thread) to the registry's.
fn pump_up(
    mut payload: Payload,
    moved: &Rc<Cell<Instant>>,
) -> impl FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<io::Result<Bytes>>> + Send + 'static {
    let (sender, mut receiver) = mpsc::channel(CHUNKS);
    let moved = Rc::clone(moved);
    rt::spawn(async move {
        loop {
            let chunk = tokio::select! {
                chunk = timeout(STANDSTILL, payload.next()) => chunk,
                // The registry has answered already, or is gone.
                () = sender.closed() => return,
            };
            let chunk = match chunk {
                Ok(Some(Ok(chunk))) => Ok(chunk),
                Ok(None) => return,
                Ok(Some(Err(error))) => Err(io::Error::other(error.to_string())),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the request's body stopped coming")),
            };
            let last = chunk.is_err();
            // With an error the connection to the registry ends, so that no half of a body passes for a whole one.
            if sender.send(chunk).await.is_err() || last {
                return;
            }
            moved.set(Instant::now());
        }
    });
    move |context| receiver.poll_recv(context)
}

/// Waits for the answer as long as the body moves, and then for `silence`.
async fn until_silent<T>(answer: impl Future<Output = T>, moved: &Cell<Instant>, silence: Duration) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    loop {
        let end = moved.get() + silence;
        tokio::select! {
            answer = &mut answer => return Some(answer),
            () = sleep_until(end) => {
                if moved.get() + silence <= end {
                    return None;
                }
            }
        }
    }
}

/// The answer that the client gets.
fn from_registry(answer: reqwest::Response, head: bool, ping: bool, rewrite: &Rewrite<'_>) -> HttpResponse {
    let Ok(status) = StatusCode::from_u16(answer.status().as_u16()) else { return Refused::bad_gateway().into() };
    let mut response = HttpResponseBuilder::new(status);
    let hops = HopByHop::new(answer.headers().get_all("connection").iter().map(reqwest::header::HeaderValue::as_bytes));
    let length = answer.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    for (name, value) in answer.headers() {
        let name = name.as_str();
        // The length is the body's own business below.
        if hops.contains(name) || name == ANNOUNCEMENT || (name == "content-length" && !bodiless) {
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

/// Carries an answer's body to the client's connection. A client that stops reading does not keep the registry's
/// connection for ever; a registry that stops, or breaks off, ends the client's connection without a proper end.
fn pump_down(mut answer: reqwest::Response) -> impl Stream<Item = io::Result<Bytes>> + 'static {
    let (sender, mut receiver) = mpsc::channel(CHUNKS);
    rt::spawn(async move {
        loop {
            let chunk = tokio::select! {
                chunk = timeout(STANDSTILL, answer.chunk()) => chunk,
                // The client is gone; with the answer the registry's connection is dropped.
                () = sender.closed() => return,
            };
            let chunk = match chunk {
                Ok(Ok(Some(chunk))) => Ok(chunk),
                Ok(Ok(None)) => return,
                Ok(Err(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the registry broke off an answer");
                    Err(io::Error::other("the registry broke off"))
                }
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the registry stopped sending")),
            };
            let last = chunk.is_err();
            match timeout(STANDSTILL, sender.send(chunk)).await {
                Ok(Ok(())) if !last => {}
                Ok(_) => return,
                Err(_) => {
                    tracing::debug!("a client stopped reading");
                    // The sender must not just go: that would look like the proper end.
                    let late = Err(io::Error::new(io::ErrorKind::TimedOut, "the client stopped reading"));
                    drop(answer);
                    let _ = sender.send(late).await;
                    return;
                }
            }
        }
    });
    stream::poll_fn(move |context| receiver.poll_recv(context))
}
