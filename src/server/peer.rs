//! The peer of a connection, to which limits and quotas apply.

use std::net::{IpAddr, Ipv6Addr};

/// The peer of a connection: an IPv4 address, or the first 64 bits of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer(IpAddr);

impl Peer {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            // A customer gets a network of at least this size, and one host can have all its addresses.
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
            address @ IpAddr::V4(_) => address,
        })
    }

    /// Returns the address, or the first one of the network.
    pub(crate) fn address(self) -> IpAddr {
        self.0
    }
}
