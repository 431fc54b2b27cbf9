//! The comparison of valid signatures with a requirement, and the count of their signers.

use std::{collections::HashSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{
    checked_signature::{CheckedSignature, SignatureFault, ValidSignature},
    proof::{CountedSignatures, VerifiedImage, VerifiedKey},
    question::Question,
    time::earliest,
};
use crate::policy::{Requirement, identity};
use crate::signature::{Certificate, Fingerprint};

/// Compares a valid signature's digest, identity and age with this requirement, but not its signer. Returns the time
/// until which it counts.
fn fits(
    question: &Question<'_>,
    requirement: &Requirement,
    proven: &ValidSignature,
) -> Result<Option<Timestamp>, SignatureFault> {
    if proven.digest != question.digest {
        return Err(SignatureFault::WrongDigest(proven.digest));
    }
    if !identity::fits(&requirement.identity, question.image, &proven.identity) {
        return Err(SignatureFault::WrongIdentity(proven.identity.clone()));
    }
    let Some(max_age) = requirement.max_age else { return Ok(proven.valid_until) };
    let ends = SignedDuration::try_from(max_age).ok().and_then(|age| proven.signed_at.checked_add(age).ok());
    if ends.is_some_and(|ends| ends <= question.now) {
        return Err(SignatureFault::TooOld(proven.signed_at, max_age));
    }
    Ok(earliest([proven.valid_until, ends]))
}

/// Compares one signature, checked, with one requirement. Returns the time until which it counts, or why it does not
/// count.
pub(super) fn match_requirement(
    question: &Question<'_>,
    requirement: &Requirement,
    checked: &CheckedSignature,
) -> Result<Option<Timestamp>, SignatureFault> {
    let is_wanted = checked.certificate.as_ref().is_some_and(|one| signers_of(requirement, one).next().is_some());
    match &checked.outcome {
        Err(fault @ (SignatureFault::Malformed(_) | SignatureFault::Untrusted(_))) => Err(fault.clone()),
        _ if !is_wanted => Err(SignatureFault::Untrusted(checked.key.clone())),
        Err(fault) => Err(fault.clone()),
        Ok(proven) => fits(question, requirement, proven),
    }
}

/// The names under which a requirement knows a certificate; the loaders see to it that there is one at most.
pub(super) fn signers_of<'a>(
    requirement: &'a Requirement,
    certificate: &'a Fingerprint,
) -> impl Iterator<Item = &'a str> {
    let knows = move |one: &Arc<Certificate>| one.fingerprint() == *certificate;
    requirement.signed_by.iter().filter(move |signer| signer.certificates.iter().any(knows)).map(|signer| &*signer.name)
}

/// The signers whose signatures count for a requirement, as many as it wants or all that there are. A name counts once, and
/// so do a certificate and a key, even if a policy could have them under two names.
pub(super) fn count_signatures<'a>(
    question: &Question<'_>,
    requirement: &'a Requirement,
    checked: &'a [CheckedSignature],
) -> Vec<(VerifiedKey, Option<Timestamp>)> {
    let mut counted: Vec<(VerifiedKey, Option<Timestamp>)> = Vec::new();
    let mut keys: HashSet<&Fingerprint> = HashSet::new();
    for one in checked {
        let (Ok(proven), Ok(until)) = (&one.outcome, match_requirement(question, requirement, one)) else { continue };
        if counted.len() == requirement.threshold.get() {
            break;
        }
        if counted.iter().any(|(key, _)| key.fingerprint == proven.certificate) || !keys.insert(&proven.key) {
            continue;
        }
        let mut names = signers_of(requirement, &proven.certificate);
        if let Some(name) = names.find(|name| counted.iter().all(|(key, _)| *key.signer != **name)) {
            let (fingerprint, signed_at) = (proven.certificate.clone(), proven.signed_at);
            counted.push((VerifiedKey { signer: name.into(), fingerprint, signed_at }, until));
        }
    }
    counted
}

/// Returns the proof if every requirement is fulfilled.
pub(super) fn prove(question: &Question<'_>, checked: &[CheckedSignature]) -> Option<VerifiedImage> {
    let counted = |requirement: &Requirement| CountedSignatures {
        threshold: requirement.threshold,
        keys: count_signatures(question, requirement, checked),
    };
    VerifiedImage::by_signatures(question, question.requirements.all.iter().map(counted))
}
