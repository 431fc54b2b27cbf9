//! Signature sources: the extension endpoint and lookaside trees.

pub mod registries_d;
