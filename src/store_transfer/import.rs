//! Imports: signatures of an export or a lookaside tree into a store.

use std::{io, path::PathBuf};

use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    error::TransferError,
    export_lines::ExportLines,
    import_item::{ImportItem, ItemContent},
    item_location::ItemLocation,
    store::{MAX_BATCH, TransferStore},
    tree_reader::TreeReader,
};
use crate::gateway::export_format::{Imported, MAX_REASONS};

/// Bytes of signatures that are put into a store at once, unless the last one is larger.
const MAX_BATCH_BYTES: usize = 512 << 10;

/// The source of an import.
pub(crate) enum ImportSource {
    /// Lines of an export.
    Lines(Box<ExportLines>),
    /// A lookaside tree.
    Tree(TreeReader),
}

impl ImportSource {
    fn next(&mut self) -> Result<Option<ImportItem>, TransferError> {
        match self {
            Self::Lines(lines) => lines.next(),
            Self::Tree(walk) => Ok(walk.next()),
        }
    }

    /// How far it is read, and how much there is, in bytes, where that is known.
    pub(crate) fn bytes(&self) -> (u64, Option<u64>) {
        match self {
            Self::Lines(lines) => lines.bytes(),
            Self::Tree(_) => (0, None),
        }
    }
}

/// The result of an import so far.
#[derive(Debug, Default)]
pub(crate) struct ImportReport {
    /// How many are new; without a store, how many it would take.
    pub(crate) created: usize,
    /// Of how many that were there something more is known now.
    pub(crate) completed: usize,
    /// How many were there, as they are.
    pub(crate) present: usize,
    /// How many are not in, and why, of the first ones.
    pub(crate) refused: usize,
    pub(crate) reasons: Vec<(ItemLocation, String)>,
    /// Where readers of a lookaside stop before the end: how often, and the first ones.
    pub(crate) gaps: usize,
    pub(crate) first_gaps: Vec<PathBuf>,
}

impl ImportReport {
    fn refuse(&mut self, place: ItemLocation, reason: String) {
        self.refused += 1;
        if self.reasons.len() < MAX_REASONS {
            self.reasons.push((place, reason));
        }
    }

    /// Adds the outcome of the signatures at these places.
    fn add(&mut self, imported: Imported, places: &[ItemLocation]) {
        let Imported { created, completed, present, refused, reasons } = imported;
        self.created += created;
        self.completed += completed;
        self.present += present;
        // It tells the first ones.
        self.refused += refused.saturating_sub(reasons.len());
        for reason in reasons {
            let place = reason.line.checked_sub(1).and_then(|index| places.get(index)).cloned();
            self.refuse(place.unwrap_or(ItemLocation::Line(0)), reason.reason);
        }
    }

    /// How many are in the store.
    pub(crate) fn stored(&self) -> usize {
        self.created + self.completed + self.present
    }

    fn done(&self) -> usize {
        self.stored() + self.refused
    }
}

/// Puts what is found into a store, or looks at it where there is none to put it into. What is counted as created,
/// completed or present is durable.
pub(crate) async fn import(
    source: ImportSource,
    store: Option<&TransferStore>,
    report: &mut ImportReport,
    watch: &(dyn Fn(usize, u64) + Sync),
) -> Result<(), TransferError> {
    let mut batches = read(source);
    loop {
        // Its end is said: that of a thread alone might be any.
        let cut_off = || TransferError::file("what is imported")(io::Error::other("it can't be read to its end"));
        let Batch { found, bytes } = batches.recv().await.ok_or_else(cut_off)??;
        if found.is_empty() {
            return Ok(());
        }
        let (mut places, mut signatures) = (Vec::new(), Vec::new());
        for ImportItem { place, what } in found {
            match what {
                ItemContent::Signature(signature) => {
                    places.push(place);
                    signatures.push(*signature);
                }
                ItemContent::Junk(reason) => report.refuse(place, reason),
                ItemContent::Gap => {
                    report.gaps += 1;
                    if let (ItemLocation::Path(path), true) = (place, report.first_gaps.len() < MAX_REASONS) {
                        report.first_gaps.push(path);
                    }
                }
            }
        }
        match store {
            _ if signatures.is_empty() => {}
            None => report.created += signatures.len(),
            Some(store) => report.add(store.take(&signatures).await?, &places),
        }
        watch(report.done(), bytes);
    }
}

/// A batch of items, and how many bytes are read up to its end.
struct Batch {
    found: Vec<ImportItem>,
    bytes: u64,
}

/// Reads on a thread of its own: what is read may stop, and the caller can stop waiting.
fn read(mut source: ImportSource) -> mpsc::Receiver<Result<Batch, TransferError>> {
    let (sender, batches) = mpsc::channel(1);
    spawn_blocking(move || {
        loop {
            let batch = next_batch(&mut source);
            let is_last = batch.as_ref().map_or(true, |batch| batch.found.is_empty());
            // The receiver is gone if the import has failed.
            if sender.blocking_send(batch).is_err() || is_last {
                return;
            }
        }
    });
    batches
}

/// Reads the next batch; it is empty if there is no more.
fn next_batch(source: &mut ImportSource) -> Result<Batch, TransferError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    while found.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
        let Some(next) = source.next()? else { break };
        if let ItemContent::Signature(signature) = &next.what {
            bytes += signature.1.signature.content.len();
        }
        found.push(next);
    }
    Ok(Batch { found, bytes: source.bytes().0 })
}
