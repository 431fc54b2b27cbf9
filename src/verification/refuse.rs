//! Why there is no proof, and what people are told of each signature.

use std::{cell::OnceCell, collections::HashSet, sync::Arc};

use super::{
    budget::VerificationBudget,
    check::TrustedCertificates,
    checked_signature::{CheckedSignature, SignatureFault},
    count::{count_signatures, match_requirement, signers_of},
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
    summaries: &RequirementSummaries<'_>,
    trusted: &TrustedCertificates,
    checked: &[CheckedSignature],
    found: &FoundSignatures,
    budget: &VerificationBudget<'_>,
) -> Refusal {
    let unmet = |want: &&LazySummary<'_>| {
        count_signatures(question, want.requirement, checked).len() < want.requirement.threshold.get()
    };
    let unmet: Vec<&LazySummary<'_>> = summaries.0.iter().filter(unmet).collect();
    for want in &unmet {
        if let Some(fault) = unusable(question, trusted, want.requirement) {
            return SignatureFault::from(fault).refusal(want.summary(), None);
        }
    }
    if let Some(failure) = found.failure() {
        return failure.clone().into();
    }
    match unmet.first() {
        // Nothing is known of what was not looked at.
        Some(_) if budget.is_over => Refusal::TooManySignatures,
        Some(want) => match closest(question, want, checked) {
            // There are some.
            Refusal::Unsigned(_) if budget.left_out => Refusal::TooManySignatures,
            refusal => refusal,
        },
        // Not reached, for then there is proof; if it is, the answer is no all the same.
        None => Refusal::DeniedByPolicy { rule: question.rule.clone(), reason: "its requirements contradict".into() },
    }
}

/// Why no signature at all could fulfil the requirement now, if so: too few of its signers have a key that can be used.
fn unusable(question: &Question<'_>, trusted: &TrustedCertificates, requirement: &Requirement) -> Option<KeyFault> {
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
fn closest(question: &Question<'_>, want: &LazySummary<'_>, checked: &[CheckedSignature]) -> Refusal {
    const MAX_NAMED_KEYS: usize = 8;
    let (requirement, wanted) = (want.requirement, want.summary());
    let good: Vec<Box<str>> =
        count_signatures(question, requirement, checked).into_iter().map(|(key, _)| key.signer).collect();
    if !good.is_empty() {
        return Refusal::ThresholdNotMet { good, threshold: requirement.threshold, wanted };
    }
    let fault = |one| match_requirement(question, requirement, one).err().map(|fault| (one, fault));
    let faults: Vec<(&CheckedSignature, SignatureFault)> = checked.iter().filter_map(fault).collect();
    let mut closest: Option<&(&CheckedSignature, SignatureFault)> = None;
    for fault in &faults {
        if closest.is_none_or(|(_, known)| fault.1.closeness() > known.closeness()) {
            closest = Some(fault);
        }
    }
    match closest {
        None => Refusal::Unsigned(wanted),
        Some((_, SignatureFault::Untrusted(_))) => {
            let mut signed_by: Vec<Fingerprint> = Vec::new();
            for (_, fault) in &faults {
                if let SignatureFault::Untrusted(Some(key)) = fault
                    && signed_by.len() < MAX_NAMED_KEYS
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
pub(super) struct RequirementSummaries<'a>(Vec<LazySummary<'a>>);

struct LazySummary<'a> {
    question: &'a Question<'a>,
    trusted: &'a TrustedCertificates,
    requirement: &'a Requirement,
    words: OnceCell<RequirementSummary>,
}

impl<'a> RequirementSummaries<'a> {
    pub(super) fn of(question: &'a Question<'a>, trusted: &'a TrustedCertificates) -> Self {
        let want = |requirement| LazySummary { question, trusted, requirement, words: OnceCell::new() };
        Self(question.requirements.all.iter().map(want).collect())
    }
}

impl LazySummary<'_> {
    fn summary(&self) -> RequirementSummary {
        self.words.get_or_init(|| summarize(self.question, self.trusted, self.requirement)).clone()
    }
}

pub(super) fn summarize(
    question: &Question<'_>,
    trusted: &TrustedCertificates,
    requirement: &Requirement,
) -> RequirementSummary {
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

/// Returns the report about one signature, for people. It counts if it counts for any requirement.
pub(super) fn examined_signature(
    question: &Question<'_>,
    summaries: &RequirementSummaries<'_>,
    checked: CheckedSignature,
) -> ExaminedSignature {
    let mut outcome: Result<(), (&LazySummary<'_>, SignatureFault)> = Ok(());
    for want in &summaries.0 {
        match match_requirement(question, want.requirement, &checked) {
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
    let signer = checked.certificate.as_ref().and_then(|certificate| {
        question.requirements.all.iter().find_map(|requirement| signers_of(requirement, certificate).next())
    });
    let signer = signer.map(Box::from);
    let (identity, digest) = match checked.outcome {
        Ok(proven) => (Some(proven.identity), Some(proven.digest)),
        Err(_) => (None, None),
    };
    ExaminedSignature {
        place: checked.place,
        source: checked.source,
        key: checked.key,
        certificate: checked.certificate,
        signer,
        signed_at: checked.signed_at,
        identity,
        digest,
        outcome: outcome.map_err(|(want, fault)| fault.refusal(want.summary(), checked.at.as_deref())),
    }
}
