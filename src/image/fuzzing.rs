//! The entry points of fuzz targets for references. Only there with the feature `fuzzing`.

use url::Url;

use super::{
    Reference, Scope,
    host::{DOCKER_HUB, canonical_host, host_of},
};

/// A canonical host is itself, and that of a URL that is made of it.
///
/// # Panics
/// It is not.
pub fn host(host: &str) {
    assert_eq!(canonical_host(host).as_deref(), Ok(host));
    let url = Url::parse(&format!("https://{host}/v2/")).expect("a canonical host makes a URL");
    assert_eq!(host_of(&url).as_deref(), Some(host));
}

/// Checks that the host of a URL has the spelling by which rules are looked up, if any image can be there.
///
/// # Panics
/// It has another one.
pub fn url(url: &Url) {
    let Some(host) = host_of(url) else { return };
    if let Ok(canonical) = canonical_host(&host) {
        assert!(canonical == host || canonical == DOCKER_HUB, "{url} is at {host}, and images there at {canonical}");
    }
}

/// The host of a reference, and that of the scope for all of its registry, are one. A host without a dot and with a port below 1024
/// (`z:88`) is no scope by itself: it may be meant as an image with a tag.
///
/// # Panics
/// They are not.
pub fn reference(reference: &Reference) {
    let name = reference.repository().host();
    host(name);
    match Scope::parse(name) {
        Ok(scope) => assert_eq!(scope.to_string(), name),
        Err(error) => {
            let port =
                name.split_once(':').and_then(|(name, port)| port.parse::<u16>().ok().filter(|_| !name.contains('.')));
            assert!(port.is_some_and(|port| port < 1024), "{name}: {error}");
        }
    }
}

/// The host of a scope, if it has one.
///
/// # Panics
/// It is not canonical.
pub fn scope(scope: &Scope) {
    match scope {
        Scope::Everything | Scope::Subdomains(_) => {}
        Scope::Prefix(prefix) => host(prefix.split_once('/').map_or(prefix, |(host, _)| host)),
        Scope::Tag(repository, _) | Scope::Digest(repository, _) => host(repository.host()),
    }
}
