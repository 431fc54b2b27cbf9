//! Image references, in one canonical form.
//!
//! Everything downstream (scopes, identities, cache keys, registry requests) compares canonical text, so whatever two
//! spellings name the same image must become equal here. Otherwise `Registry.Example.com:443/acme/x` would walk around
//! the rule for `registry.example.com`.

use std::{fmt, sync::Arc};

use url::Url;

use super::{
    digest::{Digest, DigestError},
    host::{DOCKER_HUB, HostError, canonical_host, host_of, looks_like_host},
};

/// The longest name, `host/path`, that registries accept (distribution specification, "Pulling manifests").
const MAX_NAME_LENGTH: usize = 255;
/// The longest tag (distribution specification).
const MAX_TAG_LENGTH: usize = 128;
/// Longer texts are refused unread: a name, a tag, a SHA-512 digest and what joins them.
const MAX_REFERENCE_LENGTH: usize = MAX_NAME_LENGTH + 1 + MAX_TAG_LENGTH + 1 + 7 + 128;

/// A repository: `host[:port]/path`, canonical.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    name: Arc<str>,
    host_length: usize,
}

/// A tag: at most 128 characters of `[A-Za-z0-9_.-]`, the first no `.` or `-`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

/// An image reference, `host[:port]/path[:tag][@digest]`, canonical.
///
/// With both a tag and a digest, the digest says which image it is; the tag is only claimed.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference. The text itself is not repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// The text is empty.
    #[error("an image reference is expected, found nothing")]
    Empty,
    /// The text is longer than any reference can be.
    #[error("an image reference has at most {MAX_REFERENCE_LENGTH} characters, this one {length}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The name is longer than registries accept.
    #[error("an image's name has at most {MAX_NAME_LENGTH} characters, this one {length}")]
    NameTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// 64 hexadecimal digits in place of a name: Docker takes those for an image's local ID.
    #[error("64 hexadecimal digits are a local image ID, not a name; write repository@sha256:...")]
    LocalId,
    /// The host is malformed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The path has an upper-case letter.
    #[error("an image's name is written in lower case")]
    UpperCase,
    /// The path is malformed.
    #[error(
        "an image's name has components of a-z and 0-9, joined by '.', '_', '__' or dashes, with a '/' between components"
    )]
    Path,
    /// The tag is malformed.
    #[error("a tag has at most 128 characters of A-Z a-z 0-9 _ . -, and does not begin with '.' or '-'")]
    Tag,
    /// The digest is malformed.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Repository {
    /// Parses `host[:port]/path`, with Docker's familiar names and hosts, and makes it canonical.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (host, path) = split_host(text);
        let host = match host {
            Some(host) => canonical_host(host)?,
            None => DOCKER_HUB.to_owned(),
        };
        check_path(path)?;
        let host_length = host.len();
        let mut name = host;
        name.push('/');
        if name.len() == DOCKER_HUB.len() + 1 && name.starts_with(DOCKER_HUB) && !path.contains('/') {
            name.push_str("library/");
        }
        name.push_str(path);
        if name.len() > MAX_NAME_LENGTH {
            return Err(ReferenceError::NameTooLong { length: name.len() });
        }
        Ok(Self { name: name.into(), host_length })
    }

    /// The repository `path` on a URL's server. Nothing where no reference can name that server: its host is none that a
    /// reference can have, or would become another one (Docker Hub's aliases).
    pub(crate) fn at(server: &Url, path: &str) -> Option<Self> {
        let host = host_of(server)?;
        let repository = Self::parse(&format!("{host}/{path}")).ok()?;
        (repository.host() == host).then_some(repository)
    }

    /// `host[:port]/path`.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// `host[:port]`, lower case, without `:443`, but for a single label: `registry/x` would be on Docker Hub.
    pub fn host(&self) -> &str {
        &self.name[..self.host_length]
    }

    /// The path, without a leading slash.
    pub fn path(&self) -> &str {
        &self.name[self.host_length + 1..]
    }
}

