//! HTTP/1.1, by actix-http.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_http::{
    ConnectionType, HttpService, KeepAlive, Request, Response,
    body::{BodySize, BoxBody, MessageBody},
};
use actix_service::{Service as _, ServiceFactory as _, fn_service};
use actix_web::{http::header, web::Bytes};
use futures_util::future::{FutureExt as _, LocalBoxFuture};

use super::{
    body::awaited,
    boundary::BodyLength,
    handler::Handler,
    progress::{InFlight, Progress},
    stream::Observed,
};

/// The time for a client to read an answer that came before its request was complete, and to close its side.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves HTTP/1.1 connections.
pub(super) struct Http1(Box<dyn Fn(Observed, SocketAddr) -> LocalBoxFuture<'static, ()>>);

impl Http1 {
    pub(super) async fn new(handler: &Handler, serve_half_closed: bool) -> Result<Self, ()> {
        let handler = Rc::clone(handler);
        let service = HttpService::build()
            // `super::Timeouts` replaces actix-http's time limits.
            .keep_alive(KeepAlive::Os)
            .client_request_timeout(Duration::ZERO)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .h1_allow_half_closed(serve_half_closed)
            .on_connect_ext(|stream: &Observed, data| {
                data.insert(Rc::clone(stream.progress()));
            })
            .h1(fn_service(move |request| answer(&handler, request).map(Ok::<_, Infallible>)));
        let service = service.new_service(()).await?;
        Ok(Self(Box::new(move |stream, peer| {
            service
                .call((stream, Some(peer)))
                .map(|outcome| {
                    if let Err(error) = outcome {
                        tracing::debug!(%error, "connection broken off");
                    }
                })
                .boxed_local()
        })))
    }

    pub(super) fn serve(&self, stream: Observed, peer: SocketAddr) -> LocalBoxFuture<'static, ()> {
        (self.0)(stream, peer)
    }
}

fn answer(handler: &Handler, mut request: Request) -> LocalBoxFuture<'static, Response<BoxBody>> {
    let progress = request.conn_data::<Rc<Progress>>().cloned();
    let in_flight = progress.as_ref().map(|progress| progress.begin(body_length(&request)));
    if let Some(progress) = progress {
        let body = awaited(request.take_payload(), progress);
        request = request.replace_payload(body).0;
    }
    let answer = handler(request);
    async move {
        let mut response = answer.await;
        if in_flight.as_ref().is_some_and(|in_flight| in_flight.progress().is_closing()) {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        response.map_body(|_, body| BoxBody::new(Tracked { body, _in_flight: in_flight }))
    }
    .boxed_local()
}

/// Returns the length of a request's body. The parser of the head has checked both fields.
fn body_length(request: &Request) -> BodyLength {
    if request.head().headers().contains_key(header::TRANSFER_ENCODING) {
        return BodyLength::Chunked;
    }
    let length =
        request.head().headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    BodyLength::Known(length.unwrap_or(0))
}

/// The body of an answer. The request is in flight until this is dropped.
struct Tracked {
    body: BoxBody,
    _in_flight: Option<InFlight>,
}

impl MessageBody for Tracked {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}
