//! HTTP/2, by the h2 library, in front of the same handlers as HTTP/1.1.
//!
//! actix-http has an HTTP/2 of its own, but sets none of the library's bounds, and uses an older line of it.

use std::{future::poll_fn, net::SocketAddr, rc::Rc, task::Poll, time::SystemTime};

use actix_http::{
    ConnectionType, Payload, Request, Response,
    body::{BodySize, BoxBody, MessageBody as _},
    error::PayloadError,
};
use actix_web::http::{Uri, Version, header as actix_header};
use bytes::Bytes;
use futures_util::stream;
use h2::{
    Reason, RecvStream, SendStream,
    server::{Builder, Connection, SendResponse},
};
use http::header;
use tokio::{task::JoinSet, time::timeout};

use super::{
    body::awaited,
    boundary::BodyLength,
    handler::Handler,
    peer::Peer,
    progress::{InFlight, Progress},
    stream::Observed,
};
use crate::fair_quota::Lease;

/// The maximum number of requests in flight on one connection. Go's clients open another connection for more.
const MAX_STREAMS: u32 = 250;
/// The maximum size of a request's header fields, in bytes, with 32 more for each field.
const MAX_HEADER_LIST: u32 = 16 << 10;
/// The window of a stream: the bytes of one request's body that a client may send before they are read.
const STREAM_WINDOW: u32 = 64 << 10;
/// The window of a connection: the bytes of all bodies that a client may send before they are read. Together with the
/// number of connections, it bounds the memory of bodies that no handler counts yet. Handlers bound what they read.
const CONNECTION_WINDOW: u32 = 256 << 10;
/// The window in place of `CONNECTION_WINDOW` for a connection with many requests in flight, such as an API server's.
/// With a full window, all requests of a Go client wait for the next update, and each update wakes all of them.
const WIDE_CONNECTION_WINDOW: u32 = 2 << 20;
/// The number of requests in flight from which a connection gets the wide window, unless the listener has too many of
/// these.
const MANY_STREAMS: usize = 32;
/// The maximum number of bytes of an answer that wait for the client to read them.
const MAX_SEND_BUFFER: usize = 64 << 10;
/// The maximum number of reset streams whose late frames are ignored.
const MAX_RESET_STREAMS: usize = 20;
/// The maximum number of a client's stream errors, over the life of a connection, before the connection ends.
const MAX_STREAM_ERRORS: usize = 64;
/// The maximum number of bytes of a body that are passed on at once.
const MAX_PIECE_BYTES: usize = 16 << 10;

