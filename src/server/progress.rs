//! The state of one connection, and the time limit of that state.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    boundary::{BodyLength, Boundary},
    connection_end::ConnectionEnd,
    connections::{Open, Phase},
    frames::FrameScanner,
    settings::Timeouts,
};

/// The time for a closing connection to end once it has no request in flight.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The time for which a closing HTTP/1.1 connection waits for a request that is under way. The client does not know
/// that the connection closes if the last answer had begun before, and a request on a closed connection is lost,
/// because clients do not retry a POST. It is well above a round trip.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_millis(500);

/// The parser of the client's bytes, by protocol.
enum Bytes {
    Http1(Boundary),
    Http2(FrameScanner),
}

/// The state of one connection. It is told of every byte and request, and knows when the connection's time is over.
pub(super) struct Progress {
    open: Open,
    timeouts: Timeouts,
    /// The start of the TLS handshake.
    handshake_since: Cell<Option<Instant>>,
    /// The start of the request head that is being received.
    head_since: Cell<Option<Instant>>,
    /// The number of requests whose answer is not complete.
    requests: Cell<usize>,
    /// The number of these that wait for the client to send or read something.
    awaiting_client: Cell<usize>,
    /// The time when the last of them began to wait.
    awaiting_since: Cell<Instant>,
    /// The time since which there is no request.
    idle_since: Cell<Instant>,
    /// There was a request.
    served: Cell<bool>,
    /// The time since which the client reads nothing of what is to be sent.
    write_blocked_since: Cell<Option<Instant>>,
    /// The time since which the connection is closing: it ends when its requests do.
    closing_since: Cell<Option<Instant>>,
    /// The connection is evicted, and ends at once.
    evicted: Cell<bool>,
    /// The bytes of the connection, by its protocol.
    bytes: RefCell<Bytes>,
}

impl Progress {
    pub(super) fn new(open: Open, timeouts: Timeouts, tls: bool) -> Rc<Self> {
        let now = Instant::now();
        let progress = Self {
            open,
            timeouts,
            handshake_since: Cell::new(tls.then_some(now)),
            head_since: Cell::new(None),
            requests: Cell::new(0),
            awaiting_client: Cell::new(0),
            awaiting_since: Cell::new(now),
            idle_since: Cell::new(now),
            served: Cell::new(false),
            write_blocked_since: Cell::new(None),
            closing_since: Cell::new(None),
            evicted: Cell::new(false),
            bytes: RefCell::new(Bytes::Http1(Boundary::new())),
        };
        progress.publish();
        Rc::new(progress)
    }

    pub(super) fn open(&self) -> &Open {
        &self.open
    }

    /// Publishes the phase to the listener, which compares connections.
    fn publish(&self) {
        let (phase, since) = if self.requests.get() > 0 {
            match self.client_turn_since() {
                Some(since) => (Phase::AwaitingClient, since),
                None => (Phase::InFlight, self.idle_since.get()),
            }
        } else if let Some(since) = self.handshake_since.get().or(self.head_since.get()) {
            (Phase::Incomplete, since)
        } else {
            (Phase::Idle, self.idle_since.get())
        };
        self.open.set(phase, since);
    }

    /// Returns since when all progress depends on the client; `None` if the server can work on a request.
    fn client_turn_since(&self) -> Option<Instant> {
        let all_await = self.awaiting_client.get() >= self.requests.get();
        self.write_blocked_since.get().or_else(|| all_await.then(|| self.awaiting_since.get()))
    }

    /// Records that a request waits for the client to send or read something, until the guard is dropped.
    pub(super) fn await_client(self: &Rc<Self>) -> ClientTurn {
        self.awaiting_client.set(self.awaiting_client.get() + 1);
        self.awaiting_since.set(Instant::now());
        self.publish();
        ClientTurn(Rc::clone(self))
    }

    /// Records the end of the TLS handshake, and the protocol.
    pub(super) fn handshake_complete(&self, http2: bool) {
        self.handshake_since.set(None);
        self.idle_since.set(Instant::now());
        if http2 {
            self.bytes.replace(Bytes::Http2(FrameScanner::new()));
        }
        self.publish();
    }

    /// Records bytes from the client.
    ///
    /// # Errors
    /// The client exceeds a budget of frames.
    pub(super) fn received(&self, bytes: &[u8]) -> std::io::Result<()> {
        let before = self.head_since.get();
        match &mut *self.bytes.borrow_mut() {
            Bytes::Http2(frames) => {
                if let Err(flood) = frames.feed(bytes, Instant::now()) {
                    self.open.record(ConnectionEnd::Flood);
                    return Err(std::io::Error::other(flood));
                }
                self.head_since.set(frames.incomplete_since());
            }
            Bytes::Http1(boundary) => {
                boundary.received(bytes);
                if self.requests.get() == 0 && before.is_none() {
                    self.head_since.set(Some(Instant::now()));
                }
            }
        }
        if before != self.head_since.get() {
            self.publish();
        }
        Ok(())
    }

