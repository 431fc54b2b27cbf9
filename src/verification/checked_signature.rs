//! One signature after its check: the valid signature, or the fault for which it does not count.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::image::{Digest, Reference};
use crate::refusal::{Invalid, Refusal, RequirementSummary};
use crate::signature::{Fingerprint, KeyFault, Malformed};

/// A signature, after it was looked at.
pub(super) struct CheckedSignature {
    pub(super) place: usize,
    pub(super) source: Arc<str>,
    /// The place of a malformed signature, in words that can stand in a denial.
    pub(super) at: Option<Box<str>>,
    /// The key that it names, or that it was proven to be of.
    pub(super) key: Option<Fingerprint>,
    /// The certificate of that key, where it is one of the rule's.
    pub(super) certificate: Option<Fingerprint>,
    pub(super) signed_at: Option<Timestamp>,
    pub(super) outcome: Result<ValidSignature, SignatureFault>,
}

/// A signature that is good as such: what it is good for, each requirement has to say.
pub(super) struct ValidSignature {
    pub(super) digest: Digest,
    pub(super) identity: Reference,
    pub(super) certificate: Fingerprint,
    pub(super) key: Fingerprint,
    pub(super) signed_at: Timestamp,
    pub(super) valid_until: Option<Timestamp>,
}

/// Why a signature does not count, as a [`Refusal`] without what the rule wants.
#[derive(Clone)]
pub(super) enum SignatureFault {
    Untrusted(Option<Fingerprint>),
    Malformed(Malformed),
    Invalid(Fingerprint, Invalid),
    Weak(Fingerprint, Box<str>),
    Revoked(Fingerprint),
    ExpiredKey(Fingerprint, Timestamp),
    ExpiredSignature(Fingerprint, Timestamp),
    WrongDigest(Digest),
    WrongIdentity(Reference),
    TooOld(Timestamp, Duration),
}

impl From<KeyFault> for SignatureFault {
    fn from(fault: KeyFault) -> Self {
        match fault {
            KeyFault::Revoked { key } => Self::Revoked(key),
            KeyFault::Expired { key, at } => Self::ExpiredKey(key, at),
            KeyFault::Weak { key, algorithm } => Self::Weak(key, algorithm),
            KeyFault::NotForSigning { ref key } | KeyFault::Unbound { ref key } | KeyFault::Younger { ref key, .. } => {
                Self::Invalid(key.clone(), Invalid::Key(fault))
            }
        }
    }
}

impl SignatureFault {
    /// Ranks faults by how close to success they are: the closest tells the reader most about what is missing.
    pub(super) fn closeness(&self) -> u8 {
        match self {
            Self::Untrusted(_) => 0,
            Self::Malformed(_) => 1,
            Self::Invalid(..) => 2,
            Self::Weak(..) => 3,
            Self::Revoked(_) => 4,
            Self::ExpiredKey(..) => 5,
            Self::ExpiredSignature(..) => 6,
            Self::WrongDigest(_) => 7,
            Self::WrongIdentity(_) => 8,
            Self::TooOld(..) => 9,
        }
    }

    /// Returns the refusal with what the rule wants. `at` is where the signature is.
    pub(super) fn refusal(self, wanted: RequirementSummary, at: Option<&str>) -> Refusal {
        match self {
            Self::Untrusted(key) => Refusal::UntrustedKey { signed_by: key.into_iter().collect(), wanted },
            Self::Malformed(why) => Refusal::MalformedSignature { why, at: at.map(Box::from), wanted },
            Self::Invalid(key, why) => Refusal::InvalidSignature { key, why, wanted },
            Self::Weak(key, algorithm) => Refusal::WeakAlgorithm { key, algorithm, wanted },
            Self::Revoked(key) => Refusal::RevokedKey { key, wanted },
            Self::ExpiredKey(key, at) => Refusal::ExpiredKey { key, at, wanted },
            Self::ExpiredSignature(key, at) => Refusal::ExpiredSignature { key, at, wanted },
            Self::WrongDigest(signed) => Refusal::WrongDigest { signed: Box::new(signed), wanted },
            Self::WrongIdentity(signed) => Refusal::WrongIdentity { signed: Box::new(signed), wanted },
            Self::TooOld(signed_at, max_age) => Refusal::TooOld { signed_at, max_age, wanted },
        }
    }
}
