//! Refusals: a code, the facts, and what to do next. docs/refusals.md has a section for each code.

use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::image::{Digest, ManifestError, Reference, ReferenceError};
use crate::policy::{Identity, RuleId};
use crate::signature::{Fingerprint, KeyFault, PayloadError};

/// Why an image may not run. Each variant is one code and carries its facts; text from a registry or a signature source
/// never gets in here.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// No rule covers the image.
    #[error("no rule covers it")]
    NoPolicy {
        /// The namespace whose layer has none; nothing: the cluster's.
        namespace: Option<Box<str>>,
    },
    /// A rule denies it.
    #[error("rule {rule} denies it: {reason}")]
    DeniedByPolicy {
        /// The rule.
        rule: RuleId,
        /// Its reason.
        reason: Arc<str>,
    },
    /// A pod must name the verified digest.
    #[error("the image is not pinned to a digest")]
    NotPinned {
        /// The rule that requires signatures.
        rule: RuleId,
    },
    /// There is no signature.
    #[error("no signature")]
    Unsigned(Wanted),
    /// Signed by keys that the rule does not want.
    #[error("signed by another key")]
    UntrustedKey {
        /// The keys that the signatures name.
        signed_by: Vec<Fingerprint>,
        /// What the rule wants.
        wanted: Wanted,
    },
    /// Signed for another name or tag.
    #[error("signed for {signed}")]
    WrongIdentity {
        /// The reference in the signature.
        signed: Box<Reference>,
        /// How it should relate to the image.
        identity: Box<Identity>,
        /// What the rule wants.
        wanted: Wanted,
    },
    /// Signed for another digest.
    #[error("the signature is for {signed}")]
    WrongDigest {
        /// The digest in the signature.
        signed: Digest,
        /// What the rule wants.
        wanted: Wanted,
    },
    /// Not an OpenPGP message, or its payload is not strict.
    #[error("the signature is malformed: {why}")]
    MalformedSignature {
        /// What is wrong.
        why: Malformed,
        /// What the rule wants.
        wanted: Wanted,
    },
    /// The cryptographic check failed.
    #[error("the signature is not valid")]
    InvalidSignature {
        /// The key that it names.
        key: Fingerprint,
        /// Why.
        why: Invalid,
        /// What the rule wants.
        wanted: Wanted,
    },
    /// The signature itself expired.
    #[error("the signature expired at {at}")]
    ExpiredSignature {
        /// The key.
        key: Fingerprint,
        /// When.
        at: Timestamp,
        /// What the rule wants.
        wanted: Wanted,
    },
    /// The key expired.
    #[error("key {key} expired at {at}")]
    ExpiredKey {
        /// The key.
        key: Fingerprint,
        /// When.
        at: Timestamp,
        /// What the rule wants.
        wanted: Wanted,
    },
    /// The key is revoked.
    #[error("key {key} is revoked")]
    RevokedKey {
        /// The key.
        key: Fingerprint,
        /// What the rule wants.
        wanted: Wanted,
    },
    /// SHA-1, a small RSA key, or another algorithm that proves nothing any more.
    #[error("key {key} or its signature uses a weak algorithm: {algorithm}")]
    WeakAlgorithm {
        /// The key.
        key: Fingerprint,
        /// Which.
        algorithm: Box<str>,
        /// What the rule wants.
        wanted: Wanted,
    },
    /// Good signatures, but not by enough different signers.
    #[error("signed by {} of {threshold} signers", good.len())]
    ThresholdNotMet {
        /// The signers whose signatures count.
        good: Vec<Box<str>>,
        /// How many are needed.
        threshold: NonZeroUsize,
        /// What the rule wants.
        wanted: Wanted,
    },
    /// Older than the rule's `maxAge`.
    #[error("the signature is of {signed_at}, older than {}", humantime::format_duration(*max_age))]
    TooOld {
        /// When it was made.
        signed_at: Timestamp,
        /// The rule's `maxAge`.
        max_age: Duration,
        /// What the rule wants.
        wanted: Wanted,
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

/// Why nothing could be learned from a registry or signature source. `registry` is the canonical host, `url` what was
/// asked for, without credentials and query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The registry has no such image.
    #[error("{registry} has no such image")]
    ManifestUnknown {
        /// The registry.
        registry: Box<str>,
        /// What was asked.
        url: Box<str>,
    },
    /// The manifest is of a kind that no decision can stand on.
    #[error("{error}")]
    UnsupportedManifest {
        /// What was asked.
        url: Box<str>,
        /// What is wrong.
        error: ManifestError,
    },
    /// The registry wants other credentials, or any.
    #[error("{registry} answers {status}: the gate's credentials do not suffice")]
    Unauthorized {
        /// The registry.
        registry: Box<str>,
        /// What was asked.
        url: Box<str>,
        /// 401 or 403.
        status: u16,
        /// Whether credentials were sent.
        with_credentials: bool,
    },
    /// The registry can't be reached or is in trouble; it may be better later.
    #[error("{registry} can't be asked: {cause}")]
    Unavailable {
        /// The registry.
        registry: Box<str>,
        /// What was asked.
        url: Box<str>,
        /// In our own words.
        cause: Box<str>,
        /// How long it asked us to wait.
        retry_after: Option<Duration>,
    },
    /// The registry answers what no registry may answer.
    #[error("{registry} misbehaves: {what}")]
    Misbehaved {
        /// The registry.
        registry: Box<str>,
        /// What was asked.
        url: Box<str>,
        /// In our own words.
        what: Box<str>,
    },
    /// The time for this look-up is over.
    #[error("{registry} did not answer within {}", humantime::format_duration(*after))]
    TimedOut {
        /// The registry.
        registry: Box<str>,
        /// What was asked.
        url: Box<str>,
        /// The time that there was.
        after: Duration,
    },
}

