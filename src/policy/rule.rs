//! Rules, what they require, and exemptions from them.

use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::image::{Reference, Repository, ScopeMap};
use crate::signature::Certificate;

/// A rule's name in messages, metrics and logs: `document/rule`, or for policy.json `policy.json/scope`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(Arc<str>);

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name.
    pub id: RuleId,
    /// Its own mode or its document's; else the configuration's holds.
    pub mode: Option<Mode>,
    /// The action: allow, deny, or require signatures.
    pub action: Action,
}

/// The action of a rule for the images that it covers.
#[derive(Clone, Debug)]
pub enum Action {
    /// All of these must hold.
    Require(Requirements),
    /// They run unsigned, for a reason.
    Allow {
        /// Why.
        reason: Arc<str>,
    },
    /// They never run, for a reason.
    Deny {
        /// Why.
        reason: Arc<str>,
    },
}

/// A rule's requirements: at least one.
#[derive(Clone, Debug)]
pub struct Requirements {
    /// All must hold. Never empty: the loaders refuse that, and verification refuses it again.
    pub all: Vec<Requirement>,
    /// Which signature of an index counts.
    pub platforms: Platforms,
}

/// Signed by enough of these signers, with this identity.
#[derive(Clone, Debug)]
pub struct Requirement {
    /// The signers, any of them. Never empty.
    pub signed_by: Vec<Arc<Signer>>,
    /// The number of different signers that are needed, at most the number of signers named.
    pub threshold: NonZeroUsize,
    /// The required relation between the signed identity and the image.
    pub identity: Identity,
    /// The oldest that a signature may be.
    pub max_age: Option<Duration>,
}

/// A signer: a name, and the certificates of the one who bears it (several while keys rotate).
#[derive(Clone, Debug)]
pub struct Signer {
    /// The name in the policy.
    pub name: Box<str>,
    /// At least one.
    pub certificates: Vec<Arc<Certificate>>,
}

/// The required relation between the docker reference in a signature and the image (semantics of
/// containers-policy.json(5), "signedIdentity").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// `matchRepoDigestOrExact`: the repository for an image by digest, else name and tag.
    RepoDigestOrExact,
    /// `matchExact`: name and tag as signed.
    Exact,
    /// `matchRepository`: the repository, whatever the tag.
    Repository,
    /// `exactReference`: this reference, whatever was asked for.
    ExactReference(Reference),
    /// `exactRepository`: this repository, whatever was asked for.
    ExactRepository(Repository),
    /// `remapIdentity`: the image's name with the prefix `from` replaced by `to`, then as `RepoDigestOrExact`. A name
    /// without the prefix stays as it is. Both are `host[/namespace[/repo]]`, canonical, and end at a path boundary.
    Remap {
        /// The prefix of what is asked for.
        from: Box<str>,
        /// The prefix that the signature has in its place.
        to: Box<str>,
    },
}

/// Which signature of an image index counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Platforms {
    /// The index's own, or that of each manifest in it.
    #[default]
    IndexOrEach,
    /// Only the index's own.
    Index,
    /// Only that of each manifest in it.
    Each,
}

/// The enforcement of a refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// It does not run.
    #[default]
    Enforce,
    /// It runs; the user sees a warning.
    Warn,
    /// It runs; the audit log tells.
    Audit,
}

/// A visible, attributed exception that ends by itself.
#[derive(Clone, Debug)]
pub struct Exemption {
    /// Its name, `document/exemption`.
    pub id: RuleId,
    /// The images: scopes as in rules.
    pub images: ScopeMap<()>,
    /// The namespaces; empty: all.
    pub namespaces: Vec<Box<str>>,
    /// The time from which the exemption does not hold any more.
    pub until: Timestamp,
    /// The person who approved the exemption.
    pub approved_by: Box<str>,
    /// Why.
    pub reason: Box<str>,
}

impl Exemption {
    /// Returns whether the exemption covers this image in this namespace at this time.
    pub fn covers(&self, image: &Reference, namespace: Option<&str>, now: Timestamp) -> bool {
        let here = self.namespaces.is_empty()
            || namespace.is_some_and(|namespace| self.namespaces.iter().any(|name| **name == *namespace));
        here && now < self.until && self.images.get(image).is_some()
    }
}

impl Mode {
    /// `enforce`, `warn` or `audit`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Warn => "warn",
            Self::Audit => "audit",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl RuleId {
    /// A name made by a loader.
    pub fn new(document: &str, rule: &str) -> Self {
        Self(format!("{document}/{rule}").into())
    }

    /// `document/rule`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
