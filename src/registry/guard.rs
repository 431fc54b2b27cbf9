//! The dial guard: hosts that nobody named are dialled at public addresses only.
//!
//! Whoever may create pods chooses image names, and a registry chooses where it redirects to. Without this, both could
//! make the gate knock at addresses inside the cluster. The check is made on the addresses that are then dialled, after
//! name resolution, so that a name whose answer changes in between gains nothing.

use std::{
    collections::HashSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;
use url::{Host, Url};

use crate::gate::CurrentPolicy;
pub(crate) use crate::image::host::host_of;
use crate::image::{Scope, scope::domains_above};
use crate::policy::{Layer, Policy};

/// The longest that a name's resolution may take.
const LOOKUP: Duration = Duration::from_secs(5);
/// Look-ups at once. Each holds a thread until the system's resolver gives up, even when nobody waits any longer.
const LOOKUPS_AT_ONCE: usize = 32;
/// Addresses of one name that are tried.
const ADDRESSES: usize = 8;

/// Knows which hosts somebody named who may: those may have private addresses.
pub trait NamesHosts: Send + Sync {
    /// Whether `host[:port]` (canonical: lower case, without `:443`) is named.
    fn names(&self, host: &str) -> bool;
}

impl<F: Fn(&str) -> bool + Send + Sync> NamesHosts for F {
    fn names(&self, host: &str) -> bool {
        self(host)
    }
}

/// Hosts, and domains that stand for all hosts below them, on any port.
#[derive(Clone, Debug, Default)]
pub struct HostSet {
    hosts: HashSet<Box<str>>,
    domains: HashSet<Box<str>>,
}

impl HostSet {
    /// Adds the hosts that a scope names; `*` names none.
    pub fn add_scope(&mut self, scope: &Scope) {
        match scope {
            Scope::Everything => {}
            Scope::Subdomains(domain) => {
                self.domains.insert(domain.clone());
            }
            Scope::Prefix(prefix) => self.add_prefix(prefix),
            Scope::Tag(repository, _) | Scope::Digest(repository, _) => self.add_host(repository.host()),
        }
    }

    /// Adds the host of `host[:port][/path]`.
    pub fn add_prefix(&mut self, prefix: &str) {
        self.add_host(prefix.split_once('/').map_or(prefix, |(host, _)| host));
    }

    /// Adds `host[:port]`.
    pub fn add_host(&mut self, host: &str) {
        self.hosts.insert(host.into());
    }

    /// Adds the host of a URL.
    pub fn add_url(&mut self, url: &Url) {
        if let Some(host) = host_of(url) {
            self.add_host(&host);
        }
    }

    fn add_layer(&mut self, layer: &Layer) {
        for (scope, _) in layer.rules.iter() {
            self.add_scope(&scope);
        }
    }

    /// The hosts that the rules of a policy name.
    pub fn of_policy(policy: &Policy) -> Self {
        let mut hosts = Self::default();
        hosts.add_layer(&policy.cluster);
        policy.namespaces.values().for_each(|layer| hosts.add_layer(layer));
        hosts
    }
}

impl NamesHosts for HostSet {
    fn names(&self, host: &str) -> bool {
        self.hosts.contains(host)
            || !self.domains.is_empty() && domains_above(host).any(|domain| self.domains.contains(domain))
    }
}

/// The hosts that the policy in force names, whatever it is replaced by.
pub struct PolicyHosts {
    policy: Arc<CurrentPolicy>,
    /// The generation that the set is of.
    of: Mutex<Option<(u64, Arc<HostSet>)>>,
}

impl PolicyHosts {
    /// Follows this policy.
    pub fn new(policy: Arc<CurrentPolicy>) -> Self {
        Self { policy, of: Mutex::new(None) }
    }
}

impl NamesHosts for PolicyHosts {
    fn names(&self, host: &str) -> bool {
        let loaded = self.policy.get();
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let hosts = match &*of {
            Some((generation, hosts)) if *generation == loaded.generation => Arc::clone(hosts),
            _ => {
                let hosts = Arc::new(HostSet::of_policy(&loaded.policy));
                *of = Some((loaded.generation, Arc::clone(&hosts)));
                hosts
            }
        };
        drop(of);
        hosts.names(host)
    }
}

/// Whether a URL's host is an address that is not public. A name is only known once it is resolved.
pub(crate) fn is_inner_literal(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => !is_public(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => !is_public(IpAddr::V6(address)),
        Some(Host::Domain(_)) => false,
        None => true,
    }
}

/// Whether an address is one of the public Internet (IANA special-purpose registries), so that whoever named it could as
/// well have dialled it without us.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    // A public address where Azure's machines find their platform: host agent, DNS, health probes.
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
            | (192, 88, 99)                 // 6to4 relays.
            | (198, 18..=19, _)             // Benchmarks.
            | (198, 51, 100)                // Documentation.
            | (203, 0, 113) // Documentation.
        )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // Only 2000::/3 is assigned to the Internet. That leaves out loopback, link-local, unique local, multicast, and the
    // addresses that carry an IPv4 address: mapped (::ffff:0:0/96) and NAT64 (64:ff9b::/96, 64:ff9b:1::/48).
    let segments = address.segments();
    let global = segments[0] & 0xe000 == 0x2000;
    let special = match (segments[0], segments[1]) {
        (0x2001, second) => second < 0x0200 || second == 0x0db8, // Protocol assignments (Teredo too), documentation.
        (0x2002, _) => true,                                     // 6to4: carries an IPv4 address.
        (0x3fff, second) => second < 0x1000,                     // Documentation.
        _ => false,
    };
    global && !special
}

