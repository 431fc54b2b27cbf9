//! What is found in what is imported.

use super::{item_location::ItemLocation, signature::Signature};

/// What is found in it.
pub(super) struct ImportItem {
    pub(super) place: ItemLocation,
    pub(super) what: ItemContent,
}

pub(super) enum ItemContent {
    /// What a store takes.
    Signature(Box<Signature>),
    /// What none takes, and why.
    Junk(String),
    /// A number that is missing, where readers of a lookaside stop.
    Gap,
}
