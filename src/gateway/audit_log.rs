//! The audit log: who did what, and who was refused.

use std::net::IpAddr;

use super::{
    auth::{Action, Rejection},
    error::ApiError,
};

/// Who did something, for a line that is written when it is done, even if the client has left by then.
pub(super) struct AuditEntry {
    pub(super) caller: String,
    pub(super) peer: Option<IpAddr>,
}

impl AuditEntry {
    /// Logs that an action is done.
    pub(super) fn done(&self, action: Action, what: &str) {
        let Self { caller, peer } = self;
        // Strings as such: the log quotes and escapes them.
        tracing::info!(target: "sealgate::audit", audit = true, caller, ?peer, %action, what, "done");
    }
}

/// Logs that an action is refused. `claimed` is the name that came with a wrong password.
pub(super) fn refused(entry: &AuditEntry, claimed: Option<&str>, action: Action, what: &str, refused: &ApiError) {
    let AuditEntry { caller, peer } = entry;
    let refused = refused.to_string();
    tracing::info!(target: "sealgate::audit", audit = true, caller, claimed, ?peer, %action, what, refused, "refused");
}

/// Logs credentials that are not valid. Of what the client sent, only the name is in the line.
pub(super) fn credentials_rejected(claimed: Option<&str>, peer: Option<IpAddr>, why: Rejection) {
    tracing::info!(target: "sealgate::audit", audit = true, claimed, ?peer, %why, "credentials rejected");
}

/// Logs that a caller adds signatures faster than the rate limit allows.
pub(super) fn rate_limited(entry: &AuditEntry) {
    let AuditEntry { caller, peer } = entry;
    tracing::info!(target: "sealgate::audit", audit = true, caller, ?peer, "too many signatures at once");
}
