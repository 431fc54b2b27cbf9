//! The store in front of real and of lying registries.

#![allow(clippy::unwrap_used)] // All of this is tests.

mod access;
pub(crate) mod engines;
mod fake;
mod layers;
mod passage;
mod program;
mod roles;
mod signatures;
mod skopeo;
