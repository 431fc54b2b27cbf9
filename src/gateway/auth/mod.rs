//! Authenticates the callers of the gateway, and authorizes their actions on signatures.
//!
//! [`AccessControl`] checks [the store's own tokens](token), and asks one of the backends behind [`AuthBackend`] about
//! all other credentials: [`AllowAll`], a [password file](htpasswd::Htpasswd), or [Kubernetes](kubernetes::Kubernetes).
//! Every decision starts from a refusal; a backend that can't answer is an error, and never permission.

mod access_control;
mod action;
mod auth_cache;
mod authenticate;
mod authorize;
mod backend;
mod caller;
mod challenge;
mod client_address;
mod client_network;
mod credentials;
mod error;
mod fair_queue;
pub mod htpasswd;
pub mod kubernetes;
mod principal;
mod roles;
pub mod scope;
pub mod token;
pub mod token_key;
mod upstream_credentials;

pub use access_control::{AccessControl, AccessSetupError, Identity, IssuedToken, UpstreamAuthorization};
pub use action::Action;
pub(super) use authenticate::RequestAuth;
pub use backend::{AllowAll, AuthBackend};
pub(super) use caller::Caller;
pub use client_network::ClientNetwork;
pub use credentials::{Credentials, MalformedCredentials};
pub use error::{AccessError, Rejection};
pub use principal::Principal;
