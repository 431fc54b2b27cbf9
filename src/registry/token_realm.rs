//! The token realms that may get credentials.

use url::Url;

use super::remote_server::RemoteServer;

/// The token realms of well-known registries outside the registry's own domain.
const KNOWN: [(&str, &str); 4] = [
    ("docker.io", "auth.docker.io"),
    ("registry.redhat.io", "sso.redhat.com"),
    ("registry.access.redhat.com", "sso.redhat.com"),
    ("registry.connect.redhat.com", "sso.redhat.com"),
];

/// Returns whether credentials may go to a realm.
///
/// A realm is trusted if it is one of `tokenRealms` (scheme, host and port), a well-known one, or of the registry's own
/// host or domain. The latter are the same host on any port, a host below it, and a host below the registry's parent
/// domain. A parent domain has at least two labels, and is not of the kind `co.uk`: two labels, of which the last has
/// two letters and the first at most three.
pub(super) fn is_trusted(realm: &Url, base: &Url, remote: &RemoteServer) -> bool {
    let settings = &remote.settings;
    if settings.token_realms.iter().any(|url| url.origin() == realm.origin()) {
        return true;
    }
    // `insecure` applies to the registry; a realm on another host must use https.
    let (Some(realm_host), Some(own)) = (realm.host_str(), base.host_str()) else { return false };
    if realm_host == own {
        return true;
    }
    if realm.scheme() != "https" || realm.port().is_some() {
        return false;
    }
    if KNOWN.iter().any(|(registry, host)| *registry == &*remote.registry && *host == realm_host) {
        return true;
    }
    let (Some(url::Host::Domain(realm_host)), Some(url::Host::Domain(own))) = (realm.host(), base.host()) else {
        return false;
    };
    let below = |domain: &str| realm_host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if own.contains('.') && below(own) {
        return true;
    }
    own.split_once('.').is_some_and(|(_, parent)| is_own_domain(parent) && (realm_host == parent || below(parent)))
}

fn is_own_domain(domain: &str) -> bool {
    match domain.split('.').collect::<Vec<_>>()[..] {
        [] | [_] => false,
        [second, top] => top.len() != 2 || second.len() > 3,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Repository;
    use crate::registry::target::Target;

    fn trusted(registry: &str, realm: &str) -> bool {
        let target = Target::for_tests(&Repository::parse(&format!("{registry}/acme/web")).unwrap(), &[]);
        is_trusted(&Url::parse(realm).unwrap(), &target.base, &target.remote)
    }

    #[test]
    fn credentials_go_to_the_registrys_own_host_or_domain_only() {
        for (registry, realm) in [
            ("registry.example.com", "https://registry.example.com/token"),
            ("registry.example.com:5000", "https://registry.example.com:5001/auth"),
            ("registry.example.com", "https://auth.example.com/token"),
            ("registry.example.com", "https://example.com/token"),
            ("registry.example.com", "https://a.b.example.com/token"),
            ("example.com", "https://auth.example.com/token"),
            ("registry.acme.co.uk", "https://auth.acme.co.uk/token"),
            ("nginx.example.com", "https://login.nginx.example.com/"),
            ("docker.io", "https://auth.docker.io/token"),
            ("registry.redhat.io", "https://sso.redhat.com/auth"),
            ("10.0.0.1", "https://10.0.0.1:444/token"),
        ] {
            assert!(trusted(registry, realm), "{registry} {realm}");
        }
        for (registry, realm) in [
            ("registry.example.com", "https://auth.example.org/token"),
            ("registry.example.com", "https://auth.evilexample.com/token"),
            ("registry.example.com", "https://example.com.evil.org/token"),
            ("registry.example.com", "http://auth.example.com/token"),
            ("registry.example.com", "https://auth.example.com:8443/token"),
            ("example.com", "https://evil.com/token"),
            ("acme.co.uk", "https://evil.co.uk/token"),
            ("acme.com.au", "https://evil.com.au/token"),
            ("localhost", "https://evil.localhost/token"),
            ("10.0.0.1", "https://11.0.0.1/token"),
            ("registry.redhat.io", "https://auth.docker.io/token"),
        ] {
            assert!(!trusted(registry, realm), "{registry} {realm}");
        }
    }

    #[test]
    fn a_realm_of_the_configuration_is_trusted_by_its_origin() {
        let realms = [Url::parse("https://login.example.org").unwrap()];
        let target = Target::for_tests(&Repository::parse("registry.example.com/x").unwrap(), &realms);
        let trusted = |realm: &str| is_trusted(&Url::parse(realm).unwrap(), &target.base, &target.remote);
        assert!(trusted("https://login.example.org/any/path?x=y"));
        assert!(!trusted("https://login.example.org:444/"));
        assert!(!trusted("http://login.example.org/"));
    }
}
