//! Transfers whole stores: from a store to a file or a lookaside tree, and from there to another store.
//!
//! A transfer may be interrupted and repeated. A signature that the target store already has is no error. An export
//! resumes after its last complete line.

mod error;
mod export;
mod export_file;
mod export_lines;
mod export_report;
mod import;
mod import_item;
mod item_location;
mod line_reader;
mod remote;
mod signature;
mod store;
mod tree_reader;
mod tree_writer;

pub(crate) use error::TransferError;
pub(crate) use export::{ExportStream, ExportTarget, export};
pub(crate) use export_file::ExportFile;
pub(crate) use export_lines::ExportLines;
pub(crate) use export_report::ExportReport;
pub(crate) use import::{ImportReport, ImportSource, import};
pub(crate) use item_location::ItemLocation;
pub(crate) use remote::RemoteStore;
pub(crate) use store::TransferStore;
pub(crate) use tree_reader::TreeReader;
pub(crate) use tree_writer::TreeWriter;
