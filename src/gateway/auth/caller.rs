//! The sender of one request.

use std::net::IpAddr;

use actix_web::http::header::HeaderValue;

use super::{Credentials, Identity, challenge};
use crate::gateway::{audit_log::AuditEntry, error::ApiError, headers::External, store::kept_name};

/// The sender of one request, authenticated as far as the request allows.
pub(in crate::gateway) struct Caller {
    pub(in crate::gateway) identity: Identity,
    /// The address that the caller knows the gateway by.
    pub(in crate::gateway) external: External,
    /// The `Authorization` of the request, where it is the registry's own business.
    pub(super) forwarded_authorization: Option<HeaderValue>,
    /// The name that came with a wrong password. The registry may accept both all the same.
    pub(super) rejected_user: Option<Box<str>>,
    /// The client's address, for the audit log.
    pub(super) address: Option<IpAddr>,
    /// Whether the client is on this machine, and no other client sends the request through it.
    pub(super) is_local: bool,
    /// Whether a page of another site makes the client's browser send the request.
    pub(super) is_cross_site: bool,
}

impl Caller {
    /// Returns what the audit log has of the caller.
    pub(in crate::gateway) fn audit_entry(&self) -> AuditEntry {
        AuditEntry { caller: self.identity.principal.to_string(), peer: self.address }
    }

    /// Returns the name as the store keeps it; `None` for an anonymous caller.
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

    /// The `error` of a challenge to a caller that the registry refused: a token that this store accepts and the registry does
    /// not has been overtaken by the registry's own.
    pub(super) fn challenge_error(&self) -> Option<&'static str> {
        self.identity.claims.as_ref().map(|_| "invalid_token")
    }
}
