//! Why there is no proof, and what people are told of each signature.

use std::{cell::OnceCell, collections::HashSet, sync::Arc};

use super::{
    budget::Effort,
    check::Trusted,
    checked_signature::{Fault, Judged},
    count::{count, signers_of, weigh},
    examination::ExaminedSignature,
    found_signatures::FoundSignatures,
    question::Question,
};
use crate::policy::Requirement;
use crate::refusal::{Refusal, RequirementSummary};
use crate::signature::{Fingerprint, KeyFault};

/// Why there is no proof.
pub(super) fn refuse(
    question: &Question<'_>,
    wants: &Wants<'_>,
    trusted: &Trusted,
    judged: &[Judged],
    found: &FoundSignatures,
    effort: &Effort<'_>,
) -> Refusal {
    let unmet = |want: &&Want<'_>| count(question, want.requirement, judged).len() < want.requirement.threshold.get();
    let unmet: Vec<&Want<'_>> = wants.0.iter().filter(unmet).collect();
    for want in &unmet {
        if let Some(fault) = unusable(question, trusted, want.requirement) {
            return Fault::from(fault).refusal(want.wanted(), None);
        }
    }
    if let Some(failure) = found.failure() {
        return failure.clone().into();
    }
    match unmet.first() {
        // Nothing is known of what was not looked at.
        Some(_) if effort.is_over => Refusal::TooManySignatures,
        Some(want) => match closest(question, want, judged) {
            // There are some.
            Refusal::Unsigned(_) if effort.left_out => Refusal::TooManySignatures,
            refusal => refusal,
        },
        // Not reached, for then there is proof; if it is, the answer is no all the same.
        None => Refusal::DeniedByPolicy { rule: question.rule.clone(), reason: "its requirements contradict".into() },
    }
}

/// Why no signature at all could fulfil the requirement now, if so: too few of its signers have a key that can be used.
fn unusable(question: &Question<'_>, trusted: &Trusted, requirement: &Requirement) -> Option<KeyFault> {
    let mut fault = None;
    let mut usable: HashSet<&str> = HashSet::new();
    for signer in &requirement.signed_by {
        for certificate in &signer.certificates {
            let fingerprint = certificate.fingerprint();
            let merged =
                trusted.iter().find(|(known, _)| *known == fingerprint).map_or(certificate, |(_, known)| known);
            match merged.usable(question.now) {
                Ok(()) => {
                    usable.insert(&signer.name);
                }
                Err(found) => fault = fault.or(Some(found)),
            }
        }
    }
    fault.filter(|_| usable.len() < requirement.threshold.get())
}

/// The refusal that tells most about what is missing.
fn closest(question: &Question<'_>, want: &Want<'_>, judged: &[Judged]) -> Refusal {
    const MOST_NAMED: usize = 8;
    let (requirement, wanted) = (want.requirement, want.wanted());
    let good: Vec<Box<str>> = count(question, requirement, judged).into_iter().map(|(key, _)| key.signer).collect();
    if !good.is_empty() {
        return Refusal::ThresholdNotMet { good, threshold: requirement.threshold, wanted };
    }
    let fault = |one| weigh(question, requirement, one).err().map(|fault| (one, fault));
    let faults: Vec<(&Judged, Fault)> = judged.iter().filter_map(fault).collect();
    let mut closest: Option<&(&Judged, Fault)> = None;
    for fault in &faults {
        if closest.is_none_or(|(_, known)| fault.1.closeness() > known.closeness()) {
            closest = Some(fault);
        }
    }
    match closest {
        None => Refusal::Unsigned(wanted),
        Some((_, Fault::Untrusted(_))) => {
            let mut signed_by: Vec<Fingerprint> = Vec::new();
            for (_, fault) in &faults {
                if let Fault::Untrusted(Some(key)) = fault
                    && signed_by.len() < MOST_NAMED
                    && !signed_by.contains(key)
                {
                    signed_by.push(key.clone());
                }
            }
            Refusal::UntrustedKey { signed_by, wanted }
        }
        Some((one, fault)) => fault.clone().refusal(wanted, one.at.as_deref()),
    }
}

/// The requirements, with what each wants in words: made once, if at all, and shared by all that is said of signatures.
pub(super) struct Wants<'a>(Vec<Want<'a>>);

struct Want<'a> {
    question: &'a Question<'a>,
    trusted: &'a Trusted,
    requirement: &'a Requirement,
    words: OnceCell<RequirementSummary>,
}

impl<'a> Wants<'a> {
    pub(super) fn of(question: &'a Question<'a>, trusted: &'a Trusted) -> Self {
        let want = |requirement| Want { question, trusted, requirement, words: OnceCell::new() };
        Self(question.requirements.all.iter().map(want).collect())
    }
}

impl Want<'_> {
    fn wanted(&self) -> RequirementSummary {
        self.words.get_or_init(|| wanted(self.question, self.trusted, self.requirement)).clone()
    }
}

pub(super) fn wanted(question: &Question<'_>, trusted: &Trusted, requirement: &Requirement) -> RequirementSummary {
    let mut unusable = Vec::new();
    let signers = requirement.signed_by.iter().map(|signer| {
        let keys: Vec<Fingerprint> = signer.certificates.iter().map(|certificate| certificate.fingerprint()).collect();
        let known = trusted.iter().filter(|(fingerprint, _)| keys.contains(fingerprint));
        let faulty = known.filter(|(_, certificate)| certificate.usable(question.now).is_err());
        unusable.extend(faulty.map(|(fingerprint, _)| fingerprint.clone()));
        (signer.name.clone(), keys)
    });
    RequirementSummary {
        rule: question.rule.clone(),
        signers: signers.collect(),
        unusable: unusable.into(),
        identity: Arc::new(requirement.identity.clone()),
        manifest: None,
    }
}

/// What people are told of a signature: it counts if it does for any requirement.
pub(super) fn examined(question: &Question<'_>, wants: &Wants<'_>, judged: Judged) -> ExaminedSignature {
    let mut outcome: Result<(), (&Want<'_>, Fault)> = Ok(());
    for want in &wants.0 {
        match weigh(question, want.requirement, &judged) {
            Ok(_) => {
                outcome = Ok(());
                break;
            }
            Err(fault) => match &outcome {
                Err((_, known)) if known.closeness() >= fault.closeness() => {}
                _ => outcome = Err((want, fault)),
            },
        }
    }
    let signer = judged.certificate.as_ref().and_then(|certificate| {
        question.requirements.all.iter().find_map(|requirement| signers_of(requirement, certificate).next())
    });
    let signer = signer.map(Box::from);
    let (identity, digest) = match judged.outcome {
        Ok(proven) => (Some(proven.identity), Some(proven.digest)),
        Err(_) => (None, None),
    };
    ExaminedSignature {
        place: judged.place,
        source: judged.source,
        key: judged.key,
        certificate: judged.certificate,
        signer,
        signed_at: judged.signed_at,
        identity,
        digest,
        outcome: outcome.map_err(|(want, fault)| fault.refusal(want.wanted(), judged.at.as_deref())),
    }
}