    /// Records a complete request head. The request is in flight until the guard is dropped. `body` is its length, if
    /// HTTP/1.1 gives it.
    pub(super) fn begin(self: &Rc<Self>, body: BodyLength) -> InFlight {
        if self.requests.replace(self.requests.get() + 1) == 0 {
            self.idle_since.set(Instant::now());
        }
        self.served.set(true);
        if let Bytes::Http1(boundary) = &mut *self.bytes.borrow_mut() {
            boundary.begin(body);
            self.head_since.set(None);
        }
        self.publish();
        InFlight(Rc::clone(self))
    }

    fn end(&self) {
        self.requests.set(self.requests.get() - 1);
        if self.requests.get() == 0 {
            let now = Instant::now();
            self.idle_since.set(now);
            if let Bytes::Http1(boundary) = &mut *self.bytes.borrow_mut()
                && !boundary.end()
            {
                // A part of the next request arrived with this one, or the rest of this one is still missing.
                self.head_since.set(Some(now));
            }
        }
        self.publish();
    }

    /// Records whether a write could not be completed.
    pub(super) fn write_blocked(&self, blocked: bool) {
        match (blocked, self.write_blocked_since.get()) {
            (true, None) => self.write_blocked_since.set(Some(Instant::now())),
            (false, Some(_)) => self.write_blocked_since.set(None),
            _ => return,
        }
        self.publish();
    }

    /// Begins to close the connection: it ends as soon as its requests have.
    pub(super) fn close(&self) {
        if self.closing_since.get().is_none() {
            self.closing_since.set(Some(Instant::now()));
        }
    }

    /// Evicts the connection: it ends at once, because another one takes its place.
    pub(super) fn evict(&self) {
        self.evicted.set(true);
        self.close();
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.get()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing_since.get().is_some()
    }

    /// Returns whether the protocol can tell the client that the connection ends: HTTP/2 can (GOAWAY).
    pub(super) fn says_goodbye(&self) -> bool {
        matches!(*self.bytes.borrow(), Bytes::Http2(_))
    }

    /// Returns whether nothing would be lost if the connection ended now.
    pub(super) fn is_idle(&self) -> bool {
        let owes_nothing = self.head_since.get().is_none() && self.handshake_since.get().is_none();
        // The end of an answer may wait until the client reads the bytes before it.
        self.requests.get() == 0 && owes_nothing && self.write_blocked_since.get().is_none()
    }

    pub(super) fn write_timeout(&self) -> Duration {
        self.timeouts.write
    }

    /// Returns the deadline of the current state, and the reason to end the connection then.
    pub(super) fn deadline(&self) -> Option<(Instant, ConnectionEnd)> {
        let Timeouts { handshake, head, idle, write } = self.timeouts;
        let handshake = self.handshake_since.get().map(|since| (since + handshake, ConnectionEnd::HandshakeTimeout));
        let incomplete = self.head_since.get().map(|since| (since + head, ConnectionEnd::HeadTimeout));
        let blocked = self.write_blocked_since.get().map(|since| (since + write, ConnectionEnd::WriteTimeout));
        let idle = (self.requests.get() == 0 && handshake.is_none()).then(|| {
            let since = self.idle_since.get();
            match self.closing_since.get() {
                Some(closing) if self.is_idle() && !self.says_goodbye() => {
                    (since.max(closing) + LAST_REQUEST_TIMEOUT, ConnectionEnd::Closed)
                }
                Some(closing) => (since.max(closing) + CLOSE_TIMEOUT, ConnectionEnd::Closed),
                // The first request must begin at once.
                None if !self.served.get() => (since + head, ConnectionEnd::HeadTimeout),
                None => (since + idle, ConnectionEnd::IdleTimeout),
            }
        });
        [handshake, incomplete, blocked, idle].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

/// A request in flight.
pub(super) struct InFlight(Rc<Progress>);

impl InFlight {
    pub(super) fn progress(&self) -> &Rc<Progress> {
        &self.0
    }
}

/// A wait for the client.
pub(super) struct ClientTurn(Rc<Progress>);

impl Drop for ClientTurn {
    fn drop(&mut self) {
        self.0.awaiting_client.set(self.0.awaiting_client.get() - 1);
        self.0.publish();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.end();
    }
}
