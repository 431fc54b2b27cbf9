//! The next step for the reader of a denial.

use super::Refusal;
use crate::image::Reference;
use crate::policy::Identity;

impl Refusal {
    /// Returns the next step for the reader of a denial: one sentence or command. `image` is the image refused.
    pub fn next_step(&self, image: &str) -> String {
        match self {
            Self::NoPolicy => "Ask for a rule that covers it in the cluster's policy.".to_owned(),
            Self::PolicyUnavailable { .. } => {
                "Try again; if it lasts, those who run the gate find the reason in its log.".to_owned()
            }
            Self::DeniedByPolicy { .. } => "Use an image that the policy allows.".to_owned(),
            Self::NotPinned { digest, .. } => {
                let written = match (digest, Reference::for_image(image)) {
                    (Some(digest), Ok(image)) => image.pinned(*digest).to_string(),
                    (Some(digest), Err(_)) => digest.to_string(),
                    (None, _) => image.to_owned(),
                };
                format!(
                    "Create the pod again: the mutating webhook writes it so. If that does not help, it is not registered, or \
                     something takes away what it wrote; write {written}"
                )
            }
            Self::Unsigned(wanted) | Self::UntrustedKey { wanted, .. } | Self::WrongDigest { wanted, .. } => {
                wanted.step("Sign it with", image, &[])
            }
            Self::ThresholdNotMet { good, wanted, .. } => wanted.step("Let another signer sign it with", image, good),
            Self::WrongIdentity { wanted, .. } => {
                let words = match &*wanted.identity {
                    Identity::ExactReference(_) | Identity::ExactRepository(_) => "Sign it under that name",
                    Identity::Remap { .. } => "Sign it under its first name",
                    Identity::RepoDigestOrExact | Identity::Exact | Identity::Repository => {
                        "Use the name that was signed, or sign it under this one"
                    }
                };
                wanted.step(words, image, &[])
            }
            Self::MalformedSignature { wanted, .. }
            | Self::InvalidSignature { wanted, .. }
            | Self::ExpiredSignature { wanted, .. }
            | Self::TooOld { wanted, .. } => wanted.step("Sign it again with", image, &[]),
            Self::ExpiredKey { wanted, .. } | Self::RevokedKey { wanted, .. } => {
                wanted.step("Sign it with another key", image, &[])
            }
            Self::WeakAlgorithm { wanted, .. } => wanted.step("Sign it with a current key and hash", image, &[]),
            Self::InvalidReference(_) => "Write it as host/path:tag or host/path@sha256:...".to_owned(),
            Self::UnknownResource { .. } => {
                "Take the resource out of the webhook's rules, or run a version of Sealgate that knows it.".to_owned()
            }
            Self::TooManyImages { .. } => "Use fewer images, or raise limits.imagesPerReview.".to_owned(),
            Self::TooManySignatures => {
                "See with sealgate verify what lies beside the good signatures, and have it removed where they are stored."
                    .to_owned()
            }
            Self::ReviewTooCostly => {
                "Try again: what was checked is known by then; if it lasts, have signatures removed that are of no use."
                    .to_owned()
            }
            Self::Lookup(error) => error.next_step().to_owned(),
            Self::DeadlineExceeded { .. } => {
                "Try again; if it lasts, see which registry is slow in the gate's log and metrics.".to_owned()
            }
            Self::Overloaded => "Try again; if it lasts, run more replicas of the gate.".to_owned(),
        }
    }
}
