//! The history of an image: its last changes, identified by random numbers.
//!
//! A change whose answer was lost finds its number here if it was made. Other clients that change the same image push
//! it out after [`LENGTH`] changes, which an import can make within a deadline. It is then unknown whether the change
//! was made, and it must not be made again, since it could undo another client's change.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The number of changes in a history.
const LENGTH: usize = 64;

/// A random number that identifies a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChangeId(u64);

impl ChangeId {
    pub(super) fn new() -> Self {
        let mut bytes = [0; 8];
        // Without randomness there would be no TLS either.
        aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
        Self(u64::from_ne_bytes(bytes))
    }

    /// Returns a random number below `end`.
    pub(super) fn below(self, end: usize) -> usize {
        usize::try_from(self.0 % end.max(1) as u64).unwrap_or(0)
    }

    /// Returns a random part of this duration.
    pub(super) fn of_up_to(self, longest: Duration) -> Duration {
        let parts = u32::try_from(self.0 % 1024).unwrap_or(0);
        longest * parts / 1024
    }
}

/// The identifiers, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct History {
    changes: Vec<ChangeId>,
}

impl History {
    /// Parses a history. Returns `None` if it is malformed.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    pub(super) fn encoded(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers are JSON")
    }

    pub(super) fn has(&self, id: ChangeId) -> bool {
        self.changes.contains(&id)
    }

    /// Returns the newest change.
    pub(super) fn newest(&self) -> Option<ChangeId> {
        self.changes.last().copied()
    }

    /// Returns whether the history has every change since `newest` was the newest one, or since the beginning for
    /// `None`.
    pub(super) fn has_all_since(&self, newest: Option<ChangeId>) -> bool {
        newest.map_or(self.changes.len() < LENGTH, |newest| self.has(newest))
    }

    /// Returns the history with one more change, and without those that are too old.
    pub(super) fn with(&self, id: ChangeId) -> Self {
        let old = (self.changes.len() + 1).saturating_sub(LENGTH);
        Self { changes: self.changes.iter().copied().skip(old).chain([id]).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_changes_are_kept() {
        let ids: Vec<ChangeId> = (0..LENGTH as u64 + 3).map(ChangeId).collect();
        let history = ids.iter().fold(History::default(), |history, &id| history.with(id));
        assert_eq!(History::parse(&history.encoded()), Some(history.clone()));
        assert_eq!(history.changes, ids[3..]);
        assert!(history.has(ids[3]) && !history.has(ids[2]));
        assert_eq!(History::parse(b"{}"), None);
    }

    #[test]
    fn a_history_that_is_too_short_does_not_pass_for_whole() {
        let ids: Vec<ChangeId> = (0..=LENGTH as u64).map(ChangeId).collect();
        let of = |ids: &[ChangeId]| ids.iter().fold(History::default(), |history, &id| history.with(id));
        assert!(of(&[]).has_all_since(None));
        assert!(of(&ids[..LENGTH - 1]).has_all_since(None));
        assert!(!of(&ids[..LENGTH]).has_all_since(None), "an earlier one may have been pushed out");
        assert!(of(&ids[..LENGTH]).has_all_since(Some(ids[0])));
        assert!(!of(&ids).has_all_since(Some(ids[0])));
        assert_eq!(of(&ids).newest(), ids.last().copied());
    }
}
