//! Signature sources: extension endpoints and lookaside trees, asked in parallel.
//!
//! This module neither trusts nor interprets what a source sends: `signature` does that. A source may send nothing, too
//! much, or malformed data; none of that removes the signatures from another source.

mod destination;
mod extension;
mod finder;
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub(crate) mod lookaside;
pub mod registries_d;
mod source_answer;
pub(crate) mod store_client;
mod wire;
mod write;
mod write_error;
mod write_extension;
mod write_lookaside;

pub use destination::Destination;
pub use finder::{Finder, SignatureSources};
pub use write::{check, is_extension_announced, write};
pub use write_error::{WriteError, Written};

pub(crate) use format::{SignatureFormat, detect_format};
pub(crate) use wire::WireSignature;
pub(crate) use write_lookaside::write_file;
