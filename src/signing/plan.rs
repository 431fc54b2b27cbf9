//! Plans and makes the signatures of an image: which digests need one, which have one already, and the new ones.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::Arc,
};

use jiff::Timestamp;
use sequoia_openpgp::{
    crypto,
    packet::{
        Key,
        key::{PublicParts, UnspecifiedRole},
    },
    types::HashAlgorithm,
};
use tokio::time::Instant;

use super::signing_key::SigningKey;
use crate::configuration::SignatureSource;
use crate::gate::ResolveDigest as _;
use crate::image::{
    Descriptor, Digest, Manifest, Reference, Walk,
    walk::{MAX_DEPTH, MAX_MANIFESTS},
};
use crate::image_files;
use crate::policy::{Identity, Platforms, Requirement, Requirements, RuleId, Signer};
use crate::refusal::LookupError;
use crate::registry::Client;
use crate::signature::{ComposeError, Payload, UntrustedSignature, compose};
use crate::signature_sources::Finder;
use crate::verification::{FoundSignatures, Question, verify};

/// The maximum number of stored signatures of the user's own key that are checked to find a good one.
const MAX_TRIES: usize = 256;

/// The digests of an image to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The digest that the reference names now.
    pub digest: Digest,
    /// The digest is that of an index.
    pub is_index: bool,
    /// The manifests to sign: the image's own and, for an index, each manifest in it that nodes may run.
    pub manifests: Vec<Planned>,
}

/// A manifest to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its digest.
    pub digest: Digest,
    /// `os/architecture[/variant]`, if the index says it.
    pub platform: Option<String>,
}

/// The reason why an image can't be signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The registry can't be asked, or has no such image.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The image has more manifests than verifiers follow.
    #[error(
        "the index has more than {MAX_MANIFESTS} manifests, or indexes in it more than {MAX_DEPTH} deep: no verifier follows \
         that, and with --index-only the index alone is signed"
    )]
    TooLarge,
    /// The index names manifests that the registry does not have: a sparse index.
    #[error("the index names manifests that this repository does not have")]
    Missing(Vec<Planned>),
}

/// Finds the digests of an image in a registry that need a signature. For an index, these are the index and each
/// manifest in it except attestations, since nodes verify the manifest of their own platform. With `index_only`, it is
/// the index alone.
///
/// # Errors
/// The registry can't be asked, or the image has more manifests than verifiers follow.
pub async fn plan(client: &Client, image: &Reference, index_only: bool, deadline: Instant) -> Result<Plan, PlanError> {
    let resolved = client.resolve(image, deadline).await?;
    let named = async |digest| {
        let reference = Reference::from_parts(image.repository().clone(), None, Some(digest));
        client.resolve(&reference, deadline).await.map(|resolved| resolved.manifest().clone())
    };
    walk(resolved.digest(), resolved.manifest().clone(), index_only, named).await
}

/// Finds the digests that need a signature in an image that is not in a registry yet.
///
/// # Errors
/// The image has more manifests than verifiers follow.
pub async fn plan_of(source: &image_files::Image, index_only: bool) -> Result<Plan, PlanError> {
    let named = async |digest| {
        let found = source.manifests.iter().find(|manifest| manifest.digest == digest);
        // A source contains every manifest that it names.
        Ok(found.map_or(Manifest::Image, |found| found.manifest.clone()))
    };
    let (digest, manifest) = match source.manifests.last() {
        Some(root) => (root.digest, root.manifest.clone()),
        None => (Digest::sha256(b""), Manifest::Image),
    };
    walk(digest, manifest, index_only, named).await
}

