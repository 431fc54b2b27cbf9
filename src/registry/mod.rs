//! Registries: a thin, bounded client of the distribution specification.
//!
//! It trusts no registry and no header of one. Whatever comes is bounded in bytes, count and time; a digest is computed
//! over the bytes that were received; credentials go to the registry they are for and to its token realm, nowhere else; and
//! hosts that nobody named are dialled at public addresses only. docs/registries.md says it to operators.

mod blocking;
mod body;
mod cas;
mod challenge;
mod client;
mod credentials;
mod encoding;
mod failure;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod helper;
mod login_file;
mod manifest;
pub(crate) mod patience;
mod pools;
mod quota;
mod resolver;
mod room;
pub(crate) mod said;
mod settings;
mod target;
mod token;
mod transport;
mod upload;

pub use cas::CaError;
pub use client::Client;
pub use guard::{HostSet, NamesHosts, PolicyHosts};
pub use said::SaidNo;
pub use settings::SetupError;
pub use upload::{BlobOutcome, UploadError};

pub(crate) use blocking::Blocking;
pub(crate) use cas::check_cas;
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
