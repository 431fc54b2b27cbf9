//! Errors of starting a server.

use std::{io, net::SocketAddr};

use crate::files::PolicyLoadError;
use crate::gateway::GatewayError;
use crate::registry::SetupError;
use crate::tls::TlsError;

/// The reason why a server does not start, or ended. Each is one message for the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartupError {
    /// The configuration names no policies, which the gate needs.
    #[error("the configuration has no `policies`: the gate needs the folder or file with the policies")]
    NoPolicies,
    /// The configuration names no registry, which the store needs.
    #[error(
        "the configuration has no `gateway`: the store needs gateway.registry, the registry that it stands in front of"
    )]
    NoGateway,
    /// The policies can't be used.
    #[error(transparent)]
    Policy(#[from] PolicyLoadError),
    /// The `registries` of the configuration can't be used.
    #[error(transparent)]
    Registries(#[from] SetupError),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A listener can't be opened.
    #[error("{what} {address}: {source}{}", hint(source.kind()))]
    Listen {
        /// The setting.
        what: &'static str,
        /// Its value.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The store can't be opened or served.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// A server that ran ended by itself.
    #[error("{what} ended: {source}")]
    Ended {
        /// The server.
        what: &'static str,
        /// The error that ended it.
        source: io::Error,
    },
}

/// Returns what to do if the system refuses an address.
pub(super) fn hint(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => "; is another program (or another Sealgate) listening there?",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need a privilege that Sealgate does without: use a higher one"
        }
        io::ErrorKind::AddrNotAvailable => {
            "; this machine has no such address: 0.0.0.0 (or [::]) stands for all it has"
        }
        _ => "",
    }
}