impl Tag {
    /// Parses a tag.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let good = text.len() <= MAX_TAG_LENGTH
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-');
        if good { Ok(Self(text.into())) } else { Err(ReferenceError::Tag) }
    }

    /// The tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Reference {
    /// Parses a reference and makes it canonical. Where neither tag nor digest is given, neither is added: see
    /// [`Reference::for_image`].
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() > MAX_REFERENCE_LENGTH {
            return Err(ReferenceError::TooLong { length: text.len() });
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; before it, a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(Tag::parse(tag)?)),
            _ => (rest, None),
        };
        if name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::LocalId);
        }
        Ok(Self { repository: Repository::parse(name)?, tag, digest })
    }

    /// Parses what stands in a pod: like [`Reference::parse`], and `:latest` where neither tag nor digest is given.
    pub fn for_image(text: &str) -> Result<Self, ReferenceError> {
        let mut reference = Self::parse(text)?;
        if reference.tag.is_none() && reference.digest.is_none() {
            reference.tag = Some(Tag("latest".into()));
        }
        Ok(reference)
    }

    /// Puts a reference together from checked parts.
    pub fn from_parts(repository: Repository, tag: Option<Tag>, digest: Option<Digest>) -> Self {
        Self { repository, tag, digest }
    }

    /// Returns whether the text names its registry, so that every reader takes it for the same. Else CRI-O and
    /// podman look through `unqualified-search-registries` (containers-registries.conf(5)); this is how they tell.
    pub fn names_registry(text: &str) -> bool {
        text.split_once('/').is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost")
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the reference with its name and tag, at this digest.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }
}

/// Splits a name as Docker does: the part before the first slash is a host if it looks like one, or has an upper-case letter
/// (which no path may have).
fn split_host(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest)) if looks_like_host(first) || first.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            (Some(first), rest)
        }
        _ => (None, name),
    }
}

/// Checks a repository's path (distribution specification: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, joined by slashes).
pub(crate) fn check_path(path: &str) -> Result<(), ReferenceError> {
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ReferenceError::UpperCase);
    }
    if path.split('/').all(is_path_component) { Ok(()) } else { Err(ReferenceError::Path) }
}

