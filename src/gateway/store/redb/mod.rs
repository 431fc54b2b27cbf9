//! The store in one file, with redb: B-trees, copy on write, checksums.
//!
//! Table `signatures`: from `repository NUL digest NUL name` to the OpenPGP message. A list is thus one range read, and
//! no repository name or digest can reach into another's range, since neither has a NUL in it. Tables `origins` and
//! `statuses` have what is known of a signature, in JSON, below the same key; who reads signatures needs neither. Table
//! `about` holds the format's number.

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
