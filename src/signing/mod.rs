//! Keys of the signing user: in GnuPG's keyring and agent, or in a file.
//!
//! This module finds the key that the user names, checks that verifiers would accept its signatures, and finds the
//! holder of its secret part. [`crate::signature::compose()`] makes the signature.

mod agent;
mod gnupg;
mod key_error;
mod key_file;
pub mod plan;
mod query;
mod signing_key;

pub use gnupg::{Gnupg, home};
pub use key_error::KeyError;
pub use key_file::read as key_file;
pub use query::{KeyQuery, KeyQueryError};
pub use signing_key::{SigningKey, user_id};
