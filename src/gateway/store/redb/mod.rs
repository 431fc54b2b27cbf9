//! The store in one file, with redb: B-trees, copy on write, checksums.
//!
//! The table `signatures` maps `repository NUL digest NUL name` to the OpenPGP message. So a list is one range read,
//! and the ranges of two images can't overlap, since no repository name or digest contains a NUL. The tables `origins`
//! and `statuses` have JSON under the same keys; lists of signatures do not read them. The table `about` has the
//! format's number.

mod catch_panic;
mod changes;
mod error;
mod file;
mod group_commit;
mod overlay;
mod reopen;
mod store;
mod tables;
#[cfg(test)]
mod tests;

pub use store::RedbStore;