async fn walk(
    digest: Digest,
    root: Manifest,
    index_only: bool,
    named: impl AsyncFn(Digest) -> Result<Manifest, LookupError>,
) -> Result<Plan, PlanError> {
    let mut plan = Plan {
        digest,
        is_index: matches!(root, Manifest::Index(_)),
        manifests: vec![Planned { digest, platform: None }],
    };
    let (walk, mut planned, mut missing) = (Walk::default(), HashSet::from([digest]), Vec::new());
    let mut indexes: HashMap<Digest, Vec<Descriptor>> = HashMap::new();
    if let (Manifest::Index(entries), false) = (root, index_only) {
        indexes.insert(digest, entries);
    }
    let mut level: Vec<Digest> = indexes.keys().copied().collect();
    for depth in 0.. {
        let mut nested = Vec::new();
        for index in level {
            let entries = indexes.get(&index).map_or(&[][..], Vec::as_slice);
            let entries = walk.enter(entries, depth).map_err(|_| PlanError::TooLarge)?;
            for entry in entries.into_iter().cloned().collect::<Vec<_>>() {
                let Descriptor { digest, platform, attestation: _ } = entry;
                if planned.insert(digest) {
                    plan.manifests.push(Planned { digest, platform });
                    match named(digest).await {
                        Ok(Manifest::Index(entries)) => drop(indexes.insert(digest, entries)),
                        Ok(Manifest::Image) => {}
                        Err(LookupError::ManifestUnknown { .. }) => missing.extend(plan.manifests.last().cloned()),
                        Err(error) => return Err(error.into()),
                    }
                }
                // Includes indexes seen before: the limits count in the way that verifiers count.
                if indexes.contains_key(&digest) {
                    nested.push(digest);
                }
            }
        }
        if nested.is_empty() {
            break;
        }
        level = nested;
    }
    if missing.is_empty() { Ok(plan) } else { Err(PlanError::Missing(missing)) }
}

/// Returns the signatures that `source` has of a digest.
///
/// # Errors
/// The source can't be asked, so that it is unknown which signatures there are.
pub async fn stored(
    client: &Arc<Client>,
    source: &SignatureSource,
    image: &Reference,
    digest: Digest,
    deadline: Instant,
) -> Result<Arc<FoundSignatures>, LookupError> {
    let finder = Finder::of_source(Arc::clone(client), source.clone());
    let found = finder.find_complete(image.repository(), digest, deadline).await;
    match found.failure() {
        Some(error) if found.signatures.is_empty() => Err(error.clone()),
        _ => Ok(found),
    }
}

/// Returns whether one of these signatures is good, by this key's certificate and under exactly this identity, so that
/// a new one would add nothing.
pub fn is_signed(
    found: &FoundSignatures,
    key: &SigningKey,
    identity: &Reference,
    digest: Digest,
    now: Timestamp,
) -> bool {
    let signer = Signer { name: "signer".into(), certificates: vec![Arc::new(key.certificate.clone())] };
    let requirement = Requirement {
        signed_by: vec![Arc::new(signer)],
        threshold: NonZeroUsize::MIN,
        identity: Identity::ExactReference(identity.clone()),
        max_age: None,
    };
    let requirements = Requirements { all: vec![requirement], platforms: Platforms::default() };
    let rule = RuleId::new("sealgate", "sign");
    let question =
        Question { image: identity, digest, rule: &rule, requirements: &requirements, now, tries: MAX_TRIES };
    verify(&question, found).result.is_ok()
}

/// The reason why a digest could not be signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The key did not sign: the passphrase is wrong, or the card is missing.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The new signature does not verify: the card or agent is broken, or the clock is wrong.
    #[error("the new signature does not verify: check the key of the agent or card, and the clock")]
    NotVerified,
}

/// Signs one digest under an identity, and verifies the signature.
///
/// # Errors
/// The key did not sign, or the new signature does not verify.
pub fn sign(key: &mut SigningKey, identity: &Reference, digest: Digest, now: Timestamp) -> Result<Vec<u8>, SignError> {
    let message = compose(&Payload { digest, identity: identity.clone() }, BorrowedSigner(key.signer.as_mut()), now)?;
    let signature = UntrustedSignature { content: message.clone().into(), source: "sealgate sign".into(), number: 1 };
    let found = FoundSignatures { signatures: vec![signature], asked: Vec::new() };
    if is_signed(&found, key, identity, digest, Timestamp::now()) { Ok(message) } else { Err(SignError::NotVerified) }
}

/// Returns the identity to sign by default, which is the image's reference. `repo:tag@digest` loses its digest, because
/// the payload contains it, and other tools accept no such identity.
pub fn identity_of(image: &Reference) -> Reference {
    let digest = if image.tag().is_some() { None } else { image.digest().copied() };
    Reference::from_parts(image.repository().clone(), image.tag().cloned(), digest)
}

/// A borrowed signer, for a key that is used again afterwards.
struct BorrowedSigner<'a>(&'a mut (dyn crypto::Signer + Send + Sync));

