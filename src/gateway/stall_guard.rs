//! The bodies of answers to clients, with a stall timeout.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use actix_web::{HttpResponse, HttpResponseBuilder, body::SizedStream, rt, web::Bytes};
use futures_util::{Stream, StreamExt, stream};
use tokio::time::{Instant, sleep_until};

/// The stall timeout of a transfer. A transfer that reads from its source as it goes has no other time limit.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_mins(1);
/// The least bytes a second of a client that takes a long body out of memory, once [`STALL_TIMEOUT`] is over.
const MIN_BYTES_PER_SECOND: u64 = 16 << 10;
/// The maximum number of bytes of a body that a client's connection gets at once. The connection copies them, and keeps
/// a buffer of up to this size instead of a new one each time.
pub(super) const MAX_PIECE_BYTES: usize = 128 << 10;

/// Makes an answer with a body in memory, which may be shared with other answers: a long one is not copied. `held` is dropped
/// when the client has taken it.
pub(super) fn answer_with(answer: &mut HttpResponseBuilder, body: Bytes, held: impl Sized + 'static) -> HttpResponse {
    if body.len() <= MAX_PIECE_BYTES {
        return answer.body(body);
    }
    let length = body.len() as u64;
    // Transfer drops its source when all of it is sent.
    let body = stream::iter([Ok(body)]).inspect(move |_| {
        let _ = &held;
    });
    answer.body(SizedStream::new(length, Transfer::new(body, "the store stopped sending").within(time_for(length))))
}

/// Returns the time that a client has for a body in memory.
fn time_for(length: u64) -> Duration {
    STALL_TIMEOUT + Duration::from_secs(length / MIN_BYTES_PER_SECOND)
}

/// A body that is sent to a client. It reads nothing ahead: if the client stops reading, the source is not read.
///
/// A client that stops reading holds neither the source (a registry's connection, for example) nor the bytes in
/// transfer for long. (The system ends the client's own connection, see `server`.)
pub(super) struct Transfer<S> {
    state: Rc<RefCell<TransferState<S>>>,
    watch: rt::task::JoinHandle<()>,
}

struct TransferState<S> {
    /// The source; `None` once it has ended.
    source: Option<S>,
    /// The message if the source stalls.
    source_stopped: &'static str,
    /// The rest of the last piece.
    rest: Bytes,
    waits_for: WaitsFor,
    since: Instant,
    waker: Option<Waker>,
    /// The message, if the transfer stalled.
    stopped: Option<&'static str>,
    /// The time by which the client must have taken all of it.
    deadline: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    Source,
    Client,
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin + 'static> Transfer<S> {
    /// Makes a transfer. `source_stopped` is the message if the source stalls.
    pub(super) fn new(source: S, source_stopped: &'static str) -> Self {
        let state = Rc::new(RefCell::new(TransferState {
            source: Some(source),
            source_stopped,
            rest: Bytes::new(),
            waits_for: WaitsFor::Client,
            since: Instant::now(),
            waker: None,
            stopped: None,
            deadline: None,
        }));
        // A weak reference: the client's connection owns the transfer.
        let watched = Rc::downgrade(&state);
        let watch = rt::spawn(async move {
            while let Some(state) = watched.upgrade() {
                let end = state.borrow().end();
                if Instant::now() >= end {
                    return state.borrow_mut().stop();
                }
                drop(state);
                sleep_until(end).await;
            }
        });
        Self { state, watch }
    }

    /// Limits the time of the whole transfer.
    fn within(self, time: Duration) -> Self {
        self.state.borrow_mut().deadline = Some(Instant::now() + time);
        self
    }
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> TransferState<S> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(what) = self.stopped.take() {
            // A regular end would make the client take the body for complete.
            return Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::TimedOut, what))));
        }
        if self.rest.is_empty() {
            let Some(source) = &mut self.source else { return Poll::Ready(None) };
            match source.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(piece))) => self.rest = piece,
                Poll::Ready(last) => {
                    self.source = None;
                    return Poll::Ready(last);
                }
                Poll::Pending => {
                    if self.waits_for == WaitsFor::Client {
                        (self.waits_for, self.since) = (WaitsFor::Source, Instant::now());
                    }
                    self.waker = Some(context.waker().clone());
                    return Poll::Pending;
                }
            }
        }
        (self.waits_for, self.since) = (WaitsFor::Client, Instant::now());
        let length = self.rest.len().min(MAX_PIECE_BYTES);
        Poll::Ready(Some(Ok(self.rest.split_to(length))))
    }

    /// Returns the time at which the transfer is stopped, if nothing happens.
    fn end(&self) -> Instant {
        let stalled = self.since + STALL_TIMEOUT;
        self.deadline.map_or(stalled, |deadline| deadline.min(stalled))
    }

    fn stop(&mut self) {
        let what = match self.waits_for {
            WaitsFor::Source => self.source_stopped,
            WaitsFor::Client => "the client stopped reading, or reads too slowly",
        };
        tracing::debug!("{what}");
        self.stopped = Some(what);
        // Dropping the source closes the connection of a registry's answer.
        self.source = None;
        self.rest = Bytes::new();
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl<S: Stream<Item = io::Result<Bytes>> + Unpin> Stream for Transfer<S> {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.state.borrow_mut().poll(context)
    }
}

