//! The facts of a refusal, for logs and JSON output.

use serde_json::{Value, json};

use super::{Refusal, Unpinned};
use crate::policy::RuleId;
use crate::signature::Fingerprint;

impl Refusal {
    /// The facts, for logs and JSON output: `code`, and what the variant carries; fingerprints whole.
    pub fn facts(&self) -> Value {
        let mut facts = match self {
            Self::PolicyUnavailable { limit } => json!({ "limitSeconds": limit.as_secs() }),
            Self::DeniedByPolicy { rule, reason } => json!({ "rule": rule.as_str(), "reason": reason }),
            Self::NotPinned { why, digest } => {
                let mut facts = json!({ "why": why.to_string(), "digest": digest.map(|digest| digest.to_string()) });
                match why {
                    Unpinned::Verified { rule } | Unpinned::Allowed { rule } | Unpinned::ShortName { rule } => {
                        facts["rule"] = rule.as_str().into();
                    }
                    Unpinned::MayFallUnder { rule } => facts["rule"] = rule.as_ref().map(RuleId::as_str).into(),
                    Unpinned::Exempted { exemption } | Unpinned::ExemptedShortName { exemption } => {
                        facts["exemption"] = exemption.as_str().into();
                    }
                }
                facts
            }
            Self::UntrustedKey { signed_by, .. } => {
                json!({ "signedBy": signed_by.iter().map(ToString::to_string).collect::<Vec<_>>() })
            }
            Self::WrongIdentity { signed, .. } => json!({ "signed": signed.to_string() }),
            Self::WrongDigest { signed, .. } => json!({ "signed": signed.to_string() }),
            Self::MalformedSignature { why, at, .. } => json!({ "why": why.to_string(), "at": at }),
            Self::InvalidSignature { key, why, .. } => json!({ "key": key.to_string(), "why": why.to_string() }),
            Self::ExpiredSignature { key, at, .. } | Self::ExpiredKey { key, at, .. } => {
                json!({ "key": key.to_string(), "expiredAt": at.to_string() })
            }
            Self::RevokedKey { key, .. } => json!({ "key": key.to_string() }),
            Self::WeakAlgorithm { key, algorithm, .. } => json!({ "key": key.to_string(), "algorithm": algorithm }),
            Self::ThresholdNotMet { good, threshold, .. } => json!({ "good": good, "threshold": threshold }),
            Self::TooOld { signed_at, max_age, .. } => {
                json!({ "signedAt": signed_at.to_string(), "maxAgeSeconds": max_age.as_secs() })
            }
            Self::InvalidReference(error) => json!({ "why": error.to_string() }),
            Self::UnknownResource { group, version, resource } => {
                json!({ "group": group, "version": version, "resource": resource })
            }
            Self::TooManyImages { found, limit } => json!({ "found": found, "limit": limit }),
            Self::Lookup(error) => error.facts(),
            Self::DeadlineExceeded { after } => json!({ "afterSeconds": after.as_secs_f64() }),
            Self::NoPolicy | Self::Unsigned(_) | Self::TooManySignatures | Self::ReviewTooCostly | Self::Overloaded => {
                json!({})
            }
        };
        facts["code"] = self.code().as_str().into();
        if let Some(wanted) = self.wanted() {
            let keys = |keys: &[Fingerprint]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
            let signers =
                wanted.signers.iter().map(|(name, fingerprints)| json!({ "name": name, "keys": keys(fingerprints) }));
            facts["rule"] = wanted.rule.as_str().into();
            facts["wanted"] = signers.collect();
            if let Some(manifest) = &wanted.manifest {
                facts["manifest"] = manifest.to_string().into();
            }
        }
        facts
    }
}
