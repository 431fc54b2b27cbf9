//! The last changes of an image's signatures, told apart by random numbers.
//!
//! A change whose answer was lost finds its number here if it was made. Others who change the same image push it out after
//! [`LENGTH`] changes, which an import makes within a deadline: then it is not known whether it was made, and must not be
//! made again, for it could take away what another client did meanwhile.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many changes it goes back.
const LENGTH: usize = 64;

/// A number that no other change has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChangeId(u64);

impl ChangeId {
    pub(super) fn new() -> Self {
        let mut bytes = [0; 8];
        // Without randomness there is no TLS either.
        aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
        Self(u64::from_ne_bytes(bytes))
    }

    /// A random number below this one.
    pub(super) fn below(self, end: usize) -> usize {
        usize::try_from(self.0 % end.max(1) as u64).unwrap_or(0)
    }

    /// A random part of this duration.
    pub(super) fn of_up_to(self, longest: Duration) -> Duration {
        let parts = u32::try_from(self.0 % 1024).unwrap_or(0);
        longest * parts / 1024
    }
}

/// The numbers, the newest last.
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

    /// The newest change.
    pub(super) fn newest(&self) -> Option<ChangeId> {
        self.changes.last().copied()
    }

    /// Returns whether each change is here that was made since this one was the newest, or since there was none for `None`.
    pub(super) fn has_all_since(&self, newest: Option<ChangeId>) -> bool {
        newest.map_or(self.changes.len() < LENGTH, |newest| self.has(newest))
    }

    /// With one more change, and without those that are too old.
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
