//! The address of a client, also behind trusted proxies.

use std::net::{IpAddr, SocketAddr};

use actix_web::HttpRequest;

use crate::configuration::Network;
use crate::gateway::headers::is_about_the_way;

/// Determines the addresses of clients.
pub(super) struct ClientAddresses {
    trusted_proxies: Vec<Network>,
}

impl ClientAddresses {
    /// Makes one that trusts these proxies.
    pub(super) fn new(trusted_proxies: Vec<Network>) -> Self {
        Self { trusted_proxies }
    }

    /// Returns the trusted proxies.
    pub(super) fn trusted_proxies(&self) -> &[Network] {
        &self.trusted_proxies
    }

    /// Returns the address of the client: the peer of the connection, or the client that a trusted proxy names.
    pub(super) fn client_address(&self, request: &HttpRequest) -> Option<IpAddr> {
        let peer = request.peer_addr()?.ip().to_canonical();
        let fields = request.headers().get_all("x-forwarded-for");
        Some(self.behind(peer, fields.flat_map(|field| field.as_bytes().split(|&byte| byte == b',')).collect()))
    }

    /// Follows a request back to its client. Each proxy appends the address of its peer. The addresses that trusted
    /// proxies appended count, from the end back to the first that is malformed, and none before it.
    fn behind(&self, mut peer: IpAddr, path: Vec<&[u8]>) -> IpAddr {
        for piece in path.into_iter().rev() {
            match address_of(piece) {
                Some(address) if self.is_trusted(peer) => peer = address,
                _ => break,
            }
        }
        peer
    }

    /// Returns whether a request comes over a connection of a trusted proxy.
    pub(super) fn is_of_trusted_proxy(&self, request: &HttpRequest) -> bool {
        request.peer_addr().is_some_and(|peer| self.is_trusted(peer.ip()))
    }

    fn is_trusted(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(peer))
    }
}

/// Returns whether a proxy, trusted or not, forwarded the request. A proxy that adds no field is not detected.
pub(super) fn is_forwarded(request: &HttpRequest) -> bool {
    request.headers().keys().any(|name| is_about_the_way(name.as_str()) || name.as_str() == "via")
}

/// Parses one address of `X-Forwarded-For`.
fn address_of(piece: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(piece).ok()?.trim();
    let address = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    Some(address.ok()?.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_a_proxy_passed_on_says_so() {
        use actix_web::test::TestRequest;
        let request = |name: &str| TestRequest::default().insert_header((name, "x")).to_http_request();
        for name in ["x-forwarded-for", "x-forwarded-host", "forwarded", "via"] {
            assert!(is_forwarded(&request(name)), "{name}");
        }
        assert!(!is_forwarded(&request("accept")));
    }

    #[test]
    fn a_trusted_proxy_is_the_peer_of_the_connection() {
        use actix_web::test::TestRequest;
        let networks = vec![Network::parse("10.0.0.0/8").unwrap()];
        let addresses = ClientAddresses::new(networks.clone());
        assert_eq!(addresses.trusted_proxies(), networks);
        for (peer, trusted) in [([10, 0, 0, 1], true), ([192, 0, 2, 1], false)] {
            let request = TestRequest::default().peer_addr((peer, 1).into());
            let request = request.insert_header(("x-forwarded-for", "198.51.100.1, 198.51.100.2")).to_http_request();
            assert_eq!(addresses.is_of_trusted_proxy(&request), trusted);
            let client = if trusted { [198, 51, 100, 2] } else { peer };
            assert_eq!(addresses.client_address(&request), Some(client.into()));
        }
    }

    #[test]
    fn a_peer_is_who_the_nearest_trusted_proxy_has_its_request_from() {
        let addresses = |trusted: &[&str]| {
            ClientAddresses::new(trusted.iter().map(|network| Network::parse(network).unwrap()).collect())
        };
        let proxies = addresses(&["10.0.0.0/8", "fd00::1"]);
        for (addresses, peer, path, expected) in [
            (&addresses(&[]), "10.0.0.1", b"192.0.2.1".as_slice(), "10.0.0.1"),
            (&proxies, "192.0.2.9", b"192.0.2.1", "192.0.2.9"),
            (&proxies, "10.0.0.1", b"", "10.0.0.1"),
            (&proxies, "10.0.0.1", b"192.0.2.1", "192.0.2.1"),
            (&proxies, "10.0.0.1", b"198.51.100.1, 192.0.2.1:4711", "192.0.2.1"),
            (&proxies, "10.0.0.1", b"192.0.2.1, fd00::1 , 10.1.1.1", "192.0.2.1"),
            (&proxies, "10.0.0.1", b"192.0.2.1, unknown", "10.0.0.1"),
            (&proxies, "10.0.0.1", b"10.0.0.2", "10.0.0.2"),
            // A client that sends what can't be read hides nothing of what was added behind it.
            (&proxies, "10.0.0.1", b"\xff, 192.0.2.1", "192.0.2.1"),
            (&proxies, "10.0.0.1", b"198.51.100.1, \xff, 10.0.0.2", "10.0.0.2"),
        ] {
            let peer = addresses.behind(peer.parse().unwrap(), path.split(|&byte| byte == b',').collect());
            assert_eq!(peer, expected.parse::<IpAddr>().unwrap(), "{}", String::from_utf8_lossy(path));
        }
    }
}
