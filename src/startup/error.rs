//! Why a server does not start.

use std::{io, net::SocketAddr};

use crate::files::PolicyLoadError;
use crate::gateway::GatewayError;
use crate::registry::SetupError;
use crate::tls::TlsError;

/// Why a server does not start. Each is one message for the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartupError {
    /// The gate decides by policies.
    #[error("the configuration has no `policies`: the gate needs the folder or file with the policies")]
    NoPolicies,
    /// The store stands in front of a registry.
    #[error(
        "the configuration has no `gateway`: the store needs gateway.registry, the registry that it stands in front of"
    )]
    NoGateway,
    /// The policies can't be used.
    #[error(transparent)]
    Policy(#[from] PolicyLoadError),
    /// The registries can't be asked as configured.
    #[error(transparent)]
    Registries(#[from] SetupError),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It can't listen there.
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
        /// Which.
        what: &'static str,
        /// Why.
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
