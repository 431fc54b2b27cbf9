//! Registries: a thin, bounded client of the distribution specification.
//!
//! It trusts no registry and no header of one. Whatever comes is bounded in bytes, count and time; a digest is computed
//! over the bytes that were received; credentials go to the registry they are for and to its token realm, nowhere else; and
//! hosts that nobody named are dialled at public addresses only. docs/registries.md says it to operators.

mod blocking_pool;
mod body;
mod ca_certs;
mod challenge;
mod client;
mod credentials;
mod dial_guard;
mod encoding;
pub(crate) mod error_body;
mod failure;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod helper;
mod login;
mod login_file;
mod manifest;
mod memory_budget;
mod pools;
mod quota;
mod request_quota;
mod resolver;
pub(crate) mod retry;
mod settings;
mod target;
mod token;
mod transport;
mod upload;
mod upload_path;

pub use ca_certs::CaError;
pub use client::Client;
pub use dial_guard::{HostSet, NamesHosts, PolicyHosts};
pub use error_body::SaidNo;
pub use settings::SetupError;
pub use upload::{BlobOutcome, UploadError};

pub(crate) use blocking_pool::Blocking;
pub(crate) use ca_certs::check_cas;
pub(crate) use challenge::Challenge;
pub(crate) use client::{Extension, Fetched, Place, Request, What, join};
pub(crate) use credentials::{check_login_file, needed as credentials_needed};
pub(crate) use failure::Failure;
pub(crate) use manifest::claimed_digests;
pub(crate) use settings::Upstream;
pub(crate) use target::Target;
pub(crate) use token::{Access, exchange};
pub(crate) use transport::{Answer, Ask, Budget, Content, Peer, Transport};
pub(crate) use upload::LearnedLimit;
