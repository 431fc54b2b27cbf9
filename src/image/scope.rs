//! Scopes: what a rule or a registries entry covers.

use std::{collections::HashMap, fmt};

use super::{
    digest::{Digest, DigestError},
    host::{DOCKER_HUB, canonical_host, domain_of_subdomains, looks_like_host},
    reference::{Reference, ReferenceError, Repository, Tag, check_path},
};

/// The images that a rule covers. The derived order is only for printing; [`ScopeMap::get`] decides which scope wins.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// `*`: every image.
    Everything,
    /// `*.example.com`: every host below that domain, on any port. The domain itself is not covered.
    Subdomains(Box<str>),
    /// `host`, `host/namespace` or `host/namespace/repo`: this and all below it, at path boundaries.
    Prefix(Box<str>),
    /// `host/namespace/repo:tag`, known to policy.json alone: a reference with this tag and without a digest.
    Tag(Repository, Tag),
    /// `host/namespace/repo@digest`: this one image.
    Digest(Repository, Digest),
}

/// Why a text is not a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// The text is empty.
    #[error("a scope is expected (*, *.example.com, host, host/namespace, host/namespace/repo or repo@digest)")]
    Empty,
    /// A star stands somewhere else than as `*` or in front as `*.`.
    #[error("a star stands only alone (*) or in front of a domain (*.example.com)")]
    Star,
    /// The first component can't be a host, so no image would ever match.
    #[error("a scope begins with a registry's host; {suggestion:?} may be meant")]
    NoHost {
        /// The scope that the text would name if it were an image: most often on Docker Hub.
        suggestion: String,
    },
    /// A tag: scopes of policy files have none.
    #[error("a scope has no tag, because a tag says nothing about what an image is; use the repository or a digest")]
    HasTag,
    /// The slash at the end.
    #[error("a scope does not end in a slash; it covers everything below it anyway")]
    TrailingSlash,
    /// Some part is malformed.
    #[error(transparent)]
    Part(#[from] ReferenceError),
}

impl From<DigestError> for ScopeError {
    fn from(error: DigestError) -> Self {
        Self::Part(error.into())
    }
}

impl Scope {
    /// Parses a scope as policy files and the configuration have it, and makes it canonical.
    pub fn parse(text: &str) -> Result<Self, ScopeError> {
        match Self::parse_with_tag(text) {
            Ok(Self::Tag(..)) => Err(ScopeError::HasTag),
            Err(ScopeError::NoHost { suggestion }) => {
                Err(ScopeError::NoHost { suggestion: without_tag(&suggestion).unwrap_or(suggestion) })
            }
            result => result,
        }
    }

    /// Parses a scope as policy.json's `docker` transport has it: `repo:tag` too.
    pub fn parse_with_tag(text: &str) -> Result<Self, ScopeError> {
        if text.is_empty() {
            return Err(ScopeError::Empty);
        }
        if text == "*" {
            return Ok(Self::Everything);
        }
        if let Some(below) = text.strip_prefix("*.") {
            if below.contains(['*', '/', ':', '[']) {
                return Err(ScopeError::Star);
            }
            // A domain is no host: `*.internal` has no port, and no other name for it.
            return Ok(Self::Subdomains(domain_of_subdomains(below).map_err(ReferenceError::from)?.into()));
        }
        if text.contains('*') {
            return Err(ScopeError::Star);
        }
        if text.ends_with('/') {
            return Err(ScopeError::TrailingSlash);
        }
        let Some((host, rest)) = text.split_once('/') else {
            if let Some(image) = short_name(text) {
                return Err(ScopeError::NoHost { suggestion: image });
            }
            return Ok(Self::Prefix(host_of_scope(text, text)?.into()));
        };
        let host = host_of_scope(host, text)?;
        if let Some((path, digest)) = rest.split_once('@') {
            if path.contains(':') {
                return Err(ScopeError::HasTag);
            }
            return Ok(Self::Digest(Repository::parse(&format!("{host}/{path}"))?, Digest::parse(digest)?));
        }
        if let Some((path, tag)) = rest.split_once(':') {
            return Ok(Self::Tag(Repository::parse(&format!("{host}/{path}"))?, Tag::parse(tag)?));
        }
        check_path(rest)?;
        Ok(Self::Prefix(format!("{host}/{rest}").into()))
    }
}