/// What a rule wants, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The rule.
    pub rule: RuleId,
    /// The signers that the requirement names, each with the fingerprints of its certificates.
    pub signers: Arc<[(Box<str>, Vec<Fingerprint>)]>,
}

/// What makes a signature malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Not one OpenPGP message signed by one key.
    #[error("it is not one OpenPGP message with one signature")]
    Envelope,
    /// It inflates to more than a payload ever has.
    #[error("it inflates to more than {limit} bytes")]
    TooLarge {
        /// The bound.
        limit: usize,
    },
    /// It does not say when it was made.
    #[error("it does not say when it was made")]
    NoTime,
    /// The payload.
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

/// What makes a signature invalid.
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

/// A refusal's code: what users search for, and the section of docs/refusals.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // The names are those of the variants of Refusal and LookupError.
pub enum Code {
    NoPolicy,
    DeniedByPolicy,
    NotPinned,
    Unsigned,
    UntrustedKey,
    WrongIdentity,
    WrongDigest,
    MalformedSignature,
    InvalidSignature,
    ExpiredSignature,
    ExpiredKey,
    RevokedKey,
    WeakAlgorithm,
    ThresholdNotMet,
    TooOld,
    InvalidReference,
    UnknownResource,
    TooManyImages,
    ManifestUnknown,
    UnsupportedManifest,
    RegistryUnauthorized,
    RegistryUnavailable,
    RegistryMisbehaved,
    DeadlineExceeded,
    Overloaded,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 25] = [
        Self::NoPolicy,
        Self::DeniedByPolicy,
        Self::NotPinned,
        Self::Unsigned,
        Self::UntrustedKey,
        Self::WrongIdentity,
        Self::WrongDigest,
        Self::MalformedSignature,
        Self::InvalidSignature,
        Self::ExpiredSignature,
        Self::ExpiredKey,
        Self::RevokedKey,
        Self::WeakAlgorithm,
        Self::ThresholdNotMet,
        Self::TooOld,
        Self::InvalidReference,
        Self::UnknownResource,
        Self::TooManyImages,
        Self::ManifestUnknown,
        Self::UnsupportedManifest,
        Self::RegistryUnauthorized,
        Self::RegistryUnavailable,
        Self::RegistryMisbehaved,
        Self::DeadlineExceeded,
        Self::Overloaded,
    ];

    /// The code as users see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoPolicy => "no-policy",
            Self::DeniedByPolicy => "denied-by-policy",
            Self::NotPinned => "not-pinned",
            Self::Unsigned => "unsigned",
            Self::UntrustedKey => "untrusted-key",
            Self::WrongIdentity => "wrong-identity",
            Self::WrongDigest => "wrong-digest",
            Self::MalformedSignature => "malformed-signature",
            Self::InvalidSignature => "invalid-signature",
            Self::ExpiredSignature => "expired-signature",
            Self::ExpiredKey => "expired-key",
            Self::RevokedKey => "revoked-key",
            Self::WeakAlgorithm => "weak-algorithm",
            Self::ThresholdNotMet => "threshold-not-met",
            Self::TooOld => "too-old",
            Self::InvalidReference => "invalid-reference",
            Self::UnknownResource => "unknown-resource",
            Self::TooManyImages => "too-many-images",
            Self::ManifestUnknown => "manifest-unknown",
            Self::UnsupportedManifest => "unsupported-manifest",
            Self::RegistryUnauthorized => "registry-unauthorized",
            Self::RegistryUnavailable => "registry-unavailable",
            Self::RegistryMisbehaved => "registry-misbehaved",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::Overloaded => "overloaded",
        }
    }

    /// Whether the same question may have another answer soon. Then a denial tells controllers to try again.
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::RegistryUnauthorized
                | Self::RegistryUnavailable
                | Self::RegistryMisbehaved
                | Self::DeadlineExceeded
                | Self::Overloaded
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Refusal {
    /// The code.
    pub fn code(&self) -> Code {
        match self {
            Self::NoPolicy { .. } => Code::NoPolicy,
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
            Self::Lookup(error) => error.code(),
            Self::DeadlineExceeded { .. } => Code::DeadlineExceeded,
            Self::Overloaded => Code::Overloaded,
        }
    }

    /// What the reader of a denial should do next, one sentence or command. `image` is the image refused.
    pub fn next_step(&self, image: &str) -> String {
        match self {
            Self::NoPolicy { namespace: Some(namespace) } => {
                format!("Ask for a rule that covers it in the SealPolicy of namespace {namespace}.")
            }
            Self::NoPolicy { namespace: None } => "Ask for a rule that covers it in the cluster's policy.".to_owned(),
            Self::DeniedByPolicy { .. } => "Use an image that the policy allows.".to_owned(),
            Self::NotPinned { .. } => {
                "Name it with its digest (name@sha256:...), or create the pod again: the gate pins what it can verify."
                    .to_owned()
            }
            Self::Unsigned(wanted)
            | Self::UntrustedKey { wanted, .. }
            | Self::WrongDigest { wanted, .. }
            | Self::ThresholdNotMet { wanted, .. } => format!("Sign it with: {}", wanted.sign(image)),
            Self::WrongIdentity { wanted, .. } => {
                format!("Use the name that was signed, or sign it under this one: {}", wanted.sign(image))
            }
            Self::MalformedSignature { wanted, .. }
            | Self::InvalidSignature { wanted, .. }
            | Self::ExpiredSignature { wanted, .. }
            | Self::TooOld { wanted, .. } => format!("Sign it again with: {}", wanted.sign(image)),
            Self::ExpiredKey { wanted, .. } | Self::RevokedKey { wanted, .. } | Self::WeakAlgorithm { wanted, .. } => {
                format!("Sign it with a key that is valid now: {}", wanted.sign(image))
            }
            Self::InvalidReference(_) => "Write it as host/path:tag or host/path@sha256:...".to_owned(),
            Self::UnknownResource { .. } => {
                "Take the resource out of the webhook's rules, or run a version of Sealgate that knows it.".to_owned()
            }
            Self::TooManyImages { .. } => "Use fewer images, or raise limits.imagesPerReview.".to_owned(),
            Self::Lookup(error) => error.next_step().to_owned(),
            Self::DeadlineExceeded { .. } => {
                "Try again; if it lasts, see which registry is slow in the gate's log and metrics.".to_owned()
            }
            Self::Overloaded => "Try again; if it lasts, run more replicas of the gate.".to_owned(),
        }
    }
}