/// A name has no address that may be dialled.
#[derive(Debug)]
pub(crate) struct NotPublic;

/// The system's resolver could not be asked, or was too slow.
#[derive(Debug)]
pub(crate) struct LookupFailed;

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name has no public address")
    }
}

impl std::error::Error for NotPublic {}

impl fmt::Display for LookupFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name can't be resolved")
    }
}

impl std::error::Error for LookupFailed {}

/// The system's resolver, bounded; on guard, it gives out public addresses only.
pub(crate) struct Resolver {
    on_guard: bool,
    lookups: Arc<Semaphore>,
}

impl Resolver {
    pub(crate) fn new(on_guard: bool) -> Self {
        Self { on_guard, lookups: Arc::new(Semaphore::new(LOOKUPS_AT_ONCE)) }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (on_guard, lookups) = (self.on_guard, Arc::clone(&self.lookups));
        Box::pin(async move {
            let look_up = async {
                let permit = lookups.acquire_owned().await.map_err(|_| LookupFailed)?;
                let look_up = tokio::task::spawn_blocking(move || {
                    let found = (name.as_str(), 0).to_socket_addrs();
                    drop(permit);
                    found.map(|addresses| addresses.take(64).collect::<Vec<SocketAddr>>())
                });
                look_up.await.map_err(|_| LookupFailed)?.map_err(|_| LookupFailed)
            };
            let mut addresses = tokio::time::timeout(LOOKUP, look_up).await.map_err(|_| LookupFailed)??;
            if on_guard {
                addresses.retain(|address| is_public(address.ip()));
                if addresses.is_empty() {
                    return Err(NotPublic.into());
                }
            }
            addresses.truncate(ADDRESSES);
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(scopes: &[&str]) -> HostSet {
        let mut set = HostSet::default();
        for scope in scopes {
            set.add_scope(&Scope::parse(scope).unwrap());
        }
        set
    }

    #[test]
    fn inner_addresses_in_every_disguise_are_not_public() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.168.1.1",
            "168.63.129.16",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "100::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "168.63.129.15",
            "100.63.0.1",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "2a00:1450:4001::1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
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

    #[test]
    fn a_rule_names_its_host_and_port_but_a_star_names_nothing() {
        let digest = format!("digest.example.com/a@sha256:{}", "0".repeat(64));
        let scopes = ["*", "registry.example.com/acme", "inner.example.com:5000", "*.corp.example.com", &digest];
        let mut set = set(&scopes);
        set.add_scope(&Scope::parse_with_tag("tag.example.com/a:1").unwrap());
        for host in [
            "registry.example.com",
            "inner.example.com:5000",
            "a.corp.example.com",
            "a.b.corp.example.com:5000",
            "digest.example.com",
            "tag.example.com",
        ] {
            assert!(set.names(host), "{host}");
        }
        for host in [
            "registry.example.com:5000",
            "registry.example.co",
            "inner.example.com",
            "corp.example.com",
            "evilcorp.example.com",
            "127.0.0.1:5000",
            "[::1]",
        ] {
            assert!(!set.names(host), "{host}");
        }
    }

    #[test]
    fn a_new_policy_names_other_hosts_at_once() {
        let policy = Arc::new(CurrentPolicy::new(Policy::default()));
        let hosts = PolicyHosts::new(Arc::clone(&policy));
        assert!(!hosts.names("registry.example.com"));
        let mut next = Policy::default();
        let rule = crate::policy::Rule {
            id: crate::policy::RuleId::new("p", "r"),
            mode: None,
            action: crate::policy::Action::Deny { reason: "no".into() },
        };
        next.cluster.rules.insert(Scope::parse("registry.example.com").unwrap(), Arc::new(rule)).unwrap();
        policy.replace(next);
        assert!(hosts.names("registry.example.com"));
    }

    #[tokio::test]
    async fn on_guard_a_name_that_leads_inside_is_not_resolved() {
        let name = || "localhost".parse::<Name>().unwrap();
        assert!(Resolver::new(false).resolve(name()).await.is_ok());
        let Err(error) = Resolver::new(true).resolve(name()).await else { panic!("localhost was given out") };
        assert!(error.is::<NotPublic>());
    }
}
