//! Hosts of registries, `host[:port]`, with one canonical spelling for each address.
//!
//! Every host that is compared (image references, scopes, mirrors, credentials, URLs) is read here. Two spellings of one
//! address must become equal: the connection goes to the address, whatever the spelling that a rule was looked up by.

use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Docker Hub's canonical host.
pub(crate) const DOCKER_HUB: &str = "docker.io";
/// Other hosts under which Docker Hub's images are known.
const DOCKER_HUB_ALIASES: [&str; 3] = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// Why a text is not `host[:port]`. The text itself is not repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The host is not one.
    #[error("the host must be a DNS name or an IP address, an IPv6 address in brackets")]
    Name,
    /// The host ends in a number, and is no IPv4 address in its one spelling: readers differ in which address it is.
    #[error(
        "a host that ends in a number must be an IPv4 address of four decimal numbers without leading zeros (192.0.2.1)"
    )]
    Number,
    /// The port is not a number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
}

/// Returns whether the part before the first slash of a name is a host and not a namespace on Docker Hub, whatever its
/// case: it has a dot or a colon, or is `localhost`.
pub(super) fn looks_like_host(text: &str) -> bool {
    text.contains(['.', ':']) || text.eq_ignore_ascii_case("localhost")
}

/// Returns the host without the default port, if it is still a host when it is read again: `registry/x` would be on Docker
/// Hub.
fn on_https_port(host: String) -> String {
    if looks_like_host(&host) { host } else { format!("{host}:443") }
}

/// Returns `host[:port]` of a URL as references have it. Returns `None` for plain HTTP on HTTPS's port, which no reference
/// can tell from HTTPS.
///
/// A host that no reference can have (an underscore in it, a dot at its end) stays as the URL has it, and equals none that
/// one can have.
pub(crate) fn host_of(url: &Url) -> Option<String> {
    let host = match url.host()? {
        Host::Domain(name) => name.to_ascii_lowercase(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => ipv6(address),
    };
    match (url.scheme(), url.port_or_known_default()?) {
        ("https", 443) => Some(on_https_port(host)),
        (_, 443) => None,
        (_, port) => Some(format!("{host}:{port}")),
    }
}

/// Checks `host[:port]` and makes it canonical: lower case, `:443` only behind a single label, Docker Hub's one name, IPv6
/// addresses in their shortest form, and those that stand for an IPv4 address (RFC 4291, section 2.5.5.2) as that address.
///
/// A URL that is made of a canonical host has that host, letter for letter.
pub(crate) fn canonical_host(text: &str) -> Result<String, HostError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or(HostError::Name)?;
            let address: Ipv6Addr = address.parse().map_err(|_| HostError::Name)?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port),
                None if after.is_empty() => None,
                None => return Err(HostError::Name),
            };
            (ipv6(address), port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (name_or_ipv4(host)?, Some(port)),
            None => (name_or_ipv4(text)?, None),
        },
    };
    let port = match port {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse::<u16>().ok().filter(|&port| port > 0).ok_or(HostError::Port)?)
        }
        Some(_) => return Err(HostError::Port),
        None => None,
    };
    Ok(match port {
        None | Some(443) if DOCKER_HUB_ALIASES.contains(&host.as_str()) => DOCKER_HUB.to_owned(),
        None | Some(443) => on_https_port(host),
        Some(port) => format!("{host}:{port}"),
    })
}

/// The canonical text of an IPv6 address. The kernel connects to `::ffff:10.0.0.5` over IPv4: it is 10.0.0.5.
fn ipv6(address: Ipv6Addr) -> String {
    match address.to_ipv4_mapped() {
        Some(address) => address.to_string(),
        None => format!("[{address}]"),
    }
}

fn name_or_ipv4(text: &str) -> Result<String, HostError> {
    if ends_in_a_number(text) {
        // Resolvers take `10.5`, `0xa.0.0.5` and `012.0.0.5` for addresses, too, and not all of them for the same.
        return text.parse::<Ipv4Addr>().map(|address| address.to_string()).map_err(|_| HostError::Number);
    }
    domain(text)
}

/// Checks what stands behind `*.`: a domain, or the last one to three numbers of an IPv4 address, as containers/image takes
/// them.
pub(super) fn domain_of_subdomains(text: &str) -> Result<String, HostError> {
    let numbers = text.split('.').count();
    // In front of them stand the numbers that the star is for.
    if (1..=3).contains(&numbers) && format!("{}{text}", "0.".repeat(4 - numbers)).parse::<Ipv4Addr>().is_ok() {
        return Ok(text.to_owned());
    }
    domain(text)
}

