//! The store in front of real and of lying registries.

#![allow(clippy::unwrap_used)] // All of this is tests.

mod access;
pub(crate) mod engines;
pub(crate) mod fake;
mod head;
pub(crate) mod kills;
mod layers;
pub(crate) mod ledger;
mod passage;
pub(crate) mod program;
mod roles;
mod signatures;
pub(crate) mod skopeo;
