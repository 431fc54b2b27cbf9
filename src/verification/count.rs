//! What good signatures are worth to a requirement.

use std::{collections::HashSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{
    checked_signature::{Fault, Judged, Proven},
    proof::{Counted, VerifiedImage, VerifiedKey},
    question::Question,
    time::first_of,
};
use crate::policy::{Requirement, identity};
use crate::signature::{Certificate, Fingerprint};

/// Whether a good signature is good for this requirement, and until when. Which signer it is of is another question.
fn fits(question: &Question<'_>, requirement: &Requirement, proven: &Proven) -> Result<Option<Timestamp>, Fault> {
    if proven.digest != question.digest {
        return Err(Fault::WrongDigest(proven.digest));
    }
    if !identity::fits(&requirement.identity, question.image, &proven.identity) {
        return Err(Fault::WrongIdentity(proven.identity.clone()));
    }
    let Some(max_age) = requirement.max_age else { return Ok(proven.valid_until) };
    let ends = SignedDuration::try_from(max_age).ok().and_then(|age| proven.signed_at.checked_add(age).ok());
    if ends.is_some_and(|ends| ends <= question.now) {
        return Err(Fault::TooOld(proven.signed_at, max_age));
    }
    Ok(first_of([proven.valid_until, ends]))
}

/// What one signature is to one requirement.
pub(super) fn weigh(
    question: &Question<'_>,
    requirement: &Requirement,
    judged: &Judged,
) -> Result<Option<Timestamp>, Fault> {
    let is_wanted = judged.certificate.as_ref().is_some_and(|one| signers_of(requirement, one).next().is_some());
    match &judged.outcome {
        Err(fault @ (Fault::Malformed(_) | Fault::Untrusted(_))) => Err(fault.clone()),
        _ if !is_wanted => Err(Fault::Untrusted(judged.key.clone())),
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
pub(super) fn count<'a>(
    question: &Question<'_>,
    requirement: &'a Requirement,
    judged: &'a [Judged],
) -> Vec<(VerifiedKey, Option<Timestamp>)> {
    let mut counted: Vec<(VerifiedKey, Option<Timestamp>)> = Vec::new();
    let mut keys: HashSet<&Fingerprint> = HashSet::new();
    for one in judged {
        let (Ok(proven), Ok(until)) = (&one.outcome, weigh(question, requirement, one)) else { continue };
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
pub(super) fn prove(question: &Question<'_>, judged: &[Judged]) -> Option<VerifiedImage> {
    let counted = |requirement: &Requirement| Counted {
        threshold: requirement.threshold,
        keys: count(question, requirement, judged),
    };
    VerifiedImage::by_signatures(question, question.requirements.all.iter().map(counted))
}
