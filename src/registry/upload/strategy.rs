//! The strategies of sending a blob, and their order.
//!
//! No strategy works with every registry. Some registries limit the size of chunks, some support no chunks, some no
//! `PATCH`, and proxies limit the size of a request. A refusal therefore leads to the next strategy, until none is
//! left.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
};

/// The initial size of a chunk, in bytes. A blob that is not longer is sent in one request.
pub(super) const CHUNK_BYTES: u64 = 16 << 20;
/// Smaller chunks, in bytes, for registries and proxies with limits: GitHub's accepts 4 MiB, nginx by default 1 MiB.
const SMALLER_CHUNKS: [u64; 2] = [4 << 20, 1 << 20];

/// A strategy of sending a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    /// `PATCH` requests with `Content-Range`, each with this number of bytes except for the last, then an empty `PUT`.
    Chunks(u64),
    /// One `PATCH` without `Content-Range`, then an empty `PUT`, as skopeo and docker do.
    OnePatch,
    /// One `PUT` with the whole blob.
    OnePut,
}

/// The remaining strategies for one blob, the current one first. There is always one.
#[derive(Debug)]
pub(super) struct Strategies {
    current: Strategy,
    left: VecDeque<Strategy>,
}

/// The reason why a strategy failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The registry refuses a request of this size (413, 416).
    TooLarge,
    /// The registry refuses the request for another reason.
    Refused,
    /// There was no answer, or an answer that says nothing about the strategy.
    Trouble,
}

impl Strategies {
    /// Returns the strategies for a blob of this size.
    pub(super) fn new(size: u64, learned: &LearnedLimit) -> Self {
        let smaller = SMALLER_CHUNKS.into_iter().filter(|&chunk| chunk < size);
        let mut left: VecDeque<Strategy> = if size <= CHUNK_BYTES {
            // A blob that fits into one request is first sent in one.
            [Strategy::OnePut, Strategy::OnePatch].into_iter().chain(smaller.map(Strategy::Chunks)).collect()
        } else {
            let chunks = [CHUNK_BYTES].into_iter().chain(smaller).map(Strategy::Chunks);
            chunks.chain([Strategy::OnePatch, Strategy::OnePut]).collect()
        };
        let refused = learned.0.load(Ordering::Relaxed);
        left.make_contiguous().sort_by_key(|strategy| matches!(strategy, Strategy::Chunks(chunk) if *chunk >= refused));
        Self { current: left.pop_front().unwrap_or(Strategy::OnePatch), left }
    }

    pub(super) fn current(&self) -> Strategy {
        self.current
    }

    /// Moves on to the next strategy. Returns `false` if none is left; then the current one stays.
    pub(super) fn advance(&mut self, obstacle: Obstacle, learned: &LearnedLimit) -> bool {
        if let (Strategy::Chunks(chunk), Obstacle::TooLarge | Obstacle::Refused) = (self.current, obstacle) {
            let refused = if obstacle == Obstacle::TooLarge { chunk } else { 0 };
            learned.0.fetch_min(refused, Ordering::Relaxed);
            if obstacle == Obstacle::Refused {
                // Smaller chunks are likely to be refused as well, so they come last.
                self.left.make_contiguous().sort_by_key(|strategy| matches!(strategy, Strategy::Chunks(_)));
            }
        }
        let next = self.left.pop_front();
        self.current = next.unwrap_or(self.current);
        next.is_some()
    }
}

/// The size of the smallest chunk that the registry refused, shared by all blobs of a push. 0: the registry refuses
/// chunks.
#[derive(Debug)]
pub(crate) struct LearnedLimit(AtomicU64);

impl Default for LearnedLimit {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Returns all strategies in the order in which they are tried if each meets this obstacle.
    fn order(size: u64, obstacle: Obstacle, learned: &LearnedLimit) -> Vec<Strategy> {
        let mut strategies = Strategies::new(size, learned);
        let mut order = vec![strategies.current()];
        while strategies.advance(obstacle, learned) {
            order.push(strategies.current());
        }
        order
    }

    #[test]
    fn every_strategy_has_its_turn_whatever_is_in_the_way() {
        use Strategy::{Chunks, OnePatch, OnePut};
        let all = [Chunks(16 * MIB), Chunks(4 * MIB), Chunks(MIB), OnePatch, OnePut];
        for obstacle in [Obstacle::TooLarge, Obstacle::Trouble] {
            assert_eq!(order(40 * MIB, obstacle, &LearnedLimit::default()), all);
        }
        assert_eq!(
            order(40 * MIB, Obstacle::Refused, &LearnedLimit::default()),
            [Chunks(16 * MIB), OnePatch, OnePut, Chunks(4 * MIB), Chunks(MIB)]
        );
        for (size, expected) in [
            (0, &[OnePut, OnePatch][..]),
            (MIB, &[OnePut, OnePatch]),
            (2 * MIB, &[OnePut, OnePatch, Chunks(MIB)]),
            (CHUNK_BYTES, &[OnePut, OnePatch, Chunks(4 * MIB), Chunks(MIB)]),
        ] {
            assert_eq!(order(size, Obstacle::Refused, &LearnedLimit::default()), expected, "{size}");
        }
    }

    #[test]
    fn the_next_blob_begins_with_what_the_registry_did_not_refuse() {
        let learned = LearnedLimit::default();
        assert!(Strategies::new(40 * MIB, &learned).advance(Obstacle::Trouble, &learned));
        assert_eq!(
            Strategies::new(40 * MIB, &learned).current(),
            Strategy::Chunks(CHUNK_BYTES),
            "trouble says nothing of the size"
        );
        assert!(Strategies::new(40 * MIB, &learned).advance(Obstacle::TooLarge, &learned));
        assert_eq!(Strategies::new(40 * MIB, &learned).current(), Strategy::Chunks(4 * MIB));
        assert!(Strategies::new(40 * MIB, &learned).advance(Obstacle::Refused, &learned));
        assert_eq!(Strategies::new(40 * MIB, &learned).current(), Strategy::OnePatch);
        assert_eq!(order(40 * MIB, Obstacle::Trouble, &learned).len(), 5, "the refused ones are still tried, last");
    }
}
