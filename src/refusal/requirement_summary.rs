//! A requirement of a rule in words, with the command that fulfils it.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use crate::image::{Digest, Reference, Repository};
use crate::policy::{Identity, RuleId, identity};
use crate::signature::Fingerprint;

/// The requirement of a rule that was not met, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequirementSummary {
    /// The rule.
    pub rule: RuleId,
    /// The signers that the requirement names, each with the fingerprints of its certificates.
    pub signers: Arc<[(Box<str>, Vec<Fingerprint>)]>,
    /// Those of the certificates that no signature can be made with now: expired, revoked, weak.
    pub unusable: Arc<[Fingerprint]>,
    /// The required relation between the name in the signature and the image.
    pub identity: Arc<Identity>,
    /// The manifest that is short of it, where that is one in the image's index.
    pub manifest: Option<Box<Digest>>,
}

impl RequirementSummary {
    /// Returns the next step with the command that makes a wanted signature, by a signer that did not sign yet and with a
    /// key that can be used; `KEY` where no certificate is known. An image that is no reference does not get into a
    /// command that a user may copy.
    pub(super) fn step(&self, words: &str, image: &str, done: &[Box<str>]) -> String {
        let open = self.signers.iter().filter(|(name, _)| !done.contains(name)).flat_map(|(_, keys)| keys);
        let mut usable = open.filter(|key| !self.unusable.contains(key));
        let key = match usable.next() {
            Some(key) => key.to_string(),
            None if self.signers.is_empty() => "KEY".to_owned(),
            None => return format!("Put a valid key into rule {}, and sign it with that.", self.rule),
        };
        let reference = Reference::for_image(image).ok();
        let image = if reference.is_some() { image } else { "IMAGE" };
        let identity = reference.and_then(|reference| self.signed_as(&reference));
        let identity = identity.map(|identity| format!(" --sign-identity {identity}")).unwrap_or_default();
        format!("{words}: sealgate sign {image} --sign-by {key}{identity}")
    }

    /// The name that has to be signed, where it is not the image's own.
    fn signed_as(&self, image: &Reference) -> Option<Reference> {
        let in_repository = |repository: &Repository| {
            let digest = image.digest().filter(|_| image.tag().is_none());
            Reference::from_parts(repository.clone(), image.tag().cloned(), digest.copied())
        };
        let signed = match &*self.identity {
            Identity::RepoDigestOrExact | Identity::Exact | Identity::Repository => return None,
            Identity::ExactReference(reference) => reference.clone(),
            Identity::ExactRepository(repository) => in_repository(repository),
            Identity::Remap { from, to } => in_repository(identity::remapped(image, from, to)?.repository()),
        };
        (signed.repository() != image.repository() || matches!(*self.identity, Identity::ExactReference(_)))
            .then_some(signed)
    }

    /// Which manifest of an index it is about.
    pub(super) fn of(&self) -> String {
        self.manifest.as_ref().map(|digest| format!(", for the manifest {digest} in this index")).unwrap_or_default()
    }

    /// The signers with their keys, the first few.
    pub(super) fn names(&self) -> String {
        const MAX_LISTED: usize = 3;
        let one = |(name, fingerprints): &(Box<str>, Vec<Fingerprint>)| {
            let keys: Vec<String> = fingerprints.iter().take(MAX_LISTED).map(Fingerprint::short).collect();
            format!("{name} {}", keys.join("/"))
        };
        let mut names = self.signers.iter().take(MAX_LISTED).map(one).collect::<Vec<_>>().join(" or ");
        if self.signers.len() > MAX_LISTED {
            let _ = write!(names, " or {} others", self.signers.len() - MAX_LISTED);
        }
        names
    }
}

impl fmt::Display for RequirementSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {} wants {}{}", self.rule, self.names(), self.of())
    }
}
