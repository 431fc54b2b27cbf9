//! Verification: whether signatures prove what a rule requires. No other module says yes; [`proof`] alone makes the proof.
//!
//! Signatures are looked at in three steps, from cheap to dear. Each is opened (at a cost in proportion to its size, without
//! cryptography), which tells the key that it names; those that name a key of the rule are tried, the ones with a fitting
//! payload first; what a try proves is then held against each requirement.
//!
//! So an attacker can't drown a good signature in junk that names no key of the rule, or in bombs, however much of it there is.
//! Forgeries that name the key and the image, and are whole but for the signature itself, can use up the tries: then an image
//! is refused that could run. None runs that could not.
//!
//! Every step has a [price](allowance), so that a caller can bound the cost, and end it.

mod allowance;
mod budget;
mod check;
mod checked_signature;
mod count;
mod examination;
mod found_signatures;
mod proof;
mod question;
mod refuse;
#[cfg(test)]
mod tests;
mod time;

use std::collections::HashSet;

use self::{
    budget::VerificationBudget,
    check::{Extent, check_all, trusted_certificates},
    count::prove,
    proof::Unproven,
    refuse::{RequirementSummaries, examined_signature, refuse, summarize},
};
pub use allowance::{Allowance, Unlimited};
pub use examination::{Examination, ExaminedSignature};
pub use found_signatures::{AskedSource, FoundSignatures};
pub use proof::{VerifiedImage, VerifiedKey};
pub use question::Question;
pub use time::CLOCK_TOLERANCE;

use crate::image::HashedManifest;
use crate::refusal::Refusal;

/// Checks whether the signatures prove that the image fulfils the requirements.
///
/// One good signature suffices for a threshold of one; bad ones beside it do no harm. Where there is no proof and a source
/// could not be asked, the refusal is that source's failure, for nothing is known then; unless no signature could help,
/// because the keys can't be used.
pub fn verify(question: &Question<'_>, found: &FoundSignatures) -> Examination {
    verify_within(question, found, &Unlimited)
}

/// Like [`verify`], at the cost of what is left of `allowance` at most. Where that ends before there is proof, the refusal is
/// [`Refusal::TooManySignatures`], unless another one holds whatever the signatures are.
pub fn verify_within(question: &Question<'_>, found: &FoundSignatures, allowance: &dyn Allowance) -> Examination {
    examine(question, found, &mut VerificationBudget::within(question.tries, allowance), Extent::UntilProven)
}

/// Like [`verify`], and checks and lists every signature, copies and those after the proof included: for tools that report on
/// each of them. `question.tries` bounds nothing here, so it may take long.
pub fn examine_all(question: &Question<'_>, found: &FoundSignatures) -> Examination {
    examine(question, found, &mut VerificationBudget::unlimited(), Extent::All)
}

fn examine(
    question: &Question<'_>,
    found: &FoundSignatures,
    budget: &mut VerificationBudget<'_>,
    extent: Extent,
) -> Examination {
    let asked = found.asked.clone();
    if let Err(refusal) = can_be_met(question) {
        return Examination { result: Err(refusal), signatures: Vec::new(), asked };
    }
    let trusted = trusted_certificates(question.requirements);
    let checked = check_all(question, &trusted, &found.signatures, budget, extent);
    let summaries = RequirementSummaries::of(question, &trusted);
    let result = match prove(question, &checked) {
        Some(proof) => Ok(proof),
        None => Err(refuse(question, &summaries, &trusted, &checked, found, budget)),
    };
    let signatures = checked.into_iter().map(|checked| examined_signature(question, &summaries, checked)).collect();
    Examination { result, signatures, asked }
}

/// Joins the proofs of every manifest in an index into one of the index: `platforms: each`.
///
/// `index` has the digest that is asked about. `proofs` are the results of [`verify`] (of this function for a nested index) for
/// the same image and rule, one for each entry that is no attestation, in their order.
///
/// # Errors
/// Returns the first refusal among the proofs. It is an error, too, if there is no entry but attestations, if the index is another
/// one, or if a proof is missing, superfluous, or for another digest, image or rule.
pub fn verify_each(
    question: &Question<'_>,
    index: &HashedManifest,
    proofs: &[Result<VerifiedImage, Refusal>],
) -> Result<VerifiedImage, Refusal> {
    can_be_met(question)?;
    // `can_be_met` has seen to it that there is one.
    let unsigned = || match question.requirements.all.first() {
        Some(requirement) => {
            Refusal::Unsigned(summarize(question, &trusted_certificates(question.requirements), requirement))
        }
        None => Refusal::DeniedByPolicy { rule: question.rule.clone(), reason: "it requires nothing".into() },
    };
    VerifiedImage::by_entries(question, index, proofs).map_err(|unproven| match unproven {
        Unproven::Refused(refusal) => *refusal,
        Unproven::Mismatch => unsigned(),
    })
}

/// Refuses what no signature can ever fulfil. The loaders refuse such rules; a mistake of theirs must not become a yes.
fn can_be_met(question: &Question<'_>) -> Result<(), Refusal> {
    let denied = |reason: &str| Refusal::DeniedByPolicy { rule: question.rule.clone(), reason: reason.into() };
    if question.requirements.all.is_empty() {
        return Err(denied("it requires nothing, which proves nothing"));
    }
    for requirement in &question.requirements.all {
        let names: HashSet<&str> = requirement.signed_by.iter().map(|signer| &*signer.name).collect();
        if names.is_empty() {
            return Err(denied("it names no signer"));
        }
        if requirement.threshold.get() > names.len() {
            return Err(denied("it wants more signers than it names"));
        }
        if requirement.signed_by.iter().any(|signer| signer.certificates.is_empty()) {
            return Err(denied("it names a signer without a key"));
        }
    }
    Ok(())
}
