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
    /// A setting that nobody would be held to.
    #[error("{0} is not served yet; leave it out, and listen on loopback: everyone who reaches the store may sign")]
    NotServedYet(&'static str),
    /// The policies can't be used.
    #[error(transparent)]
    Policy(#[from] PolicyLoadError),
    /// The registries can't be asked as configured.
    #[error(transparent)]
    Registries(#[from] SetupError),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Another program listens there, or may.
    #[error("{what} {address}: {source}; is another program (or another Sealgate) listening there?")]
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
