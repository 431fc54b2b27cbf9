//! The hosts that the registry client may dial at private addresses.
//!
//! A registries entry allows its host for all requests, redirects and token realms included. A rule that requires
//! signatures allows its host only for requests to that registry. A registry controls where its redirects lead, so the
//! author of one namespace's policy must not open a host to the redirects of all other registries.

use std::collections::HashSet;

use url::Url;

pub(crate) use crate::image::host::host_of;
use crate::image::{Scope, scope::domains_above};

/// Decides which hosts may have private addresses: those that the policy or the configuration names.
pub trait AllowedHosts: Send + Sync {
    /// Returns whether `host[:port]` (canonical: lower case, without `:443`) is named.
    fn allows(&self, host: &str) -> bool;

    /// Returns the domain whose wildcard `*.domain` names a host that has no name of its own. Users who choose image
    /// names control the number of such hosts, so they share one quota.
    fn domain_of<'a>(&self, _host: &'a str) -> Option<&'a str> {
        None
    }
}

impl<F: Fn(&str) -> bool + Send + Sync> AllowedHosts for F {
    fn allows(&self, host: &str) -> bool {
        self(host)
    }
}

/// A set of hosts, and of domains that name all hosts below them on any port.
#[derive(Clone, Debug, Default)]
pub struct HostSet {
    hosts: HashSet<Box<str>>,
    domains: HashSet<Box<str>>,
}

impl HostSet {
    /// Adds the hosts that a scope names. `*` names none.
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
}

impl AllowedHosts for HostSet {
    fn allows(&self, host: &str) -> bool {
        self.hosts.contains(host) || self.domain_of(host).is_some()
    }

    fn domain_of<'a>(&self, host: &'a str) -> Option<&'a str> {
        if self.domains.is_empty() || self.hosts.contains(host) {
            return None;
        }
        domains_above(host).find(|domain| self.domains.contains(*domain))
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
            assert!(set.allows(host), "{host}");
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
            assert!(!set.allows(host), "{host}");
        }
    }

    #[test]
    fn a_host_that_is_named_by_a_domain_alone_is_told_from_others() {
        let set = set(&["*.corp.example.com", "*.example.com", "registry.corp.example.com"]);
        assert_eq!(set.domain_of("registry.corp.example.com"), None);
        assert_eq!(set.domain_of("registry.corp.example.com:5000"), Some("corp.example.com"));
        assert_eq!(set.domain_of("a.b.corp.example.com"), Some("corp.example.com"));
        assert_eq!(set.domain_of("a.example.com"), Some("example.com"));
        assert_eq!(set.domain_of("a.example.org"), None);
    }
}
