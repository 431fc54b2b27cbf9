//! Writes an export into a lookaside tree: `<path>@<algorithm>=<hex>/signature-N` (containers-registries.d(5)). A tree has no
//! names, origins or statuses.

use std::path::{Path, PathBuf};

use super::{error::TransferError, export_report::ExportReport, item_location::ItemLocation};
use crate::files::durable::create_folder;
use crate::gateway::export_format::MAX_REASONS;
use crate::gateway::store::{ImageId, Record};
use crate::signature_sources::{WriteError, lookaside::folder_name, write_file};

/// The lookaside tree that an export writes.
pub(crate) struct TreeWriter {
    base: PathBuf,
}

impl TreeWriter {
    /// Opens the tree, and creates its folder if it does not exist.
    pub(crate) fn open(base: &Path) -> Result<Self, TransferError> {
        create_folder(base).map_err(TransferError::file(base))?;
        Ok(Self { base: base.to_owned() })
    }

    /// Adds a signature, unless the tree has it already.
    pub(super) fn add(
        &self,
        image: &ImageId,
        record: &Record,
        exported: &mut ExportReport,
    ) -> Result<(), TransferError> {
        let folder = self.base.join(folder_name(image.repository.as_str(), &image.digest));
        match write_file(&folder, &record.signature.content) {
            Ok(written) if written.existed => exported.present += 1,
            Ok(_) => exported.created += 1,
            Err(WriteError::File { path, source }) => return Err(TransferError::File { path, source }),
            Err(error) => {
                exported.refused += 1;
                if exported.reasons.len() < MAX_REASONS {
                    // The error names the folder.
                    exported.reasons.push((ItemLocation::Path(folder), error.to_string()));
                }
            }
        }
        Ok(())
    }
}