/// Checks the host of a scope: one that an image reference could have.
fn host_of_scope(host: &str, scope: &str) -> Result<String, ScopeError> {
    if looks_like_host(host) {
        return Ok(canonical_host(host).map_err(ReferenceError::from)?);
    }
    // In an image, an upper-case letter makes it a host.
    let upper = host.bytes().any(|byte| byte.is_ascii_uppercase());
    if let Some(rest) = scope.strip_prefix(host).filter(|rest| upper && !rest.is_empty()) {
        return Err(ScopeError::NoHost {
            suggestion: format!("{}{rest}", canonical_host(host).map_err(ReferenceError::from)?),
        });
    }
    let path = scope.to_ascii_lowercase();
    let library = if path.contains('/') { "" } else { "library/" };
    let suggestion = format!("{DOCKER_HUB}/{library}{path}");
    // What is no image in any way gets no suggestion.
    Reference::parse(&suggestion)?;
    Err(ScopeError::NoHost { suggestion })
}

/// Returns the long form of `alpine:3` and `nginx@sha256:...`: without a slash they could be a host with a port, and
/// would cover nothing then. A host without a dot has a port that a registry can have.
fn short_name(text: &str) -> Option<String> {
    let (name, rest) = text.split_at(text.find([':', '@'])?);
    if name.contains(['.', '[']) || name.eq_ignore_ascii_case("localhost") {
        return None;
    }
    let port = rest.strip_prefix(':').and_then(|port| port.parse::<u16>().ok());
    if port.is_some_and(|port| matches!(port, 80 | 443) || port >= 1024) {
        return None;
    }
    let image = format!("{DOCKER_HUB}/library/{}{rest}", name.to_ascii_lowercase());
    Reference::parse(&image).is_ok().then_some(image)
}

/// A suggested scope without its tag, if it has one.
fn without_tag(scope: &str) -> Option<String> {
    let (name, digest) = scope.split_at(scope.find('@').unwrap_or(scope.len()));
    let path = name.find('/')?;
    let (name, _) = name.split_at(path + name[path..].find(':')?);
    Some(format!("{name}{digest}"))
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("*"),
            Self::Subdomains(domain) => write!(f, "*.{domain}"),
            Self::Prefix(prefix) => f.write_str(prefix),
            Self::Tag(repository, tag) => write!(f, "{repository}:{tag}"),
            Self::Digest(repository, digest) => write!(f, "{repository}@{digest}"),
        }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One value a scope, found by the most specific scope that covers an image.
///
/// A look-up compares slices of the canonical reference and allocates nothing (but for Docker Hub's short names).
///
/// `docker.io/nginx` is a namespace of Docker Hub, and what people call the image `docker.io/library/nginx`. As a scope it
/// covers both; otherwise a rule for it would silently never decide about that image. [`ScopeMap::literal`] makes a map
/// where it is the namespace alone.
#[derive(Clone, Debug)]
pub struct ScopeMap<T> {
    literal: bool,
    everything: Option<T>,
    subdomains: HashMap<Box<str>, T>,
    prefixes: HashMap<Box<str>, T>,
    tags: HashMap<Repository, Vec<(Tag, T)>>,
    digests: HashMap<Repository, Vec<(Digest, T)>>,
}

impl<T> Default for ScopeMap<T> {
    fn default() -> Self {
        Self {
            literal: false,
            everything: None,
            subdomains: HashMap::new(),
            prefixes: HashMap::new(),
            tags: HashMap::new(),
            digests: HashMap::new(),
        }
    }
}

impl<T> ScopeMap<T> {
    /// A map that matches as containers/image does: Docker Hub's short names are not known.
    pub fn literal() -> Self {
        Self { literal: true, ..Self::default() }
    }

