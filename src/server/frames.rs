//! Counts the frames of an HTTP/2 client before the h2 library sees them.
//!
//! The library bounds streams, header lists and windows. This module bounds the rest: resets of streams
//! (CVE-2023-44487), and frames that cause work without a request (CVE-2019-9512, 9515, 9518). It also records since
//! when a frame or a header block (CVE-2024-27316) has been incomplete.

use tokio::time::Instant;

/// The length of the client's connection preface, in bytes.
const PREFACE: usize = 24;
/// The length of a frame's header, in bytes.
const HEADER: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The maximum number of CONTINUATION frames in one header block. The largest header list fits into one.
const MAX_CONTINUATIONS: u32 = 16;
/// The budget of stream resets: at once, and again each second. An API server resets a stream when a request's time is
/// over: rarely, but for all its streams at once.
const RESETS: Budget = Budget::of(500, 100);
/// The budget of other frames: at once, and again each second. The frames of a request do not count.
const OTHERS: Budget = Budget::of(10_000, 2_000);
/// The cost of a PING, SETTINGS, PRIORITY, empty DATA or unknown frame.
const OTHER_COST: u32 = 10;
/// The cost of a `WINDOW_UPDATE`.
const WINDOW_COST: u32 = 1;
/// The refund for a request: its answer may cause some updates of windows.
const REQUEST_GAIN: u32 = 8;

/// The reason why a client's connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flood {
    #[error("the client resets streams too often")]
    Resets,
    #[error("the client sends too many frames that are no request")]
    Others,
    #[error("the client sends a header block in too many frames")]
    Continuations,
}

/// A token bucket: an amount at once, and again each second.
#[derive(Clone, Copy, Debug)]
struct Budget {
    most: u32,
    per_second: u32,
    left: u32,
    since: Option<Instant>,
}

impl Budget {
    const fn of(most: u32, per_second: u32) -> Self {
        Self { most, per_second, left: most, since: None }
    }

    fn take(&mut self, cost: u32, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let seconds = u32::try_from(now.saturating_duration_since(since).as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            self.since = Some(now);
            self.give(self.per_second.saturating_mul(seconds));
        }
        let left = self.left.checked_sub(cost);
        self.left = left.unwrap_or(0);
        left.is_some()
    }

    fn give(&mut self, amount: u32) {
        self.left = self.left.saturating_add(amount).min(self.most);
    }
}

/// The parser of one connection's frames.
#[derive(Debug)]
pub(super) struct FrameScanner {
    preface: usize,
    header: [u8; HEADER],
    read: usize,
    /// The number of bytes missing from the frame's payload.
    payload: usize,
    kind: u8,
    continuations: u32,
    in_header_block: bool,
    incomplete_since: Option<Instant>,
    resets: Budget,
    others: Budget,
}

impl FrameScanner {
    pub(super) const fn new() -> Self {
        Self {
            preface: PREFACE,
            header: [0; HEADER],
            read: 0,
            payload: 0,
            kind: DATA,
            continuations: 0,
            in_header_block: false,
            incomplete_since: None,
            resets: RESETS,
            others: OTHERS,
        }
    }

    /// Returns since when the preface, a frame or a header block has been incomplete. DATA frames do not count: a body
    /// has its own time limit.
    pub(super) fn incomplete_since(&self) -> Option<Instant> {
        self.incomplete_since
    }