impl crypto::Signer for BorrowedSigner<'_> {
    fn public(&self) -> &Key<PublicParts, UnspecifiedRole> {
        self.0.public()
    }

    fn acceptable_hashes(&self) -> &[HashAlgorithm] {
        self.0.acceptable_hashes()
    }

    fn sign(&mut self, hash: HashAlgorithm, digest: &[u8]) -> sequoia_openpgp::Result<crypto::mpi::Signature> {
        self.0.sign(hash, digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::{Fingerprint, testing::Key as TestKey};

    /// An image whose index names so many manifests, and as many attestations about them.
    fn source_of(count: usize) -> image_files::Image {
        let manifest = |text: String, manifest| image_files::SourceManifest {
            digest: Digest::sha256(text.as_bytes()),
            media_type: String::new(),
            manifest,
            bytes: text.into(),
        };
        let mut manifests: Vec<_> =
            (0..2 * count).map(|number| manifest(number.to_string(), Manifest::Image)).collect();
        let entries = manifests.iter().enumerate().map(|(number, named)| Descriptor {
            digest: named.digest,
            platform: Some("linux/amd64".to_owned()),
            attestation: number >= count,
        });
        manifests.push(manifest("index".to_owned(), Manifest::Index(entries.collect())));
        image_files::Image { manifests, blobs: Vec::new() }
    }

    #[tokio::test]
    async fn of_a_source_as_much_is_signed_as_of_what_is_pushed() {
        let plan = plan_of(&source_of(MAX_MANIFESTS), false).await.unwrap();
        assert_eq!((plan.is_index, plan.manifests.len()), (true, MAX_MANIFESTS + 1));
        let larger = source_of(MAX_MANIFESTS + 1);
        assert!(matches!(plan_of(&larger, false).await, Err(PlanError::TooLarge)));
        assert_eq!(plan_of(&larger, true).await.unwrap().manifests.len(), 1);
    }

    #[tokio::test]
    async fn an_index_below_two_others_is_signed_once_and_counted_twice_as_in_verification() {
        fn digest(name: &str) -> Digest {
            Digest::sha256(name.as_bytes())
        }
        fn index<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Manifest {
            let entry = |name: S| Descriptor { digest: digest(name.as_ref()), platform: None, attestation: false };
            Manifest::Index(names.into_iter().map(entry).collect())
        }
        let planned = async |second: &[&str], images: usize| {
            let indexes = [
                ("first", index(["shared"])),
                ("second", index(second)),
                ("shared", index((0..images).map(|number| number.to_string()))),
            ];
            let named = async |wanted| {
                let found = indexes.iter().find(|(name, _)| digest(name) == wanted);
                Ok(found.map_or(Manifest::Image, |(_, manifest)| manifest.clone()))
            };
            walk(digest("root"), index(["first", "second"]), false, named).await
        };
        let images = (MAX_MANIFESTS - 4) / 2;
        assert_eq!(planned(&["shared"], images).await.unwrap().manifests.len(), 1 + 3 + images);
        assert!(matches!(planned(&["shared"], images + 1).await, Err(PlanError::TooLarge)));
        // It is followed where it stands highest, and stands too deep elsewhere.
        assert!(matches!(planned(&["shared", "first"], 1).await, Err(PlanError::TooLarge)));
    }

    #[test]
    fn what_does_not_verify_is_not_handed_out() {
        let (key, other) = (TestKey::new("release"), TestKey::new("other"));
        let digest = Digest::sha256(b"manifest");
        let image = Reference::for_image("registry.example.com/acme/web:1").unwrap();
        let sign = |signer: &TestKey, now| {
            let mut signing = SigningKey {
                certificate: key.certificate(),
                key: Fingerprint::of(&key.cert.key_handle()),
                user_id: None,
                signer: Box::new(signer.pair()),
            };
            super::sign(&mut signing, &image, digest, now)
        };
        let now = Timestamp::now();
        assert!(sign(&key, now).is_ok());
        assert!(matches!(sign(&other, now), Err(SignError::NotVerified)), "another key than the certificate's");
        let ahead = now + jiff::SignedDuration::from_hours(1);
        assert!(matches!(sign(&key, ahead), Err(SignError::NotVerified)), "a time that is not yet");
    }
}
