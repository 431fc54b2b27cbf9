//! The sender of one request.

use std::net::IpAddr;

use actix_web::http::header::HeaderValue;

use super::{Credentials, Identity, challenge};
use crate::gateway::{audit_log::AuditEntry, error::ApiError, headers::External, store::kept_name};
use crate::server::Peer;

/// The sender of one request, authenticated as far as the request allows.
pub(in crate::gateway) struct Caller {
    pub(in crate::gateway) identity: Identity,
    /// The address by which the caller knows the gateway.
    pub(in crate::gateway) external: External,
    /// The `Authorization` of the request, if only the registry checks it.
    pub(super) forwarded_authorization: Option<HeaderValue>,
    /// The name that came with a wrong password. The registry may accept both all the same.
    pub(super) rejected_user: Option<Box<str>>,
    /// The client's address, for the audit log.
    pub(super) address: Option<IpAddr>,
    /// The client is on this machine, and no other client sends the request through it.
    pub(super) is_local: bool,
    /// A page of another site makes the client's browser send the request.
    pub(super) is_cross_site: bool,
}

impl Caller {
    /// Returns the caller's fields for the audit log.
    pub(in crate::gateway) fn audit_entry(&self) -> AuditEntry {
        AuditEntry { caller: self.identity.principal.to_string(), peer: self.address }
    }

    /// Returns the network of the client. Limits on what one client may take are kept by it.
    pub(in crate::gateway) fn network(&self) -> Peer {
        Peer::of(self.address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into()))
    }

    /// Returns the name in the form that the store keeps; `None` for an anonymous caller.
    pub(in crate::gateway) fn name(&self) -> Option<Box<str>> {
        self.identity.principal.name().map(kept_name)
    }

    /// Returns whether the request had no credentials.
    pub(in crate::gateway) fn has_no_credentials(&self) -> bool {
        self.identity.claims.is_none() && matches!(self.identity.credentials, Credentials::None)
    }

    /// Makes the answer that asks the caller for credentials.
    pub(in crate::gateway) fn ask_for_credentials(&self) -> ApiError {
        challenge::add_challenge(ApiError::credentials_required(), &self.external, None, self.challenge_error())
    }

    /// Returns the `error` of a challenge to a caller that the registry refused. If this store accepts the caller's
    /// token, the registry's own token in it has expired.
    pub(super) fn challenge_error(&self) -> Option<&'static str> {
        self.identity.claims.as_ref().map(|_| "invalid_token")
    }
}
