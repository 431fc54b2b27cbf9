//! Refusals: a code, the facts, and what to do next. docs/refusals.md has a section for each code.

mod code;
mod facts;
mod lookup;
mod next_step;
mod precedence;
mod requirement_summary;
mod unpinned;

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::image::{Digest, Reference, ReferenceError};
use crate::policy::{Identity, RuleId};
use crate::signature::{Fingerprint, KeyFault, Malformed};

pub use code::Code;
pub use lookup::LookupError;
pub(crate) use precedence::{refusal_of_index, refusal_to_show};
pub use requirement_summary::RequirementSummary;
pub use unpinned::Unpinned;

/// Why an image may not run. Each variant is one code and carries its facts; text from a registry or a signature source
/// never gets in here.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// No rule covers the image.
    #[error("no rule covers it")]
    NoPolicy,
    /// The policy in force may not be the one that its files say.
    #[error("the policy could not be loaded from its files for longer than {}", humantime::format_duration(*limit))]
    PolicyUnavailable {
        /// The time for which that is accepted (`policyMaxStale`).
        limit: Duration,
    },
    /// A rule denies it.
    #[error("rule {rule} denies it: {reason}")]
    DeniedByPolicy {
        /// The rule.
        rule: RuleId,
        /// Its reason.
        reason: Arc<str>,
    },
    /// A pod must name the digest that was decided about; or, where its rule lets it run unsigned, at least its registry.
    #[error("{why}")]
    NotPinned {
        /// Why.
        why: Unpinned,
        /// The digest that its tag names now, and that it may be pinned to; nothing where the registry is missing.
        digest: Option<Digest>,
    },
    /// There is no signature.
    #[error("no signature ({0})")]
    Unsigned(RequirementSummary),
    /// Signed by keys that the rule does not want.
    #[error("signed {} (not in rule {}, which wants {}{})", by(signed_by), wanted.rule, wanted.names(), wanted.of())]
    UntrustedKey {
        /// The keys that the signatures name.
        signed_by: Vec<Fingerprint>,
        /// The requirement that is not met.
        wanted: RequirementSummary,
    },
    /// Signed for another name or tag.
    #[error("signed for {signed} instead of {} ({wanted})", identity_words(&wanted.identity))]
    WrongIdentity {
        /// The reference in the signature.
        signed: Box<Reference>,
        /// The requirement that is not met.
        wanted: RequirementSummary,
    },
    /// Signed for another digest.
    #[error("signed for another image, {signed} ({wanted})")]
    WrongDigest {
        /// The digest in the signature.
        signed: Box<Digest>,
        /// The requirement that is not met.
        wanted: RequirementSummary,
    },
    /// Not an OpenPGP message, or its payload is not strict.
    #[error("{} is malformed: {why} ({wanted})", at.as_ref().map_or_else(|| "a signature".to_owned(), |at| format!("the signature at {at}")))]
    MalformedSignature {
        /// The fault of the message or payload.
        why: Malformed,
        /// The place of the signature: a URL, and the number of an entry in a list.
        at: Option<Box<str>>,
        /// The requirement that is not met.
        wanted: RequirementSummary,
    },
    /// The cryptographic check failed.
    #[error("a signature by {} is not valid: {why} ({wanted})", key.short())]
    InvalidSignature {
        /// The key that it names.
        key: Fingerprint,
        /// Why.
        why: Invalid,
        /// The requirement that is not met.
        wanted: RequirementSummary,
    },
    /// The signature itself expired.
    #[error("the signature by {} expired at {at} ({wanted})", key.short())]
    ExpiredSignature {
        /// The key.
        key: Fingerprint,
        /// The time of expiry.
        at: Timestamp,
        /// The requirement that is not met.
        wanted: RequirementSummary,
    },
    /// The key expired.
    #[error("key {} expired at {at} ({wanted})", key.short())]
    ExpiredKey {
        /// The key.
        key: Fingerprint,
        /// The time of expiry.
        at: Timestamp,
        /// The requirement that is not met.
        wanted: RequirementSummary,
    },
    /// The key is revoked.
    #[error("key {} is revoked ({wanted})", key.short())]
    RevokedKey {
        /// The key.
        key: Fingerprint,
        /// The requirement that is not met.
        wanted: RequirementSummary,
    },
    /// SHA-1, a small RSA key, or another algorithm that proves nothing any more.
    #[error("key {} or its signature uses a weak algorithm, {algorithm} ({wanted})", key.short())]
    WeakAlgorithm {
        /// The key.
        key: Fingerprint,
        /// Which.
        algorithm: Box<str>,
        /// The requirement that is not met.
        wanted: RequirementSummary,
    },
    /// Good signatures, but not by enough different signers.
    #[error("signed by {}: {} of {threshold} signers ({wanted})", good.join(" and "), good.len())]
    ThresholdNotMet {
        /// The signers whose signatures count.
        good: Vec<Box<str>>,
        /// The number of signers that the requirement wants.
        threshold: NonZeroUsize,
        /// The requirement that is not met.
        wanted: RequirementSummary,
    },
    /// Older than the rule's `maxAge`.
    #[error("the signature is of {signed_at}, older than {} ({wanted})", age(*max_age))]
    TooOld {
        /// The time at which the signature was made.
        signed_at: Timestamp,
        /// The rule's `maxAge`.
        max_age: Duration,
        /// The requirement that is not met.
        wanted: RequirementSummary,
    },
    /// Not an image reference.
    #[error("not an image reference: {0}")]
    InvalidReference(ReferenceError),
    /// A resource that the gate was not told how to read.
    #[error("resource {group}/{version} {resource} may hold images in places that are not known here")]
    UnknownResource {
        /// API group.
        group: Box<str>,
        /// API version.
        version: Box<str>,
        /// Resource, with its subresource.
        resource: Box<str>,
    },
    /// More images in one review than are looked at.
    #[error("{found} images, over the limit of {limit}")]
    TooManyImages {
        /// Images there.
        found: usize,
        /// Images allowed (`limits.imagesPerReview`).
        limit: usize,
    },
    /// More signatures, or such that take longer to check, than are looked at for one image.
    #[error("checking all of its signatures takes more than is spent on one image")]
    TooManySignatures,
    /// Checking the signatures of all images of a review takes more than is spent on one.
    #[error("checking the signatures of the review's images takes more than is spent on one review")]
    ReviewTooCostly,
    /// The registry or a signature source has no answer to stand on.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The deadline of the review is over.
    #[error("no answer within {}", humantime::format_duration(*after))]
    DeadlineExceeded {
        /// The time that there was.
        after: Duration,
    },
    /// More reviews at once than the gate takes.
    #[error("too many reviews at once")]
    Overloaded,
}

