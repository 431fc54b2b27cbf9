//! Networks of IP addresses.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    length: u8,
}

/// Why a text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// No address.
    #[error("this is not an IP address, or a network like 10.0.0.0/8")]
    Malformed,
    /// More bits than an address has.
    #[error("such an address has {most} bits")]
    Length {
        /// Its bits.
        most: u8,
    },
    /// The address is in the network, and not its first one: which of the two is meant?
    #[error("the address has bits behind the first {}", .0.length)]
    NotFirst(Network),
}

impl NetworkError {
    /// What to write.
    pub fn suggestion(self) -> String {
        match self {
            Self::Malformed => "write 10.0.0.1, 10.0.0.0/8, ::1 or fd00::/8; names don't count".to_owned(),
            Self::Length { most } => format!("write a number up to {most} behind the slash"),
            Self::NotFirst(network) => format!("write {network}, or the address alone"),
        }
    }
}

impl Network {
    /// Parses an address, or an address and a number of bits.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Malformed)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => most,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|&length| length <= most).ok_or(NetworkError::Length { most })?
            }
            Some(_) => return Err(NetworkError::Malformed),
        };
        let network = Self { first: first(address, length), length };
        if network.first == address { Ok(network) } else { Err(NetworkError::NotFirst(network)) }
    }

    /// Whether the address is in it. An IPv4 address that comes in IPv6's clothes, as on a listener for both, is what it
    /// is.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && first(address, self.length) == self.first
    }
}

/// The address with nothing behind its first bits.
fn first(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_what_begins_with_its_bits() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("192.0.2.128/25", "192.0.2.200", "192.0.2.127"),
            ("0.0.0.0/0", "203.0.113.1", "::1"),
            ("::/0", "fd00::1", "10.0.0.1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1", "::1", "127.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:11.0.0.1"),
        ] {
            let parsed = Network::parse(network).unwrap();
            assert!(parsed.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{network} {outside}");
            assert_eq!(Network::parse(&parsed.to_string()).unwrap(), parsed);
        }
    }

    #[test]
    fn what_is_no_network_says_what_to_write() {
        for (text, expected) in [
            ("", "write 10.0.0.1"),
            ("proxy.example.com", "names don't count"),
            ("10.0.0.0/", "write 10.0.0.1"),
            ("10.0.0.0/+8", "write 10.0.0.1"),
            ("10.0.0.0/33", "up to 32"),
            ("::/129", "up to 128"),
            ("::/999", "up to 128"),
            ("10.0.0.1/8", "write 10.0.0.0/8, or the address alone"),
        ] {
            let suggestion = Network::parse(text).unwrap_err().suggestion();
            assert!(suggestion.contains(expected), "{text}: {suggestion}");
        }
    }
}
