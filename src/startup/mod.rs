//! Puts the parts together; nothing else does.

mod certificates;
mod gate;
mod signals;
mod store;

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

pub use gate::{engine, serve, validate_gate};
pub use store::{gateway, validate_store};

use crate::configuration::Configuration;
use crate::files::PolicyLoadError;
use crate::gateway::GatewayError;
use crate::registry::SetupError;
use crate::tls::TlsError;

/// Why a server does not start. Each is one clear message for whoever starts it.
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
        /// What the system says.
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

/// What to do where the system refuses an address.
fn hint(kind: io::ErrorKind) -> &'static str {
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

fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, StartupError> {
    TcpListener::bind(address).map_err(|source| StartupError::Listen { what, address, source })
}

/// The address that a listener got; it differs from the configured one where that has the port 0.
fn address_of(listener: &TcpListener, configured: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(configured)
}

/// The registry requests of a review begin and end within its deadline: this much before it, so that what one source found
/// still counts where another hangs.
fn time_for_lookups(configuration: &Configuration) -> std::time::Duration {
    configuration.webhook.deadline.mul_f64(0.9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: SocketAddr) -> String {
        listen("webhook.listen", address).expect_err("it is refused").to_string()
    }

    #[test]
    fn an_address_that_is_refused_says_what_to_do_for_its_own_reason() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = refused(taken.local_addr().unwrap());
        assert!(text.starts_with("webhook.listen 127.0.0.1:") && text.contains("another program"), "{text}");
        // Of a block for documentation (RFC 5737).
        let text = refused("203.0.113.1:0".parse().unwrap());
        assert!(text.contains("no such address") && !text.contains("another program"), "{text}");
        assert!(hint(io::ErrorKind::PermissionDenied).contains("1024"));
        assert_eq!(hint(io::ErrorKind::OutOfMemory), "");
    }
}
