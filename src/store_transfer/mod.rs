//! Moves whole stores: from a store into a file or a lookaside tree, and from there into another store.
//!
//! A transfer may be interrupted and repeated. A signature that the target store has already is no error. An export is resumed
//! behind its last complete line.

mod error;
mod export;
mod export_file;
mod exported;
mod found;
mod import;
mod line_reader;
mod lines;
mod lookaside_tree;
mod place;
mod remote;
mod signature;
mod store;
mod tree_reader;

pub(crate) use error::TransferError;
pub(crate) use export::{Sink, Stream, export};
pub(crate) use export_file::ExportFile;
pub(crate) use exported::Exported;
pub(crate) use import::{Import, Source, import};
pub(crate) use lines::Lines;
pub(crate) use lookaside_tree::Tree;
pub(crate) use place::Place;
pub(crate) use remote::Running;
pub(crate) use store::Store;
pub(crate) use tree_reader::Walk;
