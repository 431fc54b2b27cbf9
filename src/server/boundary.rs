//! Finds the end of a request on an HTTP/1.1 connection, to know whether a part of the next request has arrived with
//! it.

/// The length of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    /// The number of bytes.
    Known(u64),
    /// Unknown until the last chunk.
    Chunked,
}

/// The end of a chunked body without trailers.
const LAST_CHUNK: [u8; 5] = *b"0\r\n\r\n";

/// The position in the bytes of one connection.
#[derive(Debug)]
pub(super) struct Boundary {
    /// The number of bytes since the request began.
    read: u64,
    /// The length of the request's head, once it is complete.
    head: Option<u64>,
    line: Line,
    /// The last bytes.
    tail: [u8; LAST_CHUNK.len()],
    body: BodyLength,
    /// The request began exactly where the previous one ended.
    certain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Inside a line.
    Within,
    /// At the beginning of a line.
    Begun,
    /// Behind a CR at the beginning of a line.
    Ending,
}

impl Boundary {
    pub(super) const fn new() -> Self {
        Self {
            read: 0,
            head: None,
            line: Line::Within,
            tail: [0; LAST_CHUNK.len()],
            body: BodyLength::Known(0),
            certain: true,
        }
    }

    /// Records bytes from the client.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        if self.head.is_none() && self.certain {
            for (count, byte) in (1..).zip(bytes) {
                self.line = match (byte, self.line) {
                    (b'\n', Line::Begun | Line::Ending) => {
                        self.head = Some(self.read + count);
                        break;
                    }
                    (b'\n', Line::Within) => Line::Begun,
                    (b'\r', Line::Begun) => Line::Ending,
                    _ => Line::Within,
                };
            }
        }
        self.read += bytes.len() as u64;
        let kept = bytes.len().min(self.tail.len());
        self.tail.rotate_left(kept);
        let from = self.tail.len() - kept;
        self.tail[from..].copy_from_slice(&bytes[bytes.len() - kept..]);
    }

    /// Records the length of the body, once the head is complete.
    pub(super) fn begin(&mut self, body: BodyLength) {
        self.body = body;
    }

    /// Ends the request. Returns whether the client has sent exactly this request, and nothing of a next one. Returns
    /// `false` if that is unknown.
    pub(super) fn end(&mut self) -> bool {
        let exact = self.certain
            && self.head.is_some_and(|head| match self.body {
                BodyLength::Known(length) => head.checked_add(length) == Some(self.read),
                BodyLength::Chunked => self.tail == LAST_CHUNK,
            });
        *self = Self { certain: exact, ..Self::new() };
        exact
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const POST: &[u8] = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";

    fn body_of(request: &[u8]) -> BodyLength {
        match request {
            CHUNKED => BodyLength::Chunked,
            POST => BodyLength::Known(3),
            _ => BodyLength::Known(0),
        }
    }

    #[test]
    fn what_comes_with_a_request_is_seen_whatever_the_request_is() {
        for request in [GET, POST, CHUNKED, b"GET / HTTP/1.1\nHost: a\n\n"] {
            for (further, exact) in [("", true), ("G", false), ("GET / HTTP/1.1\r\n", false), ("\r\n", false)] {
                let mut boundary = Boundary::new();
                for _ in 0..2 {
                    boundary.received(request);
                    boundary.begin(body_of(request));
                    assert!(boundary.end());
                }
                boundary.received(&[request, further.as_bytes()].concat());
                boundary.begin(body_of(request));
                assert_eq!(boundary.end(), exact, "{further:?} behind {:?}", String::from_utf8_lossy(request));
                if !exact {
                    // From there on nothing is known.
                    boundary.received(request);
                    boundary.begin(body_of(request));
                    assert!(!boundary.end());
                }
            }
        }
    }

    #[test]
    fn a_request_that_is_answered_before_its_body_has_come_is_not_complete() {
        let mut boundary = Boundary::new();
        boundary.received(&POST[..POST.len() - 1]);
        boundary.begin(BodyLength::Known(3));
        assert!(!boundary.end());
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(which in 0usize..3, further in 0usize..2, pieces in prop::collection::vec(1usize..9, 1..40)) {
            let request = [GET, POST, CHUNKED][which];
            let bytes = [request, &b"G"[..further]].concat();
            let mut boundary = Boundary::new();
            let mut rest = bytes.as_slice();
            for piece in pieces.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (first, others) = rest.split_at(piece.min(rest.len()));
                boundary.received(first);
                rest = others;
            }
            boundary.begin(body_of(request));
            prop_assert_eq!(boundary.end(), further == 0);
        }
    }
}