impl<S> Drop for Transfer<S> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

#[cfg(test)]
pub(super) mod testing {
    use tokio::task::LocalSet;

    use super::*;

    /// Runs work on a paused clock, which jumps to the next event.
    pub(in crate::gateway) fn on_a_clock_of_its_own<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, work)
    }

    pub(in crate::gateway) fn endless() -> impl Stream<Item = io::Result<Bytes>> + Unpin {
        stream::repeat_with(|| Ok(Bytes::from_static(b"chunk")))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        testing::{endless, on_a_clock_of_its_own},
        *,
    };
    use actix_web::body::MessageBody as _;

    const STOPPED: &str = "the registry stopped sending";

    #[test]
    fn a_client_that_stops_reading_keeps_neither_the_registrys_connection_nor_chunks() {
        on_a_clock_of_its_own(async {
            let connection = Rc::new(());
            let held = Rc::clone(&connection);
            let mut body = Box::pin(Transfer::new(
                Box::pin(endless().inspect(move |_| {
                    let _ = &held;
                })),
                STOPPED,
            ));
            assert_eq!(body.next().await.unwrap().unwrap(), "chunk");
            tokio::time::sleep(3 * STALL_TIMEOUT).await;
            assert_eq!(Rc::strong_count(&connection), 1);
            assert_eq!(
                body.next().await.unwrap().unwrap_err().to_string(),
                "the client stopped reading, or reads too slowly"
            );
        });
    }

    #[test]
    fn a_client_that_goes_away_ends_the_registrys_connection() {
        on_a_clock_of_its_own(async {
            let connection = Rc::new(());
            let held = Rc::clone(&connection);
            drop(Transfer::new(
                Box::pin(stream::pending().inspect(move |_: &io::Result<Bytes>| {
                    let _ = &held;
                })),
                STOPPED,
            ));
            let started = Instant::now();
            while Rc::strong_count(&connection) > 1 {
                tokio::task::yield_now().await;
            }
            assert!(started.elapsed() < STALL_TIMEOUT);
        });
    }

    #[test]
    fn a_client_that_reads_slowly_gets_all_of_it() {
        on_a_clock_of_its_own(async {
            let mut body = Box::pin(Transfer::new(Box::pin(endless().take(20)), STOPPED));
            let mut count = 0;
            while let Some(chunk) = body.next().await {
                chunk.unwrap();
                count += 1;
                tokio::time::sleep(STALL_TIMEOUT / 2).await;
            }
            assert_eq!(count, 20);
        });
    }

    #[test]
    fn a_client_that_takes_a_body_in_memory_too_slowly_keeps_it_for_a_bounded_time() {
        on_a_clock_of_its_own(async {
            for (pause, takes_all) in [(Duration::from_secs(7), true), (STALL_TIMEOUT / 2, false)] {
                let whole = Bytes::from(vec![7; 32 * MAX_PIECE_BYTES]);
                let begun = Instant::now();
                let mut body = Box::pin(answer_with(&mut HttpResponse::Ok(), whole.clone(), ()).into_body());
                let mut sent = 0;
                let failed = loop {
                    match std::future::poll_fn(|context| body.as_mut().poll_next(context)).await {
                        Some(Ok(piece)) => sent += piece.len(),
                        Some(Err(error)) => break Some(error.to_string()),
                        None => break None,
                    }
                    tokio::time::sleep(pause).await;
                };
                assert_eq!((sent == whole.len(), failed.is_none()), (takes_all, takes_all), "{pause:?}: {failed:?}");
                assert!(begun.elapsed() <= time_for(whole.len() as u64) + pause);
            }
        });
    }

    #[test]
    fn a_long_body_comes_whole_and_in_pieces_that_are_not_copied() {
        on_a_clock_of_its_own(async {
            let whole = Bytes::from(vec![7; 3 * MAX_PIECE_BYTES + 1]);
            let mut body = Box::pin(Transfer::new(stream::iter([Ok(whole.clone())]), STOPPED));
            let mut sent = 0;
            while let Some(piece) = body.next().await.transpose().unwrap() {
                assert!(piece.len() <= MAX_PIECE_BYTES && piece.as_ptr() == whole[sent..].as_ptr());
                sent += piece.len();
            }
            assert_eq!(sent, whole.len());
        });
    }
}
