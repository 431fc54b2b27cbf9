//! Signature sources: the extension endpoint and lookaside trees, asked side by side.
//!
//! What a source sends is neither trusted nor interpreted here: `signature` does that. A source can send nothing, too much, or
//! nonsense. None of that removes what another source has.

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
