//! The items that an import reads.

use super::{item_location::ItemLocation, signature::Signature};

/// A signature, or something else, that an import reads.
pub(super) struct ImportItem {
    pub(super) place: ItemLocation,
    pub(super) what: ItemContent,
}

pub(super) enum ItemContent {
    /// A signature that a store accepts.
    Signature(Box<Signature>),
    /// Something that no store accepts, and why.
    Junk(String),
    /// A number that is missing, where readers of a lookaside stop.
    Gap,
}