fn is_path_component(text: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_plain = bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain);
    let separators = bytes.split(plain).filter(|separator| !separator.is_empty());
    ends_plain
        && separators
            .into_iter()
            .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|&byte| byte == b'-'))
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repository.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn canonical(text: &str) -> String {
        Reference::for_image(text).unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
    }

    #[test]
    fn spellings_of_one_image_become_one() {
        for (text, expected) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("acme/web", "docker.io/acme/web:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("registry-1.docker.io/library/nginx", "docker.io/library/nginx:latest"),
            ("Docker.IO:443/nginx", "docker.io/library/nginx:latest"),
            ("Registry.Example.com:443/acme/x", "registry.example.com/acme/x:latest"),
            ("registry.example.com:00443/acme/x", "registry.example.com/acme/x:latest"),
            ("registry.example.com:5000/acme/x:1", "registry.example.com:5000/acme/x:1"),
            ("LOCALHOST/x", "localhost/x:latest"),
            ("[2001:DB8:0::1]:5000/x", "[2001:db8::1]:5000/x:latest"),
            ("[::1]:443/x", "[::1]/x:latest"),
            ("[::FFFF:10.0.0.1]/x", "10.0.0.1/x:latest"),
            ("[::ffff:10.0.0.5]:5000/x", "10.0.0.5:5000/x:latest"),
            ("10.0.0.1/x", "10.0.0.1/x:latest"),
            ("localhost:443/x", "localhost/x:latest"),
            // Without its port, a single label would be read again as a namespace on Docker Hub.
            ("registry:443/team/app:1", "registry:443/team/app:1"),
            ("registry:0443/team/app:1", "registry:443/team/app:1"),
            ("REGISTRY/team/app:1", "registry:443/team/app:1"),
            ("Registry:443/app", "registry:443/app:latest"),
            ("registry:5000/app", "registry:5000/app:latest"),
        ] {
            assert_eq!(canonical(text), expected);
            assert_eq!(canonical(expected), expected);
        }
        assert_eq!(canonical(&format!("nginx@{DIGEST}")), format!("docker.io/library/nginx@{DIGEST}"));
        assert_eq!(canonical(&format!("nginx:1@{DIGEST}")), format!("docker.io/library/nginx:1@{DIGEST}"));
    }

    #[test]
    fn a_tag_is_what_stands_behind_the_colon() {
        let reference = Reference::for_image("registry.example.com:5000/acme/x:1.2").unwrap();
        assert_eq!(reference.tag().map(Tag::as_str), Some("1.2"));
    }

    #[test]
    fn what_is_not_a_reference_says_why() {
        for (text, expected) in [
            ("", ReferenceError::Empty),
            ("example.com/Acme/x", ReferenceError::UpperCase),
            ("example.com/", ReferenceError::Path),
            ("example.com//x", ReferenceError::Path),
            ("example.com/a..b", ReferenceError::Path),
            ("example.com/a___b", ReferenceError::Path),
            ("example.com/-a", ReferenceError::Path),
            ("example.com/x:", ReferenceError::Tag),
            ("example.com/x:.1", ReferenceError::Tag),
            ("example.com:0/x", ReferenceError::Host(HostError::Port)),
            ("example.com:70000/x", ReferenceError::Host(HostError::Port)),
            ("example.com:+5/x", ReferenceError::Host(HostError::Port)),
            ("exa mple.com/x", ReferenceError::Host(HostError::Name)),
            ("-example.com/x", ReferenceError::Host(HostError::Name)),
            ("[::1/x", ReferenceError::Host(HostError::Name)),
            ("[::1]junk/x", ReferenceError::Host(HostError::Name)),
            ("10.0.5:5000/x", ReferenceError::Host(HostError::Number)),
            ("0xa.0.0.5:5000/x", ReferenceError::Host(HostError::Number)),
            ("167772165:5000/x", ReferenceError::Host(HostError::Number)),
            ("010.0.0.5:5000/x", ReferenceError::Host(HostError::Number)),
            ("10.0.0.5.:5000/x", ReferenceError::Host(HostError::Number)),
            ("0XA000005/x", ReferenceError::Host(HostError::Number)),
            ("example.com./x", ReferenceError::Host(HostError::Name)),
            ("localhost./x", ReferenceError::Host(HostError::Name)),
            ("ex%61mple.com/x", ReferenceError::Host(HostError::Name)),
            ("[fe80::1%25eth0]/x", ReferenceError::Host(HostError::Name)),
            ("x@sha256:12", ReferenceError::Digest(Digest::parse("sha256:12").unwrap_err())),
            (&"a".repeat(64), ReferenceError::LocalId),
            (&"a/".repeat(1000), ReferenceError::TooLong { length: 2000 }),
            (&format!("example.com/{}", "a".repeat(250)), ReferenceError::NameTooLong { length: 262 }),
        ] {
            assert_eq!(Reference::parse(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn a_double_dash_or_underscore_joins_a_name() {
        assert_eq!(canonical("example.com/a---b__c.d_e"), "example.com/a---b__c.d_e:latest");
    }

    #[test]
    fn a_server_is_the_one_that_references_name() {
        let at = |url: &str| Repository::at(&Url::parse(url).unwrap(), "acme/web").map(|found| found.to_string());
        for (url, expected) in [
            ("https://R.example.com/x", "r.example.com/acme/web"),
            ("https://r.example.com:443", "r.example.com/acme/web"),
            ("https://r.example.com:5000", "r.example.com:5000/acme/web"),
            ("http://r.example.com", "r.example.com:80/acme/web"),
            ("https://signatures", "signatures:443/acme/web"),
            ("https://signatures:5000", "signatures:5000/acme/web"),
            ("http://signatures", "signatures:80/acme/web"),
            ("https://[::1]", "[::1]/acme/web"),
            ("https://localhost", "localhost/acme/web"),
        ] {
            assert_eq!(at(url).as_deref(), Some(expected), "{url}");
            assert_eq!(Repository::parse(expected).unwrap().as_str(), expected);
        }
        let long = format!("https://{}.example.com/", "a".repeat(250));
        for url in [
            "https://r_1.example.com/",
            "https://r.example.com./",
            "https://registry-1.docker.io/",
            "http://r.example.com:443/",
            "http://signatures:443/",
            "file:///x",
            &long,
        ] {
            assert_eq!(at(url), None, "{url}");
        }
    }

    #[test]
    fn each_part_may_be_as_long_as_it_may_and_no_longer() {
        let name = |length: usize| format!("example.com/{}", "a".repeat(length - "example.com/".len()));
        assert!(Reference::parse(&name(MAX_NAME_LENGTH)).is_ok());
        let found = Reference::parse(&name(MAX_NAME_LENGTH + 1));
        assert_eq!(found, Err(ReferenceError::NameTooLong { length: MAX_NAME_LENGTH + 1 }));
        // What is added counts, too.
        let short = |length: usize| "a".repeat(length - "docker.io/library/".len());
        assert!(Reference::parse(&short(MAX_NAME_LENGTH)).is_ok());
        let found = Reference::parse(&short(MAX_NAME_LENGTH + 1));
        assert_eq!(found, Err(ReferenceError::NameTooLong { length: MAX_NAME_LENGTH + 1 }));
        let tag = |length: usize| Tag::parse(&"t".repeat(length));
        assert!(tag(1).is_ok() && tag(MAX_TAG_LENGTH).is_ok());
        assert!(tag(0).is_err() && tag(MAX_TAG_LENGTH + 1).is_err());
        let digest = Digest::of(crate::image::digest::Algorithm::Sha512, b"");
        let longest = format!("{}:{}@{digest}", name(MAX_NAME_LENGTH), "t".repeat(MAX_TAG_LENGTH));
        assert_eq!(longest.len(), MAX_REFERENCE_LENGTH);
        assert_eq!(Reference::parse(&longest).unwrap().to_string(), longest);
        let longer = format!("{longest}0");
        assert_eq!(Reference::parse(&longer), Err(ReferenceError::TooLong { length: MAX_REFERENCE_LENGTH + 1 }));
    }

    #[test]
    fn a_port_is_a_number_from_1_to_65535() {
        for port in ["1", "80", "65535", "0065535"] {
            assert!(Reference::parse(&format!("example.com:{port}/x")).is_ok(), "{port}");
        }
        for port in ["", "0", "00", "65536", "99999999999999999999", "-1", "1a", "0x50", "1 "] {
            let found = Reference::parse(&format!("example.com:{port}/x"));
            assert_eq!(found, Err(ReferenceError::Host(HostError::Port)), "{port}");
        }
    }

    #[test]
    fn only_64_hexadecimal_digits_are_a_local_id() {
        for text in ["0".repeat(63), "f".repeat(65), format!("{}g", "0".repeat(63)), format!("a/{}", "0".repeat(64))] {
            assert!(Reference::parse(&text).is_ok(), "{text}");
        }
        for text in
            ["0123456789abcdef".repeat(4), format!("{}:1", "f".repeat(64)), format!("{}@{DIGEST}", "9".repeat(64))]
        {
            assert_eq!(Reference::parse(&text), Err(ReferenceError::LocalId), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_canonical_text_stays_as_it_is(
            text in "\\PC{0,80}|[a-zA-Z0-9./:@_-]{0,80}|[a-zA-Z]{1,3}(\\.[a-zA-Z])?(:0?443|:80)?/[a-z]{1,3}(/[a-z])?(:1)?",
        ) {
            if let Ok(reference) = Reference::parse(&text) {
                let canonical = reference.to_string();
                prop_assert_eq!(&Reference::parse(&canonical).unwrap(), &reference);
                prop_assert_eq!(reference.repository().as_str(), format!("{}/{}", reference.repository().host(), reference.repository().path()));
            }
        }
    }
}
