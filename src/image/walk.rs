//! The walk over an image index: which entries are looked at, how many of them, and how deep.
//!
//! The gate, signing and the commands that list signatures all walk by these rules, so that what is signed is what is
//! verified. Requests are the caller's business; this module only counts.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{Descriptor, Digest};

/// Manifests of one image, those of nested indexes counted. Each may take several requests; the largest of Docker's official
/// images have about 15 platforms.
pub const MAX_MANIFESTS: usize = 128;
/// Indexes, one in the other. Tools make one; two appear where an index of indexes is published.
pub const MAX_DEPTH: usize = 3;

/// The limit that an image exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalkLimit {
    /// More than [`MAX_MANIFESTS`].
    #[error("more manifests than the limit of {limit}, those of nested indexes counted")]
    Manifests {
        /// Manifests allowed.
        limit: usize,
    },
    /// More than [`MAX_DEPTH`].
    #[error("indexes in it, deeper than the limit of {limit}")]
    Depth {
        /// Indexes allowed, one in the other.
        limit: usize,
    },
}

/// The count of one walk over all indexes of one image. Branches that are walked side by side share it.
#[derive(Debug)]
pub struct Walk {
    left: AtomicUsize,
}

impl Default for Walk {
    fn default() -> Self {
        Self { left: AtomicUsize::new(MAX_MANIFESTS) }
    }
}

impl Walk {
    /// Counts the entries of an index, and returns those to look at: all but attestations, each digest once, in their order.
    /// `depth` is the number of indexes around this one.
    ///
    /// # Errors
    /// The index stands too deep, or the image has more manifests than the limit. The entries are not counted then.
    pub fn enter<'a>(&self, entries: &'a [Descriptor], depth: usize) -> Result<Vec<&'a Descriptor>, WalkLimit> {
        if depth >= MAX_DEPTH {
            return Err(WalkLimit::Depth { limit: MAX_DEPTH });
        }
        let mut seen: HashSet<Digest> = HashSet::new();
        let different: Vec<&Descriptor> = runnable(entries).filter(|entry| seen.insert(entry.digest)).collect();
        let count = different.len();
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count)) {
            Ok(_) => Ok(different),
            Err(_) => Err(WalkLimit::Manifests { limit: MAX_MANIFESTS }),
        }
    }
}

/// Returns the entries of an index that a node may run: all but attestations.
pub fn runnable(entries: &[Descriptor]) -> impl Iterator<Item = &Descriptor> {
    entries.iter().filter(|entry| !entry.attestation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: usize, attestation: bool) -> Descriptor {
        Descriptor { digest: Digest::sha256(number.to_string().as_bytes()), platform: None, attestation }
    }

    fn entries(numbers: std::ops::Range<usize>) -> Vec<Descriptor> {
        numbers.map(|number| entry(number, false)).collect()
    }

    #[test]
    fn attestations_are_left_out_and_an_entry_that_stands_there_twice_counts_once() {
        let index = [entry(2, false), entry(1, false), entry(3, true), entry(2, false)];
        let walk = Walk::default();
        let different: Vec<_> = walk.enter(&index, 0).unwrap().into_iter().map(|entry| entry.digest).collect();
        assert_eq!(different, [index[0].digest, index[1].digest]);
        assert_eq!(runnable(&index).count(), 3, "each place of an index is proven");
        assert!(walk.enter(&entries(10..10 + MAX_MANIFESTS - 2), 1).is_ok(), "two are counted");
        assert!(walk.enter(&[entry(3, true)], 0).unwrap().is_empty());
        assert!(walk.enter(&[entry(9, false)], 0).is_err(), "and no more are left");
    }

    #[test]
    fn manifests_of_all_indexes_of_an_image_count_together() {
        let limit = Err(WalkLimit::Manifests { limit: MAX_MANIFESTS });
        assert_eq!(Walk::default().enter(&entries(0..MAX_MANIFESTS + 1), 0), limit);
        let walk = Walk::default();
        assert_eq!(walk.enter(&entries(0..100), 0).unwrap().len(), 100);
        // An index below two others is walked twice, and counts twice.
        assert_eq!(walk.enter(&entries(0..29), 1), limit);
        assert_eq!(walk.enter(&entries(0..28), 1).unwrap().len(), 28, "what was refused is not counted");
    }

    #[test]
    fn indexes_stand_in_each_other_up_to_the_limit() {
        for depth in 0..MAX_DEPTH {
            assert!(Walk::default().enter(&entries(0..1), depth).is_ok(), "{depth}");
        }
        let limit = WalkLimit::Depth { limit: MAX_DEPTH };
        assert_eq!(Walk::default().enter(&[], MAX_DEPTH), Err(limit), "an empty one, too");
    }
}