/// Serves a connection until the client closes it, or until it is closing and no request is in flight.
pub(super) async fn serve(handler: &Handler, stream: Observed, peer: SocketAddr) {
    let progress = Rc::clone(stream.progress());
    let handshake = Builder::new()
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(MAX_SEND_BUFFER)
        .max_concurrent_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(Some(MAX_STREAM_ERRORS))
        .handshake(stream);
    let mut connection: Connection<Observed, Bytes> = match handshake.await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%error, %peer, "connection broken off");
            return;
        }
    };
    // Tasks of their own, so that a panic in one does not affect the others. They end with the connection.
    let mut answers: JoinSet<()> = JoinSet::new();
    let mut closing = false;
    let mut wide_window: Option<Lease<Peer>> = None;
    let outcome = poll_fn(|context| {
        loop {
            while let Poll::Ready(Some(_)) = answers.poll_join_next(context) {}
            if progress.is_closing() && !closing {
                // GOAWAY tells the client that requests from here on are not processed.
                if progress.is_evicted() {
                    connection.abrupt_shutdown(Reason::NO_ERROR);
                } else {
                    connection.graceful_shutdown();
                }
                closing = true;
            }
            match connection.poll_accept(context) {
                Poll::Ready(Some(Ok((request, mut respond)))) => {
                    let Some(lease) = progress.open().begin_stream() else {
                        // REFUSED_STREAM tells the client that the request was not processed, and may be retried.
                        respond.send_reset(Reason::REFUSED_STREAM);
                        continue;
                    };
                    let in_flight = progress.begin(BodyLength::Known(0));
                    let handler = Rc::clone(handler);
                    answers.spawn_local(answer(handler, request, respond, (in_flight, lease), peer));
                    if wide_window.is_none() && answers.len().is_multiple_of(MANY_STREAMS) {
                        wide_window = progress.open().widen_window();
                        if wide_window.is_some() {
                            connection.set_target_window_size(WIDE_CONNECTION_WINDOW);
                        }
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    if let Err(error) = outcome {
        tracing::debug!(%error, %peer, "connection broken off");
    }
}

async fn answer(
    handler: Handler,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    (in_flight, _lease): (InFlight, Lease<Peer>),
    peer: SocketAddr,
) {
    let head_alone = request.method() == http::Method::HEAD;
    let Some(request) = translated(request, peer, in_flight.progress()) else {
        respond.send_reset(Reason::PROTOCOL_ERROR);
        return;
    };
    let response = {
        let mut answer = handler(request);
        poll_fn(|context| {
            // A client that has reset its stream wants no answer, so that the work for it ends here.
            if respond.poll_reset(context).is_ready() {
                return Poll::Ready(None);
            }
            answer.as_mut().poll(context).map(Some)
        })
        .await
    };
    let Some(response) = response else { return };
    let progress = in_flight.progress();
    if response.head().connection_type() == ConnectionType::Close {
        progress.close();
    }
    if let Err(error) = send(response, respond, head_alone, progress).await {
        tracing::debug!(error, %peer, "an answer broke off");
    }
}

/// Converts a request to actix-web's type.
fn translated(request: http::Request<RecvStream>, peer: SocketAddr, progress: &Rc<Progress>) -> Option<Request> {
    let (parts, body) = request.into_parts();
    let body = if body.is_end_stream() {
        Payload::None
    } else {
        let payload: actix_http::BoxedPayloadStream = Box::pin(received(body));
        Payload::Stream { payload }
    };
    let mut translated = Request::with_payload(awaited(body, Rc::clone(progress)));
    let head = translated.head_mut();
    head.method = actix_web::http::Method::from_bytes(parts.method.as_str().as_bytes()).ok()?;
    head.uri = match parts.uri.path_and_query() {
        Some(path) => Uri::try_from(path.as_str()).ok()?,
        None => Uri::from_static("/"),
    };
    head.version = Version::HTTP_2;
    head.peer_addr = Some(peer);
    for (name, value) in &parts.headers {
        let name = actix_header::HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        head.headers.append(name, actix_header::HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    if let Some(authority) = parts.uri.authority()
        && !head.headers.contains_key(actix_header::HOST)
    {
        head.headers.insert(actix_header::HOST, actix_header::HeaderValue::from_str(authority.as_str()).ok()?);
    }
    Some(translated)
}

/// Returns a request's body as a stream. Reading a piece opens the window for more.
fn received(body: RecvStream) -> impl futures_util::Stream<Item = Result<Bytes, PayloadError>> {
    let broken = |_: h2::Error| PayloadError::Incomplete(None);
    stream::unfold(body, move |mut body| async move {
        let piece = match body.data().await? {
            Ok(piece) => body.flow_control().release_capacity(piece.len()).map(|()| piece),
            Err(error) => Err(error),
        };
        Some((piece.map_err(broken), body))
    })
}

async fn send(
    response: Response<BoxBody>,
    mut respond: SendResponse<Bytes>,
    head_alone: bool,
    progress: &Rc<Progress>,
) -> Result<(), String> {
    let failed = |error: h2::Error| error.to_string();
    let (response, body) = response.into_parts();
    let size = body.size();
    let ends = head_alone || size.is_eof();
    let mut stream = respond.send_response(head_of(&response, size), ends).map_err(failed)?;
    if ends {
        return Ok(());
    }
    let mut body = body;
    while let Some(piece) = poll_fn(|context| std::pin::Pin::new(&mut body).poll_next(context)).await {
        match piece {
            Ok(piece) => send_piece(&mut stream, piece, progress).await?,
            Err(error) => {
                // A regular end would make the client take the body for complete.
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Err(error.to_string());
            }
        }
    }
    stream.send_data(Bytes::new(), true).map_err(failed)
}

async fn send_piece(stream: &mut SendStream<Bytes>, mut piece: Bytes, progress: &Rc<Progress>) -> Result<(), String> {
    while !piece.is_empty() {
        let part = piece.split_to(piece.len().min(MAX_PIECE_BYTES));
        // The time limit is for the whole piece: a client that reads single bytes would otherwise keep the answer in
        // flight for ever.
        if let Ok(sent) = timeout(progress.write_timeout(), send_part(stream, part, progress)).await {
            sent?;
        } else {
            stream.send_reset(Reason::CANCEL);
            return Err("the client takes too little".to_owned());
        }
    }
    Ok(())
}

async fn send_part(stream: &mut SendStream<Bytes>, mut part: Bytes, progress: &Rc<Progress>) -> Result<(), String> {
    while !part.is_empty() {
        stream.reserve_capacity(part.len());
        let mut turn = None;
        let capacity = poll_fn(|context| {
            let capacity = stream.poll_capacity(context);
            if capacity.is_pending() && turn.is_none() {
                turn = Some(progress.await_client());
            }
            capacity
        });
        let capacity = match capacity.await {
            Some(Ok(capacity)) => capacity,
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err("the client is gone".to_owned()),
        };
        let length = part.len().min(capacity);
        stream.send_data(part.split_to(length), false).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn head_of(response: &Response<()>, size: BodySize) -> http::Response<()> {
    let mut head = http::Response::new(());
    *head.status_mut() = http::StatusCode::from_u16(response.status().as_u16()).unwrap_or_default();
    let headers = head.headers_mut();
    for (name, value) in response.headers() {
        // Fields that concern an HTTP/1.1 connection are not allowed here.
        let about_the_connection =
            matches!(name.as_str(), "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection");
        if about_the_connection || (name == actix_header::CONTENT_LENGTH && size != BodySize::Stream) {
            continue;
        }
        let name = header::HeaderName::from_bytes(name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, header::HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    }
    if let BodySize::Sized(length) = size {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    let date = actix_header::HttpDate::from(SystemTime::now()).to_string();
    if let Ok(date) = header::HeaderValue::try_from(date) {
        headers.entry(header::DATE).or_insert(date);
    }
    head
}
