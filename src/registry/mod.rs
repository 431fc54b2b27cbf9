//! A thin, bounded client of the distribution specification.
//!
//! It trusts no registry and no header of one. All input is bounded in bytes, count and time. A digest is computed over
//! the bytes that were received. Credentials go only to the registry that they are for and to its token realm. Hosts
//! that neither a rule nor a registries entry names are dialled at public addresses only. docs/registries.md is the
//! documentation for operators.

mod access;
mod allowed_hosts;
mod answer;
mod authorization;
mod blocking_pool;
mod body;
mod ca_certs;
mod caller_token;
mod cert_verifiers;
mod challenge;
mod client;
mod content;
mod credentials;
mod dial_guard;
mod encoding;
pub(crate) mod error_body;
mod failure;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod helper;
mod http_clients;
mod location;
mod login;
mod login_file;
mod manifest;
mod memory_budget;
mod origin;
mod ping;
mod pools;
mod quota;
mod remote_server;
mod request;
mod request_quota;
mod resolver;
pub(crate) mod retry;
mod server_refused;
mod settings;
mod setup_error;
mod target;
mod time_budget;
mod token;
mod token_realm;
mod token_response;
mod transport;
mod upload;
mod upload_path;
mod upstream;

pub use allowed_hosts::{AllowedHosts, HostSet};
pub use ca_certs::CaError;
pub use client::Client;
pub use server_refused::ServerRefused;
pub use setup_error::SetupError;
pub use upload::{Blob, BlobOutcome, UploadError};

pub(crate) use access::Access;
pub(crate) use answer::Answer;
pub(crate) use blocking_pool::BlockingPool;
pub(crate) use ca_certs::check_cas;
pub(crate) use caller_token::exchange;
pub(crate) use challenge::Challenge;
pub(crate) use content::Content;
pub(crate) use credentials::{check_login_file, needed as credentials_needed};
pub(crate) use failure::Failure;
pub(crate) use manifest::claimed_digests;
pub(crate) use origin::Extension;
pub(crate) use remote_server::RemoteServer;
pub(crate) use request::{Fetched, Request, RequestLocation, RequestSpec, join};
pub(crate) use target::Target;
pub(crate) use time_budget::TimeBudget;
pub(crate) use transport::{OutgoingRequest, Transport};
pub(crate) use upload::{LearnedLimit, ManifestContent};
pub(crate) use upstream::Upstream;
