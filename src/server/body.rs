//! The bodies of requests. They report when the server waits for the client.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_http::{BoxedPayloadStream, Payload, error::PayloadError};
use actix_web::web::Bytes;
use futures_util::Stream;

use super::progress::{ClientTurn, Progress};

/// A request's body that reports when the server waits for the client to send more.
struct AwaitedBody {
    body: Payload,
    progress: Rc<Progress>,
    turn: Option<ClientTurn>,
}

/// Wraps a body, if there is one.
pub(super) fn awaited(body: Payload, progress: Rc<Progress>) -> Payload {
    if matches!(body, Payload::None) {
        return body;
    }
    let payload: BoxedPayloadStream = Box::pin(AwaitedBody { body, progress, turn: None });
    Payload::Stream { payload }
}

impl Stream for AwaitedBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_next(context);
        if polled.is_ready() {
            this.turn = None;
        } else if this.turn.is_none() {
            this.turn = Some(this.progress.await_client());
        }
        polled
    }
}
