//! The codes of refusals.

use std::fmt;

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
    TooManySignatures,
    ManifestUnknown,
    UnsupportedManifest,
    RegistryUnauthorized,
    RegistryUnavailable,
    RegistryMisbehaved,
    PolicyUnavailable,
    DeadlineExceeded,
    Overloaded,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 27] = [
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
        Self::TooManySignatures,
        Self::ManifestUnknown,
        Self::UnsupportedManifest,
        Self::RegistryUnauthorized,
        Self::RegistryUnavailable,
        Self::RegistryMisbehaved,
        Self::PolicyUnavailable,
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
            Self::TooManySignatures => "too-many-signatures",
            Self::ManifestUnknown => "manifest-unknown",
            Self::UnsupportedManifest => "unsupported-manifest",
            Self::RegistryUnauthorized => "registry-unauthorized",
            Self::RegistryUnavailable => "registry-unavailable",
            Self::RegistryMisbehaved => "registry-misbehaved",
            Self::PolicyUnavailable => "policy-unavailable",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::Overloaded => "overloaded",
        }
    }

    /// Returns whether it says nothing of the image, because a registry or source could not be asked.
    pub fn is_undecided(self) -> bool {
        matches!(
            self,
            Self::RegistryUnauthorized
                | Self::RegistryUnavailable
                | Self::RegistryMisbehaved
                | Self::PolicyUnavailable
                | Self::DeadlineExceeded
                | Self::Overloaded
        )
    }

    /// Returns whether the same request may get another answer soon. Then a denial tells clients to try again.
    pub fn is_transient(self) -> bool {
        match self {
            // Docker Hub answers so to every misspelt name, and no user gets credentials within seconds.
            Self::RegistryUnauthorized => false,
            // What kept the mutation from pinning is over in a moment, as a rule.
            Self::NotPinned => true,
            code => code.is_undecided(),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
