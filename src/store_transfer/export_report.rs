//! The result of an export.

use jiff::Timestamp;

use super::item_location::ItemLocation;
use crate::gateway::store::Record;

/// The result of an export so far.
#[derive(Debug, Default)]
pub(crate) struct ExportReport {
    /// Signatures of the store.
    pub(crate) signatures: usize,
    /// How many of them an earlier export wrote.
    pub(crate) resumed: usize,
    /// When that one was begun.
    pub(crate) begun: Option<Timestamp>,
    /// How many have an origin, and a status.
    pub(crate) origins: usize,
    pub(crate) statuses: usize,
    /// Of a tree: how many are new, and how many were there.
    pub(crate) created: usize,
    pub(crate) present: usize,
    /// How many are not there, and why, of the first ones.
    pub(crate) refused: usize,
    pub(crate) reasons: Vec<(ItemLocation, String)>,
}

impl ExportReport {
    pub(super) fn count(&mut self, record: &Record) {
        self.signatures += 1;
        self.origins += usize::from(record.origin.is_some());
        self.statuses += usize::from(record.status.is_some());
    }
}
