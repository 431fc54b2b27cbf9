//! Imports the signatures of an export or a lookaside tree into a store.

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

/// The maximum size of the signatures of one request, in bytes. A single signature may be larger.
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

    /// Returns the bytes read so far, and the size of the source, if it is known.
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
    /// The number of new signatures; in a dry run, of those that a store would accept.
    pub(crate) created: usize,
    /// The number of signatures that were there, and to which an origin or status was added.
    pub(crate) completed: usize,
    /// The number of signatures that were there already, and did not change.
    pub(crate) present: usize,
    /// The number of signatures that were refused, and the first reasons.
    pub(crate) refused: usize,
    pub(crate) reasons: Vec<(ItemLocation, String)>,
    /// The number of gaps in the numbering, at which readers of a lookaside stop, and the first of them.
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

    /// Adds the outcome of the signatures from these places.
    fn add(&mut self, imported: Imported, places: &[ItemLocation]) {
        let Imported { created, completed, present, refused, reasons } = imported;
        self.created += created;
        self.completed += completed;
        self.present += present;
        // The store returns only the first reasons.
        self.refused += refused.saturating_sub(reasons.len());
        for reason in reasons {
            let place = reason.line.checked_sub(1).and_then(|index| places.get(index)).cloned();
            self.refuse(place.unwrap_or(ItemLocation::Line(0)), reason.reason);
        }
    }

    /// Returns the number of signatures that the store has now.
    pub(crate) fn stored(&self) -> usize {
        self.created + self.completed + self.present
    }

    fn done(&self) -> usize {
        self.stored() + self.refused
    }
}

/// Imports a source into a store, or only checks it in a dry run, without one. Signatures that are counted as created,
/// completed or present are durable.
pub(crate) async fn import(
    source: ImportSource,
    store: Option<&TransferStore>,
    report: &mut ImportReport,
    watch: &(dyn Fn(usize, u64) + Sync),
) -> Result<(), TransferError> {
    let mut batches = read(source);
    loop {
        // The thread reports its end, since a channel also closes when the thread panics.
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

/// A batch of items, and the bytes read up to its end.
struct Batch {
    found: Vec<ImportItem>,
    bytes: u64,
}

/// Reads batches on a thread of its own, so that the caller can stop waiting for a source that blocks.
fn read(mut source: ImportSource) -> mpsc::Receiver<Result<Batch, TransferError>> {
    let (sender, batches) = mpsc::channel(1);
    spawn_blocking(move || {
        loop {
            let batch = next_batch(&mut source);
            let is_last = batch.as_ref().map_or(true, |batch| batch.found.is_empty());
            // The receiver is dropped if the import failed.
            if sender.blocking_send(batch).is_err() || is_last {
                return;
            }
        }
    });
    batches
}

/// Reads the next batch; it is empty at the end of the source.
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