/// Checks a DNS name, and makes it lower case.
fn domain(text: &str) -> Result<String, HostError> {
    if ends_in_a_number(text) {
        return Err(HostError::Number);
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !text.split('.').all(label) {
        return Err(HostError::Name);
    }
    let name = text.to_ascii_lowercase();
    // Some names in Punycode are not what they decode to, and some decode to nothing: no URL can have them.
    match Host::parse(&name) {
        Ok(Host::Domain(same)) if same == name => Ok(name),
        _ => Err(HostError::Name),
    }
}

/// Returns whether readers of URLs take a host for an IPv4 address, well-formed or not (URL standard, "ends in a number
/// checker").
fn ends_in_a_number(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or(host);
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn in_a_url(host: &str) -> Option<String> {
        host_of(&Url::parse(&format!("https://{host}/v2/")).ok()?)
    }

    #[test]
    fn spellings_of_one_address_become_one() {
        for (canonical, spellings) in [
            (
                "10.0.0.5:5000",
                &[
                    "[::ffff:10.0.0.5]:5000",
                    "[::FFFF:10.0.0.5]:05000",
                    "[::ffff:a00:5]:5000",
                    "[0:0:0:0:0:ffff:0a00:0005]:5000",
                    "[0000:0000:0000:0000:0000:FFFF:10.0.0.5]:5000",
                ][..],
            ),
            ("10.0.0.5", &["[::ffff:10.0.0.5]", "[::ffff:10.0.0.5]:443", "10.0.0.5:443", "10.0.0.5:0443"]),
            ("[::1]", &["[0:0:0:0:0:0:0:1]", "[0::1]:443", "[::0.0.0.1]", "[0000::0001]"]),
            // Not mapped: to the kernel these are other addresses than 10.0.0.5.
            ("[::a00:5]:80", &["[::10.0.0.5]:80", "[::0A00:0005]:080"]),
            ("[64:ff9b::a00:5]:80", &["[64:ff9b::10.0.0.5]:80", "[64:FF9B:0:0:0:0:a00:5]:80"]),
            ("[2001:db8::1:0:0:1]:5000", &["[2001:DB8:0:0:1:0:0:1]:5000", "[2001:db8::1:0:0:1]:5000"]),
            ("[2001:db8:0:1:1:1:1:1]", &["[2001:0db8::1:1:1:1:1]", "[2001:db8:0:1:1:1:1:1]:443"]),
            ("r.example.com", &["R.Example.COM", "r.example.com:443", "r.example.com:00443"]),
            ("r.example.com:80", &["R.example.com:80", "r.example.com:080"]),
            ("registry:443", &["Registry", "registry:0443"]),
            ("localhost", &["LOCALHOST", "localhost:443"]),
            ("docker.io", &["index.docker.io", "Registry-1.Docker.IO:443", "registry.hub.docker.com"]),
            ("xn--mnchen-3ya.example.com", &["XN--MNCHEN-3YA.example.com"]),
            ("0x.example.com", &["0X.example.com"]),
            ("1.2.3.4.example.com", &["1.2.3.4.Example.com"]),
            ("r.0xg", &["r.0XG"]),
        ] {
            for spelling in spellings.iter().chain([&canonical]) {
                assert_eq!(canonical_host(spelling).as_deref(), Ok(canonical), "{spelling}");
            }
            assert_eq!(in_a_url(canonical).as_deref(), Some(canonical));
        }
    }

    #[test]
    fn a_host_that_ends_in_a_number_is_an_address_in_its_one_spelling_or_none() {
        for host in [
            "10.0.5",
            "10.5",
            "0xa.0.0.5",
            "0xA000005",
            "0XA.0X0.0.0x5",
            "167772165",
            "010.0.0.5",
            "10.0.0.05",
            "012.0.0.5",
            "10.0.0.0x5",
            "10.0.0.0x",
            "10.0.0.5.",
            "167772165.",
            "0xa000005.",
            "10.0.0.256",
            "10.0.0.0.5",
            "256.1",
            "1.2.3.08",
            "r.example.5",
            "r.example.0x",
            "r.example.0xff",
            "99999999999999999999",
        ] {
            for text in [host.to_owned(), format!("{host}:5000"), format!("{host}:443")] {
                assert_eq!(canonical_host(&text), Err(HostError::Number), "{text}");
            }
        }
    }

    #[test]
    fn what_no_url_would_lead_to_as_it_is_written_is_no_host() {
        for host in [
            "[::1]junk",
            "[::1]5000",
            "[::1]]",
            "[[::1]]",
            "[::1",
            "::1",
            "[]",
            "[10.0.0.5]",
            "[::ffff:10.0.5]",
            "[::ffff:10.0.0.05]",
            "[fe80::1%eth0]",
            "[fe80::1%25eth0]",
            "[00001::1]",
            "[v1.fe80::a]",
            "r.example.com.",
            "localhost.",
            "r..example.com",
            ".example.com",
            "r_1.example.com",
            "r.example.com%00",
            "%72.example.com",
            "r.ex%61mple.com",
            "münchen.example.com",
            "ｒ.example.com",
            "r。example.com",
            "10。0。0。5",
            "10.0.0.①",
            "xn--a.example.com",
            "xn--.example.com",
            "r.example.com\u{ad}",
            "r.example.com\t",
            " r.example.com",
            "user@r.example.com",
            "r.example.com?x",
            "r.example.com#x",
            "r\\example.com",
            "",
        ] {
            assert_eq!(canonical_host(host), Err(HostError::Name), "{host}");
        }
        for port in ["r.example.com:", "r.example.com:0", "r.example.com:65536", "[::1]:", "[::1]:x", "10.0.0.5:５"] {
            assert_eq!(canonical_host(port), Err(HostError::Port), "{port}");
        }
    }

    #[test]
    fn a_url_s_host_is_the_one_that_references_have() {
        for (url, host) in [
            ("http://[::ffff:10.0.0.5]:5000/x", Some("10.0.0.5:5000")),
            ("https://[::FFFF:a00:5]/", Some("10.0.0.5")),
            ("https://0xa.5/", Some("10.0.0.5")),
            ("https://[0:0::1]:443/", Some("[::1]")),
            ("https://R.example.com:443/", Some("r.example.com")),
            ("http://r.example.com:443/", None),
            ("file:///x", None),
        ] {
            assert_eq!(host_of(&Url::parse(url).unwrap()).as_deref(), host, "{url}");
        }
    }

    /// Texts that are hosts, or nearly.
    fn hosts() -> impl Strategy<Value = String> {
        let label = "[a-zA-Z0-9-]{1,4}|xn--[a-z0-9-]{0,6}|[0-9]{1,4}|0[xX][0-9a-fA-F]{0,3}|[a-z]";
        let name = prop::collection::vec(label, 1..5).prop_map(|labels| labels.join("."));
        let v6 = any::<[u16; 8]>().prop_map(|segments| Ipv6Addr::from(segments).to_string());
        let sparse = prop::array::uniform8(prop::option::of(any::<u16>()))
            .prop_map(|segments| segments.map(|segment| format!("{:04X}", segment.unwrap_or_default())).join(":"));
        let mapped = any::<[u8; 4]>().prop_map(|octets| format!("::ffff:{}", Ipv4Addr::from(octets)));
        let bracketed = prop_oneof![v6, sparse, mapped].prop_map(|address| format!("[{address}]"));
        let v4 = any::<[u8; 4]>().prop_map(|octets| Ipv4Addr::from(octets).to_string());
        let host = prop_oneof![3 => name, 1 => bracketed, 1 => v4, 1 => "[a-z0-9.:%_\\[\\]-]{0,20}"];
        (host, prop_oneof![Just(""), Just("."), Just(":443"), Just(":0443"), Just(":80"), Just(":5000")])
            .prop_map(|(host, rest)| host + rest)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_canonical_host_is_itself_and_that_of_its_url(text in hosts()) {
            if let Ok(canonical) = canonical_host(&text) {
                prop_assert_eq!(canonical_host(&canonical), Ok(canonical.clone()));
                prop_assert_eq!(in_a_url(&canonical), Some(canonical));
            }
        }

        #[test]
        fn what_a_url_is_dialled_at_is_what_the_canonical_host_says(text in hosts()) {
            // Readers of URLs are laxer. What they make of a host that is taken here must be that host.
            if let (Ok(canonical), Some(dialled)) = (canonical_host(&text), in_a_url(&text)) {
                prop_assert_eq!(canonical_host(&dialled), Ok(canonical));
            }
        }
    }
}
