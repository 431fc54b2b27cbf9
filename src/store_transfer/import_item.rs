//! The items of an import.

use super::{item_location::ItemLocation, signature::Signature};

/// An item of an import, and its place.
pub(super) struct ImportItem {
    pub(super) place: ItemLocation,
    pub(super) what: ItemContent,
}

pub(super) enum ItemContent {
    /// A signature that a store accepts.
    Signature(Box<Signature>),
    /// An item that no store accepts, with the reason.
    Junk(String),
    /// A missing number, at which readers of a lookaside stop.
    Gap,
}