    /// Adds a scope's value.
    ///
    /// # Errors
    /// The scope is there already: gives back the value that was to be added, and leaves the map as it is.
    pub fn insert(&mut self, scope: Scope, value: T) -> Result<(), T> {
        use std::collections::hash_map::Entry;
        match scope {
            Scope::Everything if self.everything.is_none() => {
                self.everything = Some(value);
                Ok(())
            }
            Scope::Everything => Err(value),
            Scope::Subdomains(key) => match self.subdomains.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(value);
                    Ok(())
                }
                Entry::Occupied(_) => Err(value),
            },
            Scope::Prefix(key) => match self.prefixes.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(value);
                    Ok(())
                }
                Entry::Occupied(_) => Err(value),
            },
            Scope::Tag(repository, tag) => add(self.tags.entry(repository).or_default(), tag, value),
            Scope::Digest(repository, digest) => add(self.digests.entry(repository).or_default(), digest, value),
        }
    }

    /// Returns whether there is no scope.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The value of exactly this scope.
    pub fn get_exact(&self, scope: &Scope) -> Option<&T> {
        match scope {
            Scope::Everything => self.everything.as_ref(),
            Scope::Subdomains(domain) => self.subdomains.get(domain),
            Scope::Prefix(prefix) => self.prefixes.get(prefix),
            Scope::Tag(repository, tag) => find(&self.tags, repository, tag),
            Scope::Digest(repository, digest) => find(&self.digests, repository, digest),
        }
    }

    /// The value of the most specific scope that covers the image: its digest, its tag (only where it has no digest), its
    /// repository, each namespace above, its host, each domain above, everything.
    pub fn get(&self, image: &Reference) -> Option<&T> {
        let repository = image.repository();
        if let Some(digest) = image.digest() {
            if let Some(value) = find(&self.digests, repository, digest) {
                return Some(value);
            }
        } else if let Some(tag) = image.tag()
            && let Some(value) = find(&self.tags, repository, tag)
        {
            return Some(value);
        }
        self.get_repository(repository)
    }

    /// Like [`ScopeMap::get`], for a repository: scopes with a tag or a digest are left out.
    pub fn get_repository(&self, repository: &Repository) -> Option<&T> {
        let mut prefix = repository.as_str();
        loop {
            if let Some(value) = self.prefixes.get(prefix).or_else(|| self.get_short_name(prefix)) {
                return Some(value);
            }
            match prefix.rfind('/') {
                Some(slash) => prefix = &prefix[..slash],
                None => break,
            }
        }
        let domain = domains_above(repository.host()).find_map(|domain| self.subdomains.get(domain));
        domain.or(self.everything.as_ref())
    }

    /// The value of `docker.io/nginx`, for `docker.io/library/nginx`.
    fn get_short_name(&self, prefix: &str) -> Option<&T> {
        let name = prefix.strip_prefix(DOCKER_HUB)?.strip_prefix("/library/")?;
        if self.literal || name.contains('/') {
            return None;
        }
        self.prefixes.get(format!("{DOCKER_HUB}/{name}").as_str())
    }

    /// Returns whether some scope names one digest of this repository. Then the digest must be known before the rule.
    pub fn has_digests_of(&self, repository: &Repository) -> bool {
        self.digests.contains_key(repository)
    }

    /// The scopes that name one digest of this repository: the digests, and their values.
    pub fn digests_of(&self, repository: &Repository) -> impl Iterator<Item = (&Digest, &T)> {
        self.digests.get(repository).into_iter().flatten().map(|(digest, value)| (digest, value))
    }

    /// The value of the scope that names this digest of this repository.
    pub fn get_digest(&self, repository: &Repository, digest: &Digest) -> Option<&T> {
        find(&self.digests, repository, digest)
    }

    /// Every scope with its value, sorted by scope.
    pub fn iter(&self) -> impl Iterator<Item = (Scope, &T)> {
        let mut all: Vec<(Scope, &T)> = Vec::new();
        all.extend(self.everything.iter().map(|value| (Scope::Everything, value)));
        all.extend(self.subdomains.iter().map(|(key, value)| (Scope::Subdomains(key.clone()), value)));
        all.extend(self.prefixes.iter().map(|(key, value)| (Scope::Prefix(key.clone()), value)));
        for (repository, tags) in &self.tags {
            all.extend(tags.iter().map(|(tag, value)| (Scope::Tag(repository.clone(), tag.clone()), value)));
        }
        for (repository, digests) in &self.digests {
            all.extend(digests.iter().map(|(digest, value)| (Scope::Digest(repository.clone(), *digest), value)));
        }
        all.sort_by(|(left, _), (right, _)| left.cmp(right));
        all.into_iter()
    }
}

/// The domains above `host[:port]`, the nearest first: those whose subdomains it is one of. As containers/image has it,
/// `*.example.com` covers every port of a host below it.
pub(crate) fn domains_above(host: &str) -> impl Iterator<Item = &str> {
    let name = if host.starts_with('[') { "" } else { host.split_once(':').map_or(host, |(name, _)| name) };
    std::iter::successors(parent(name), |domain| parent(domain))
}