    /// Parses bytes from the client.
    ///
    /// # Errors
    /// The client exceeds a budget.
    pub(super) fn feed(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        while !bytes.is_empty() {
            if self.preface > 0 {
                let skipped = self.preface.min(bytes.len());
                self.preface -= skipped;
                bytes = &bytes[skipped..];
                self.end_part(self.preface == 0);
            } else if self.payload > 0 {
                let skipped = self.payload.min(bytes.len());
                self.payload -= skipped;
                bytes = &bytes[skipped..];
                self.end_part(self.payload == 0);
            } else {
                let taken = (HEADER - self.read).min(bytes.len());
                self.header[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
                self.read += taken;
                bytes = &bytes[taken..];
                if self.read == HEADER {
                    self.read = 0;
                    self.begin_frame(now)?;
                    self.end_part(self.payload == 0 || self.kind == DATA);
                }
            }
        }
        let in_frame = self.read > 0 || self.payload > 0 && self.kind != DATA;
        if self.preface > 0 || in_frame || self.in_header_block {
            self.incomplete_since.get_or_insert(now);
        }
        Ok(())
    }

    /// Marks a part as complete. Nothing is incomplete then, except within a header block.
    fn end_part(&mut self, complete: bool) {
        if complete && !self.in_header_block {
            self.incomplete_since = None;
        }
    }

    fn begin_frame(&mut self, now: Instant) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.payload = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.kind = kind;
        let cost = match kind {
            HEADERS => {
                self.others.give(REQUEST_GAIN);
                self.continuations = 0;
                self.in_header_block = flags & END_HEADERS == 0;
                0
            }
            CONTINUATION => {
                self.continuations += 1;
                if self.continuations > MAX_CONTINUATIONS {
                    return Err(Flood::Continuations);
                }
                self.in_header_block &= flags & END_HEADERS == 0;
                0
            }
            RST_STREAM if !self.resets.take(1, now) => return Err(Flood::Resets),
            RST_STREAM => 0,
            DATA if self.payload > 0 || flags & END_STREAM != 0 => 0,
            WINDOW_UPDATE => WINDOW_COST,
            _ => OTHER_COST,
        };
        if cost > 0 && !self.others.take(cost, now) {
            return Err(Flood::Others);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const PRIORITY: u8 = 2;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let length_bytes = u32::try_from(length).unwrap().to_be_bytes();
        let mut frame = vec![length_bytes[1], length_bytes[2], length_bytes[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER + length, 0);
        frame
    }

    fn started() -> FrameScanner {
        let mut scanner = FrameScanner::new();
        scanner.feed(&[0; PREFACE], Instant::now()).unwrap();
        scanner
    }

    /// Returns how many of these frames, sent at once, are accepted.
    fn taken(frames: &[Vec<u8>], most: usize) -> (usize, Option<Flood>) {
        let (mut scanner, now) = (started(), Instant::now());
        for count in 0..most {
            for frame in frames {
                if let Err(flood) = scanner.feed(frame, now) {
                    return (count, Some(flood));
                }
            }
        }
        (most, None)
    }

    #[test]
    fn frames_that_are_no_request_are_bounded_each_of_them() {
        for (name, frames, flood) in [
            ("rapid reset", vec![frame(HEADERS, 5, 20), frame(RST_STREAM, 0, 4)], Flood::Resets),
            ("pings", vec![frame(PING, 0, 8)], Flood::Others),
            ("settings", vec![frame(SETTINGS, 0, 0)], Flood::Others),
            ("priorities", vec![frame(PRIORITY, 0, 5)], Flood::Others),
            ("empty data", vec![frame(DATA, 0, 0)], Flood::Others),
            ("windows", vec![frame(WINDOW_UPDATE, 0, 4)], Flood::Others),
            ("no name", vec![frame(200, 0, 3)], Flood::Others),
            (
                "continuations",
                [vec![frame(HEADERS, 0, 1)], vec![frame(CONTINUATION, 0, 1); 20]].concat(),
                Flood::Continuations,
            ),
        ] {
            let (count, met) = taken(&frames, 20_000);
            assert_eq!(met, Some(flood), "{name}");
            assert!(count <= 10_000, "{name}: {count}");
        }
    }

    #[test]
    fn the_frames_of_requests_are_not_bounded() {
        let request =
            vec![frame(HEADERS, 4, 60), frame(DATA, 1, 4000), frame(WINDOW_UPDATE, 0, 4), frame(WINDOW_UPDATE, 0, 4)];
        assert_eq!(taken(&request, 100_000), (100_000, None));
        let split =
            vec![frame(HEADERS, 0, 60), frame(CONTINUATION, 0, 6), frame(CONTINUATION, 4, 6), frame(DATA, 1, 0)];
        assert_eq!(taken(&split, 100_000), (100_000, None));
    }

    #[test]
    fn a_client_that_resets_and_pings_as_an_api_server_does_goes_on_for_ever() {
        let (mut scanner, mut now) = (started(), Instant::now());
        for _ in 0..1_000 {
            for _ in 0..250 {
                scanner
                    .feed(&[frame(HEADERS, 5, 9), frame(RST_STREAM, 0, 4), frame(PING, 0, 8)].concat(), now)
                    .unwrap();
            }
            now += Duration::from_secs(5);
        }
    }

    #[test]
    fn what_is_incomplete_is_so_since_it_began() {
        let start = Instant::now();
        let later = start + Duration::from_secs(5);
        for (name, begun, rest) in [
            ("preface", vec![0; 3], vec![0; PREFACE - 3]),
            ("one byte", [vec![0; PREFACE], vec![0]].concat(), frame(PING, 0, 0)[1..].to_vec()),
            ("a frame", [vec![0; PREFACE], frame(PING, 0, 8)[..12].to_vec()].concat(), vec![0; 5]),
            ("a block", [vec![0; PREFACE], frame(HEADERS, 0, 8)].concat(), frame(CONTINUATION, 4, 2)),
        ] {
            let mut scanner = FrameScanner::new();
            scanner.feed(&begun, start).unwrap();
            assert_eq!(scanner.incomplete_since(), Some(start), "{name}");
            for byte in &rest[..rest.len() - 1] {
                scanner.feed(&[*byte], later).unwrap();
                assert_eq!(scanner.incomplete_since(), Some(start), "{name}");
            }
            scanner.feed(&rest[rest.len() - 1..], later).unwrap();
            assert_eq!(scanner.incomplete_since(), None, "{name}");
        }
        let mut body = started();
        body.feed(&frame(DATA, 0, 100)[..50], start).unwrap();
        assert_eq!(body.incomplete_since(), None, "a body has a time of its own");
    }

    proptest! {
        /// However the bytes are cut into pieces, the same is seen.
        #[test]
        fn pieces_change_nothing(
            frames in prop::collection::vec((0u8..12, any::<u8>(), 0usize..40), 0..60),
            pieces in prop::collection::vec(1usize..30, 1..200),
        ) {
            let mut bytes = vec![0; PREFACE];
            bytes.extend(frames.into_iter().flat_map(|(kind, flags, length)| frame(kind, flags, length)));
            let now = Instant::now();
            let mut whole = FrameScanner::new();
            let expected = whole.feed(&bytes, now);
            let mut cut = FrameScanner::new();
            let mut rest = bytes.as_slice();
            let mut outcome = Ok(());
            for piece in pieces.into_iter().cycle() {
                if rest.is_empty() || outcome.is_err() {
                    break;
                }
                let (first, others) = rest.split_at(piece.min(rest.len()));
                outcome = cut.feed(first, now);
                rest = others;
            }
            prop_assert_eq!(outcome, expected);
            if expected.is_ok() {
                prop_assert_eq!(cut.incomplete_since(), whole.incomplete_since());
            }
        }
    }
}
