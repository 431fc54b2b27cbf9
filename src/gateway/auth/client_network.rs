//! The network of a client, by which fair queues identify clients.

use std::net::IpAddr;

/// The network of a client: an IPv4 address, or the IPv6 network of one customer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientNetwork(pub(super) Option<IpAddr>);

impl ClientNetwork {
    /// Returns the network of an address; `None` if the address is unknown.
    pub fn of(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| crate::server::Peer::of(address).address()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_of_one_customer_are_one_peer() {
        let peer = |text: &str| ClientNetwork::of(Some(text.parse().unwrap()));
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
    }
}