fn parent(domain: &str) -> Option<&str> {
    domain.split_once('.').map(|(_, parent)| parent)
}

fn add<K: PartialEq, T>(list: &mut Vec<(K, T)>, key: K, value: T) -> Result<(), T> {
    if list.iter().any(|(present, _)| *present == key) {
        return Err(value);
    }
    list.push((key, value));
    Ok(())
}

fn find<'a, K: PartialEq, T>(
    map: &'a HashMap<Repository, Vec<(K, T)>>,
    repository: &Repository,
    key: &K,
) -> Option<&'a T> {
    map.get(repository)?.iter().find(|(present, _)| present == key).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::HostError;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn map(scopes: &[&str]) -> ScopeMap<String> {
        let mut map = ScopeMap::default();
        for scope in scopes {
            map.insert(Scope::parse_with_tag(scope).unwrap(), (*scope).to_owned()).unwrap();
        }
        map
    }

    fn winner(scopes: &[&str], image: &str) -> Option<String> {
        map(scopes).get(&Reference::for_image(image).unwrap()).cloned()
    }

    #[test]
    fn the_most_specific_scope_wins_alone() {
        let digest = format!("r.example.com/a/b@{DIGEST}");
        let scopes = ["*", "*.com", "*.example.com", "r.example.com", "r.example.com/a", "r.example.com/a/b", &digest];
        let winner = |image: &str| winner(&scopes, image).unwrap();
        assert_eq!(winner(&digest), digest);
        assert_eq!(winner(&format!("r.example.com/a/b:claimed@{DIGEST}")), digest);
        assert_eq!(winner("r.example.com/a/b:1"), "r.example.com/a/b");
        assert_eq!(winner("r.example.com/a/b/c"), "r.example.com/a/b");
        assert_eq!(winner("r.example.com/a/bc"), "r.example.com/a");
        assert_eq!(winner("r.example.com/ab"), "r.example.com");
        assert_eq!(winner("s.example.com/ab"), "*.example.com");
        assert_eq!(winner("s.t.example.com:5000/ab"), "*.example.com");
        assert_eq!(winner("example.com/ab"), "*.com");
        assert_eq!(winner("nginx"), "*");
    }

    #[test]
    fn a_scope_is_there_once() {
        let digest = format!("r.example.com/a@{DIGEST}");
        for scope in ["*", "*.example.com", "r.example.com", "r.example.com/a", "r.example.com/a:1", &digest] {
            let mut map = ScopeMap::default();
            let scope = || Scope::parse_with_tag(scope).unwrap();
            assert_eq!(map.insert(scope(), 1), Ok(()));
            assert_eq!(map.insert(scope(), 2), Err(2), "{}", scope());
            assert_eq!(map.iter().map(|(_, value)| *value).collect::<Vec<_>>(), [1]);
        }
    }

    #[test]
    fn a_host_without_a_port_does_not_cover_one_with_a_port() {
        assert_eq!(winner(&["r.example.com"], "r.example.com:5000/x"), None);
        assert_eq!(winner(&["r.example.com:5000"], "r.example.com:5000/x").as_deref(), Some("r.example.com:5000"));
        assert_eq!(winner(&["R.Example.com:443"], "r.example.com/x").as_deref(), Some("R.Example.com:443"));
    }

    #[test]
    fn a_scope_and_an_image_in_other_spellings_of_one_address_meet() {
        let spellings = ["10.0.0.5:5000", "[::ffff:10.0.0.5]:5000", "[::FFFF:a00:5]:05000", "[0:0::ffff:0a00:5]:5000"];
        let digest = format!("/x@{DIGEST}");
        for scope in spellings {
            for image in spellings {
                for (below, name) in [("", "/x"), ("/x", "/x/y:1"), ("/x:1", "/x:1"), (&*digest, &*digest)] {
                    let (scope, image) = (format!("{scope}{below}"), format!("{image}{name}"));
                    assert_eq!(winner(&["*", &scope], &image), Some(scope), "{image}");
                }
            }
        }
    }

    #[test]
    fn a_scope_that_no_image_can_fall_under_is_an_error() {
        let number = Err(ScopeError::Part(ReferenceError::Host(HostError::Number)));
        for host in ["10.0.5:5000", "0xa.0.0.5:5000", "167772165:5000", "010.0.0.5:5000", "10.0.0.5.", "1.2.3.256"] {
            for scope in [host.to_owned(), format!("{host}/x"), format!("{host}/x:1"), format!("{host}/x@{DIGEST}")] {
                assert_eq!(Scope::parse_with_tag(&scope), number, "{scope}");
            }
        }
        // No address has addresses below it, and each number has one spelling.
        for domain in ["10.0.0.5", "0xa", "00.5", "0.0.05", "256", "example.com.5", "0.0.5."] {
            assert_eq!(Scope::parse(&format!("*.{domain}")), number, "{domain}");
        }
        for scope in
            ["[::1]junk", "[::1]junk/x", "r.example.com.", "*.example.com.", "r.ex%61mple.com/x", "*.exämple.com"]
        {
            assert_eq!(Scope::parse(scope), Err(ScopeError::Part(ReferenceError::Host(HostError::Name))), "{scope}");
        }
    }

    #[test]
    fn the_last_numbers_of_an_address_cover_every_spelling_that_ends_in_them() {
        for scope in ["*.5", "*.0.5", "*.0.0.5"] {
            for image in ["10.0.0.5:5000/x", "[::ffff:10.0.0.5]:5000/x"] {
                assert_eq!(winner(&["*", scope], image).as_deref(), Some(scope), "{image}");
            }
            assert_eq!(winner(&["*", scope], "10.0.0.15:5000/x").as_deref(), Some("*"), "{scope}");
        }
    }

    #[test]
    fn a_single_label_with_a_port_is_a_host_for_scopes_as_for_references() {
        for (scope, image) in [
            ("registry:443", "registry:443/x/y"),
            ("registry:443/x", "registry:443/x/y"),
            ("registry:443/x", "REGISTRY/x/y"),
            ("REGISTRY:0443/x", "Registry:443/x/y"),
            ("registry:443/x/y:1", "registry:443/x/y:1"),
        ] {
            assert_eq!(winner(&[scope, "docker.io"], image).as_deref(), Some(scope), "{scope} {image}");
        }
        let digest = format!("registry:443/x/y@{DIGEST}");
        assert_eq!(winner(&[&digest], &digest), Some(digest.clone()));
        assert_eq!(winner(&["registry:443", "docker.io"], "registry/x/y").as_deref(), Some("docker.io"));
        assert_eq!(winner(&["*.internal"], "r.internal:443/x").as_deref(), Some("*.internal"));
        assert_eq!(Scope::parse("*.internal").unwrap().to_string(), "*.internal");
    }

    #[test]
    fn a_tag_scope_covers_no_reference_by_digest() {
        let scopes = ["r.example.com/a:1"];
        assert!(winner(&scopes, "r.example.com/a:1").is_some());
        assert!(winner(&scopes, &format!("r.example.com/a:1@{DIGEST}")).is_none());
        assert!(winner(&scopes, "r.example.com/a:2").is_none());
    }

    #[test]
    fn what_is_not_a_scope_says_why() {
        assert_eq!(Scope::parse(""), Err(ScopeError::Empty));
        assert_eq!(Scope::parse("r.example.com/*"), Err(ScopeError::Star));
        assert_eq!(Scope::parse("*.example.com/a"), Err(ScopeError::Star));
        assert_eq!(Scope::parse("*example.com"), Err(ScopeError::Star));
        assert_eq!(Scope::parse("r.example.com/a:1"), Err(ScopeError::HasTag));
        assert_eq!(Scope::parse(&format!("r.example.com/a:1@{DIGEST}")), Err(ScopeError::HasTag));
        assert_eq!(Scope::parse("r.example.com/"), Err(ScopeError::TrailingSlash));
        assert_eq!(Scope::parse("nginx"), Err(ScopeError::NoHost { suggestion: "docker.io/library/nginx".into() }));
        assert_eq!(Scope::parse("Acme/web"), Err(ScopeError::NoHost { suggestion: "acme:443/web".into() }));
        assert_eq!(Scope::parse("acme/web"), Err(ScopeError::NoHost { suggestion: "docker.io/acme/web".into() }));
        assert!(matches!(Scope::parse("r.example.com/A"), Err(ScopeError::Part(ReferenceError::UpperCase))));
        assert!(matches!(Scope::parse("r.example.com/a@sha256:0"), Err(ScopeError::Part(ReferenceError::Digest(_)))));
    }

    #[test]
    fn a_short_name_of_docker_hub_covers_its_image_and_the_namespace() {
        let nginx = "docker.io/nginx";
        assert_eq!(winner(&["docker.io", nginx], "nginx").as_deref(), Some(nginx));
        assert_eq!(winner(&["docker.io/library", nginx], "nginx:1.27").as_deref(), Some(nginx));
        assert_eq!(winner(&["docker.io/library/nginx", nginx], "nginx").as_deref(), Some("docker.io/library/nginx"));
        assert_eq!(winner(&["docker.io/library/nginx", nginx], "nginx/unit").as_deref(), Some(nginx));
        assert_eq!(winner(&["docker.io", nginx], "nginxinc/nginx").as_deref(), Some("docker.io"));
        assert_eq!(winner(&["docker.io", nginx], "registry.example.com/library/nginx"), None);
        assert_eq!(winner(&["docker.io", "Index.Docker.IO/nginx"], "nginx").as_deref(), Some("Index.Docker.IO/nginx"));

        let mut literal = ScopeMap::literal();
        literal.insert(Scope::parse(nginx).unwrap(), ()).unwrap();
        assert!(literal.get(&Reference::for_image("nginx").unwrap()).is_none());
        assert!(literal.get(&Reference::for_image("nginx/unit").unwrap()).is_some());
    }

    #[test]
    fn an_image_s_short_name_is_no_host_with_a_port() {
        let no_host = |text: &str| Err(ScopeError::NoHost { suggestion: text.into() });
        let with_digest = format!("docker.io/library/nginx@{DIGEST}");
        for (text, suggestion) in [
            ("alpine:3", "docker.io/library/alpine"),
            ("postgres:16", "docker.io/library/postgres"),
            ("nginx:1.27", "docker.io/library/nginx"),
            ("nginx:latest", "docker.io/library/nginx"),
            (&format!("nginx@{DIGEST}"), &with_digest),
            (&format!("nginx:1@{DIGEST}"), &with_digest),
        ] {
            assert_eq!(Scope::parse(text), no_host(suggestion), "{text}");
        }
        assert_eq!(Scope::parse_with_tag("Alpine:3"), no_host("docker.io/library/alpine:3"));
        for host in ["registry:5000", "registry:80", "localhost:5", "r.example.com:5", "[::1]:5"] {
            assert_eq!(Scope::parse(host).map(|scope| scope.to_string()).as_deref(), Ok(host));
        }
    }

    #[test]
    fn a_number_behind_a_single_label_is_a_port_that_registries_use_or_else_a_tag() {
        for port in ["80", "443", "1024", "5000", "65535"] {
            assert!(matches!(Scope::parse(&format!("registry:{port}")), Ok(Scope::Prefix(_))), "{port}");
        }
        for tag in ["79", "81", "442", "444", "1023", "65536", "0"] {
            let found = Scope::parse(&format!("registry:{tag}"));
            assert_eq!(found, Err(ScopeError::NoHost { suggestion: "docker.io/library/registry".into() }), "{tag}");
        }
    }

    #[test]
    fn a_domain_s_scope_covers_each_host_below_it_and_not_itself() {
        let domain = ["*.example.com"];
        for image in ["a.example.com/x", "a.b.example.com/x", "a.example.com:5000/x", "A.Example.COM/x"] {
            assert_eq!(winner(&domain, image).as_deref(), Some("*.example.com"), "{image}");
        }
        for image in ["example.com/x", "notexample.com/x", "a.example.com.evil.example.org/x", "a.example.org/x"] {
            assert_eq!(winner(&domain, image), None, "{image}");
        }
        assert_eq!(
            winner(&["*.example.com", "*.b.example.com"], "a.b.example.com/x").as_deref(),
            Some("*.b.example.com")
        );
    }

    #[test]
    fn a_scope_ends_at_a_slash_and_nowhere_else() {
        let scope = ["r.example.com/acme"];
        assert!(winner(&scope, "r.example.com/acme/web").is_some());
        assert!(winner(&scope, "r.example.com/acme:1").is_some(), "the repository of this name, too");
        for image in
            ["r.example.com/acme2/web", "r.example.com/acme-web", "r.example.com/other/acme", "r.example.com:5000/acme"]
        {
            assert_eq!(winner(&scope, image), None, "{image}");
        }
    }

    #[test]
    fn one_scope_has_one_value() {
        let mut map = map(&["r.example.com"]);
        assert_eq!(map.insert(Scope::parse("R.example.com:443").unwrap(), "two".into()), Err("two".to_owned()));
        assert_eq!(map.iter().count(), 1);
    }
}
