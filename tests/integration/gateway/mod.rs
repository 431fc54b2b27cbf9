//! The store in front of real and of lying registries.

#![allow(clippy::unwrap_used)] // All of this is tests.

pub(crate) mod engines;
mod fake;
mod layers;
mod passage;
mod program;
mod signatures;
mod skopeo;