/// The reason why a signature is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// The signature does not belong to these bytes and this key.
    #[error("it does not belong to its payload and key")]
    Cryptography,
    /// The key can't have made it.
    #[error(transparent)]
    Key(KeyFault),
    /// Made in the future, by our clock.
    #[error("it is of {0}, in the future by this clock")]
    Future(Timestamp),
    /// It has a part that must be understood, and is not.
    #[error("it has a critical part that is not known here")]
    Critical,
}

/// The pattern of all refusals for want of a signature.
macro_rules! wanting {
    ($wanted:ident) => {
        Refusal::Unsigned($wanted)
            | Refusal::UntrustedKey { wanted: $wanted, .. }
            | Refusal::WrongIdentity { wanted: $wanted, .. }
            | Refusal::WrongDigest { wanted: $wanted, .. }
            | Refusal::MalformedSignature { wanted: $wanted, .. }
            | Refusal::InvalidSignature { wanted: $wanted, .. }
            | Refusal::ExpiredSignature { wanted: $wanted, .. }
            | Refusal::ExpiredKey { wanted: $wanted, .. }
            | Refusal::RevokedKey { wanted: $wanted, .. }
            | Refusal::WeakAlgorithm { wanted: $wanted, .. }
            | Refusal::ThresholdNotMet { wanted: $wanted, .. }
            | Refusal::TooOld { wanted: $wanted, .. }
    };
}

impl Refusal {
    /// The code.
    pub fn code(&self) -> Code {
        match self {
            Self::NoPolicy => Code::NoPolicy,
            Self::PolicyUnavailable { .. } => Code::PolicyUnavailable,
            Self::DeniedByPolicy { .. } => Code::DeniedByPolicy,
            Self::NotPinned { .. } => Code::NotPinned,
            Self::Unsigned(_) => Code::Unsigned,
            Self::UntrustedKey { .. } => Code::UntrustedKey,
            Self::WrongIdentity { .. } => Code::WrongIdentity,
            Self::WrongDigest { .. } => Code::WrongDigest,
            Self::MalformedSignature { .. } => Code::MalformedSignature,
            Self::InvalidSignature { .. } => Code::InvalidSignature,
            Self::ExpiredSignature { .. } => Code::ExpiredSignature,
            Self::ExpiredKey { .. } => Code::ExpiredKey,
            Self::RevokedKey { .. } => Code::RevokedKey,
            Self::WeakAlgorithm { .. } => Code::WeakAlgorithm,
            Self::ThresholdNotMet { .. } => Code::ThresholdNotMet,
            Self::TooOld { .. } => Code::TooOld,
            Self::InvalidReference(_) => Code::InvalidReference,
            Self::UnknownResource { .. } => Code::UnknownResource,
            Self::TooManyImages { .. } => Code::TooManyImages,
            Self::TooManySignatures => Code::TooManySignatures,
            Self::Lookup(error) => error.code(),
            Self::DeadlineExceeded { .. } => Code::DeadlineExceeded,
            Self::Overloaded | Self::ReviewTooCostly => Code::Overloaded,
        }
    }

    /// Returns the requirement that is not met, where a rule requires signatures.
    pub fn wanted(&self) -> Option<&RequirementSummary> {
        match self {
            wanting!(wanted) => Some(wanted),
            _ => None,
        }
    }

    /// Makes it the refusal of a manifest in an index. If it names a manifest already, that of an inner index, that stays.
    #[must_use]
    pub fn of_entry(mut self, digest: Digest) -> Self {
        if let wanting!(wanted) = &mut self {
            wanted.manifest.get_or_insert_with(|| Box::new(digest));
        }
        self
    }
}

/// A duration as policies have it: `90d` where it is in days.
fn age(age: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    let seconds = age.as_secs();
    if seconds.is_multiple_of(DAY) {
        format!("{}d", seconds / DAY)
    } else {
        humantime::format_duration(age).to_string()
    }
}

fn by(keys: &[Fingerprint]) -> String {
    if keys.is_empty() {
        return "without naming a key".to_owned();
    }
    format!("by {}", keys.iter().map(Fingerprint::short).collect::<Vec<_>>().join(" and "))
}

fn identity_words(identity: &Identity) -> String {
    match identity {
        Identity::RepoDigestOrExact | Identity::Exact => "this image's name and tag".to_owned(),
        Identity::Repository => "this image's repository".to_owned(),
        Identity::ExactReference(reference) => reference.to_string(),
        Identity::ExactRepository(repository) => repository.to_string(),
        Identity::Remap { from, to } => format!("this image's name with {from} taken for {to}"),
    }
}

#[cfg(test)]
mod tests;
