//! What is found in what is imported.

use super::{place::Place, signature::Signature};

/// What is found in it.
pub(super) struct Found {
    pub(super) place: Place,
    pub(super) what: What,
}

pub(super) enum What {
    /// What a store takes.
    Signature(Box<Signature>),
    /// What none takes, and why.
    Junk(String),
    /// A number that is missing, where readers of a lookaside stop.
    Gap,
}
