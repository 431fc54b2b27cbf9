//! The result of an export.

use jiff::Timestamp;

use super::item_location::ItemLocation;
use crate::gateway::store::Record;

/// The result of an export so far.
#[derive(Debug, Default)]
pub(crate) struct ExportReport {
    /// The number of signatures in the store.
    pub(crate) signatures: usize,
    /// The number of signatures that an earlier, interrupted export wrote.
    pub(crate) resumed: usize,
    /// The start of that export.
    pub(crate) begun: Option<Timestamp>,
    /// The number of signatures with an origin, and with a status.
    pub(crate) origins: usize,
    pub(crate) statuses: usize,
    /// For a tree: the number of new signatures, and of those that were there already.
    pub(crate) created: usize,
    pub(crate) present: usize,
    /// The number of signatures that could not be written, and the first reasons.
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
