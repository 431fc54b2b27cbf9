//! The audit log: actions of callers, and refusals.

use std::net::IpAddr;

use super::{
    auth::{Action, Rejection},
    error::ApiError,
};

/// The caller of an action, for the line in the log that is written when the action is done, even if the client has
/// left by then.
pub(super) struct AuditEntry {
    pub(super) caller: String,
    pub(super) peer: Option<IpAddr>,
}

impl AuditEntry {
    /// Logs an action that is done.
    pub(super) fn done(&self, action: Action, what: &str) {
        let Self { caller, peer } = self;
        // As strings, so that the log quotes and escapes them.
        tracing::info!(target: "sealgate::audit", audit = true, caller, ?peer, %action, what, "done");
    }
}

/// Logs an action that is refused. `claimed` is the name that came with a wrong password.
pub(super) fn refused(entry: &AuditEntry, claimed: Option<&str>, action: Action, what: &str, refused: &ApiError) {
    let AuditEntry { caller, peer } = entry;
    let refused = refused.to_string();
    tracing::info!(target: "sealgate::audit", audit = true, caller, claimed, ?peer, %action, what, refused, "refused");
}

/// Logs invalid credentials. The line has no part of them but the name.
pub(super) fn credentials_rejected(claimed: Option<&str>, peer: Option<IpAddr>, why: Rejection) {
    tracing::info!(target: "sealgate::audit", audit = true, claimed, ?peer, %why, "credentials rejected");
}

/// Logs a caller that exceeds the rate limit.
pub(super) fn rate_limited(entry: &AuditEntry) {
    let AuditEntry { caller, peer } = entry;
    tracing::info!(target: "sealgate::audit", audit = true, caller, ?peer, "too many signatures at once");
}
