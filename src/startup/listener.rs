//! Listening sockets.

use std::net::{SocketAddr, TcpListener};

use super::error::StartupError;

/// Listens on an address. `what` is the setting that names the address.
pub(super) fn listen(what: &'static str, address: SocketAddr) -> Result<TcpListener, StartupError> {
    TcpListener::bind(address).map_err(|source| StartupError::Listen { what, address, source })
}

/// Returns the address that a listener got; with the configured port 0, the system chose the port.
pub(super) fn address_of(listener: &TcpListener, configured: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(configured)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::startup::error::hint;

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
