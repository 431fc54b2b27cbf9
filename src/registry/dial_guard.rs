//! The SSRF guard: hosts that neither a rule nor a registries entry names are dialled at public addresses only.
//!
//! Users who may create pods choose image names, and a registry chooses where it redirects to. Without the guard, both
//! could make the gate connect to addresses inside the cluster. The check is made after name resolution (`resolver`),
//! on the addresses that are dialled, so that an attacker gains nothing by changing a name's addresses (DNS rebinding).
//! `allowed_hosts` has the exempt hosts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Returns whether a URL's host is an IP address that is not public. A name is checked when it is resolved.
pub(crate) fn is_inner_literal(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => !is_public(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => !is_public(IpAddr::V6(address)),
        Some(Host::Domain(_)) => false,
        None => true,
    }
}

/// Returns whether an address is public (IANA special-purpose registries), so that a user who names it could have
/// dialled it without the gate.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    // A public address at which Azure's machines find their platform: host agent, DNS, health probes.
    let azure = [a, b, c, d] == [168, 63, 129, 16];
    !azure
        && !matches!(
            (a, b, c),
            (0 | 10 | 127 | 224.., _, _)        // This network, private, loopback; multicast and reserved.
            | (100, 64..=127, _)            // Carrier-grade NAT.
            | (169, 254, _)                 // Link-local, with clouds' metadata services.
            | (172, 16..=31, _)             // Private.
            | (192, 168, _)                 // Private.
            | (192, 0, 0 | 2)               // Protocol assignments, documentation.
            | (192, 31, 196)                // AS112.
            | (192, 52, 193)                // AMT.
            | (192, 88, 99)                 // 6to4 relays.
            | (192, 175, 48)                // AS112.
            | (198, 18..=19, _)             // Benchmarks.
            | (198, 51, 100)                // Documentation.
            | (203, 0, 113) // Documentation.
        )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Only 2000::/3 is assigned to the Internet. That leaves out loopback, link-local, site-local, unique local, multicast,
    // discard-only (100::/64), segment routing (5f00::/16), and addresses that carry an IPv4 address: compatible (::/96),
    // mapped (::ffff:0:0/96), translated (::ffff:0:0:0/96) and NAT64 (64:ff9b::/96, 64:ff9b:1::/48).
    let segments = address.segments();
    let global = segments[0] & 0xe000 == 0x2000;
    let special = match (segments[0], segments[1], segments[2]) {
        // Protocol assignments (Teredo, ORCHID, AMT and AS112 too), documentation.
        (0x2001, second, _) => second < 0x0200 || second == 0x0db8,
        // Documentation.
        (0x3fff, second, _) => second < 0x1000,
        // 6to4, which carries an IPv4 address; AS112; the 6bone's, given back.
        (0x2002 | 0x3ffe, _, _) | (0x2620, 0x004f, 0x8000) => true,
        _ => false,
    };
    global && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The IANA special-purpose registries (RFC 6890), multicast, what is not assigned, and Azure's platform address: the
    /// first and the last address of each.
    const SPECIAL: &[(&str, &str)] = &[
        ("0.0.0.0", "0.255.255.255"),
        ("10.0.0.0", "10.255.255.255"),
        ("100.64.0.0", "100.127.255.255"),
        ("127.0.0.0", "127.255.255.255"),
        ("168.63.129.16", "168.63.129.16"),
        ("169.254.0.0", "169.254.255.255"),
        ("172.16.0.0", "172.31.255.255"),
        ("192.0.0.0", "192.0.0.255"),
        ("192.0.2.0", "192.0.2.255"),
        ("192.31.196.0", "192.31.196.255"),
        ("192.52.193.0", "192.52.193.255"),
        ("192.88.99.0", "192.88.99.255"),
        ("192.168.0.0", "192.168.255.255"),
        ("192.175.48.0", "192.175.48.255"),
        ("198.18.0.0", "198.19.255.255"),
        ("198.51.100.0", "198.51.100.255"),
        ("203.0.113.0", "203.0.113.255"),
        ("224.0.0.0", "239.255.255.255"),
        ("240.0.0.0", "255.255.255.255"),
        ("::", "::"),
        ("::1", "::1"),
        ("::2", "::ffff:ffff"),
        ("::ffff:0.0.0.0", "::ffff:255.255.255.255"),
        ("::ffff:0:0:0", "::ffff:0:255.255.255.255"),
        ("64:ff9b::", "64:ff9b::ffff:ffff"),
        ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"),
        ("100::", "100::ffff:ffff:ffff:ffff"),
        ("100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff"),
        ("200::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff"),
        ("2001:10::", "2001:2f:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:100::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff"),
        ("3ffe::", "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("4000::", "5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ];

    #[test]
    fn no_special_purpose_address_is_public() {
        for (first, last) in SPECIAL {
            assert!(!is_public(first.parse().unwrap()), "{first}");
            assert!(!is_public(last.parse().unwrap()), "{last}");
        }
    }

    #[test]
    fn addresses_beside_those_of_special_purpose_are_public() {
        for address in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.88.98.255",
            "192.88.100.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2001:200::",
            "2001:db7:ffff::1",
            "2001:db9::1",
            "2003::1",
            "2606:4700::1111",
            "2620:4f:7fff::1",
            "2620:4f:8001::1",
            "2a00:1450:4001::1",
            "3ffd:ffff::1",
            "3fff:1000::1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn an_address_that_carries_an_inner_one_is_not_public() {
        for inner in ["10.0.0.5", "127.0.0.1", "169.254.169.254", "192.168.1.1", "8.8.8.8"] {
            let [a, b, c, d] = inner.parse::<Ipv4Addr>().unwrap().octets().map(u16::from);
            let (high, low) = (a << 8 | b, c << 8 | d);
            for address in [
                format!("::{inner}"),
                format!("::ffff:{inner}"),
                format!("::ffff:0:{inner}"),
                format!("64:ff9b::{inner}"),
                format!("64:ff9b:1::{inner}"),
                format!("2002:{high:x}:{low:x}::1"),
                format!("2001:0:{high:x}:{low:x}::{:x}:{:x}", !high, !low),
            ] {
                assert!(!is_public(address.parse().unwrap()), "{address}");
            }
        }
    }

    #[test]
    fn spellings_of_loopback_in_a_url_are_seen_through() {
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://017700000001/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://0/",
        ] {
            assert!(is_inner_literal(&Url::parse(url).unwrap()), "{url}");
        }
        assert!(!is_inner_literal(&Url::parse("https://registry.example.com/").unwrap()));
    }
}
