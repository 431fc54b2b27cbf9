//! Networks of IP addresses.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

/// A network: all IP addresses with one prefix (CIDR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// The reason why a text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// There is no address.
    #[error("this is not an IP address, or a network like 10.0.0.0/8")]
    Malformed,
    /// The prefix is longer than an address.
    #[error("such an address has {most} bits")]
    Length {
        /// The length of an address, in bits.
        most: u8,
    },
    /// The address has bits behind the prefix, so that the text could mean the address or the network.
    #[error("the address has bits behind the first {}", .0.0.prefix_len())]
    NotFirst(Network),
}

impl NetworkError {
    /// Returns what to write instead.
    pub fn suggestion(self) -> String {
        match self {
            Self::Malformed => "write 10.0.0.1, 10.0.0.0/8, ::1 or fd00::/8; names don't count".to_owned(),
            Self::Length { most } => format!("write a number up to {most} behind the slash"),
            Self::NotFirst(network) => format!("write {network}, or the address alone"),
        }
    }
}

impl Network {
    /// Parses an address, or an address with a prefix length (`192.0.2.0/24`).
    ///
    /// # Errors
    /// The text is neither, or the address has bits behind the prefix.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Malformed)?;
        let whole = IpNet::from(address);
        let network = match length {
            None => whole,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                let network = digits.parse().ok().and_then(|length| IpNet::new(address, length).ok());
                network.ok_or(NetworkError::Length { most: whole.max_prefix_len() })?
            }
            Some(_) => return Err(NetworkError::Malformed),
        };
        let first = network.trunc();
        if first == network { Ok(Self(network)) } else { Err(NetworkError::NotFirst(Self(first))) }
    }

    /// Returns whether the network contains an address. An IPv4-mapped IPv6 address, which a listener for both families
    /// sees, counts as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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