impl Wanted {
    /// The command that makes a wanted signature; `KEY` where no certificate is known.
    fn sign(&self, image: &str) -> String {
        let key = self.signers.iter().find_map(|(_, fingerprints)| fingerprints.first());
        match key {
            Some(key) => format!("sealgate sign {image} --sign-by {key}"),
            None => format!("sealgate sign {image} --sign-by KEY"),
        }
    }
}

impl LookupError {
    /// What the reader of a denial should do next.
    fn next_step(&self) -> &'static str {
        match self {
            Self::ManifestUnknown { .. } => "Push the image, or correct its name.",
            Self::UnsupportedManifest { .. } => "Push it again with a current tool.",
            Self::Unauthorized { .. } => {
                "Give the gate credentials that may pull it (registries, credentials in its configuration)."
            }
            Self::Unavailable { .. } | Self::TimedOut { .. } => {
                "Try again; if it lasts, see whether the gate can reach the registry."
            }
            Self::Misbehaved { .. } => "Tell those who run the registry; the gate's log has what it answered.",
        }
    }

    /// The code.
    pub fn code(&self) -> Code {
        match self {
            Self::ManifestUnknown { .. } => Code::ManifestUnknown,
            Self::UnsupportedManifest { .. } => Code::UnsupportedManifest,
            Self::Unauthorized { .. } => Code::RegistryUnauthorized,
            Self::Unavailable { .. } => Code::RegistryUnavailable,
            Self::Misbehaved { .. } => Code::RegistryMisbehaved,
            Self::TimedOut { .. } => Code::DeadlineExceeded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_signature_is_answered_with_the_command_that_makes_it() {
        let fingerprint = Fingerprint("81AB02".into());
        let signers = Arc::new([("acme-release".into(), vec![fingerprint])]);
        let wanted = Wanted { rule: RuleId::new("production", "acme"), signers };
        assert_eq!(
            Refusal::Unsigned(wanted).next_step("registry.example.com/acme/web:1"),
            "Sign it with: sealgate sign registry.example.com/acme/web:1 --sign-by 0x81AB02"
        );
    }
}
