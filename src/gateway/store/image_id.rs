//! The image that signatures belong to.

use std::sync::Arc;

use crate::image::Digest;
use crate::image::reference::{ReferenceError, check_path};

/// The maximum length of a repository's name below the registry's host, in bytes (distribution specification, "Pulling
/// manifests").
const MAX_NAME_BYTES: usize = 255;

/// The name of a repository: the path below the registry's host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// Parses a path of any depth, by the rules of an image reference's path.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > MAX_NAME_BYTES {
            return Err(ReferenceError::NameTooLong { length: text.len() });
        }
        check_path(text)?;
        Ok(Self(text.into()))
    }

    /// Returns the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The image that signatures belong to. The same image in two repositories has two of these, since a signature may be
/// meant for one of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageId {
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest's digest.
    pub digest: Digest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names_are_paths_of_any_depth_and_nothing_else() {
        for good in ["web", "acme/web", "a/b/c/d/e", "acme/web_1.2-x"] {
            assert_eq!(RepositoryName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "/web", "web/", "a//b", "../web", "a/../b", "Web", "a b", "a\0b", "a%2Fb", &"a".repeat(256)] {
            assert!(RepositoryName::parse(bad).is_err(), "{bad}");
        }
    }
}
