//! The check of one signature: opened, and tried with the key that it names.

use std::{collections::HashSet, sync::Arc};

use sequoia_openpgp::{KeyHandle, crypto::hash::Hash as _};

use super::{
    allowance::{CHECK_PRICE, PUBLIC_KEY_PRICE, price_of_look, price_of_opening},
    budget::VerificationBudget,
    checked_signature::{CheckedSignature, SignatureFault, ValidSignature},
    count::prove,
    question::Question,
    time::{CLOCK_TOLERANCE, earliest},
};
use crate::policy::{Requirement, Requirements, identity};
use crate::refusal::Invalid;
use crate::signature::{
    Certificate, Fingerprint, Malformed, UntrustedSignature,
    certificate::{is_understood, timestamp, weak_hash},
    envelope::{self, Message, Peek},
    payload::Payload,
};

/// The most signatures by keys that the rule does not name that are listed for people.
pub(super) const MAX_LISTED: usize = 64;

/// The certificates of a rule, each once.
pub(super) type TrustedCertificates = [(Fingerprint, Arc<Certificate>)];

/// The depth of an examination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Until they prove what is asked, or the tries are over.
    UntilProven,
    /// To the last.
    All,
}

/// Every certificate that the requirements name. Where one stands there in several versions, all that they say holds, as if
/// they had been imported into one keyring: a revocation in one of them is a revocation.
pub(super) fn trusted_certificates(requirements: &Requirements) -> Vec<(Fingerprint, Arc<Certificate>)> {
    let mut trusted: Vec<(Fingerprint, Arc<Certificate>)> = Vec::new();
    for certificate in requirements.all.iter().flat_map(|one| &one.signed_by).flat_map(|signer| &signer.certificates) {
        if trusted.iter().any(|(_, known)| Arc::ptr_eq(known, certificate)) {
            continue;
        }
        let fingerprint = certificate.fingerprint();
        match trusted.iter_mut().find(|(known, _)| *known == fingerprint) {
            Some((_, known)) => {
                if let Some(merged) = known.merged(certificate) {
                    *known = Arc::new(merged);
                }
            }
            None => trusted.push((fingerprint, Arc::clone(certificate))),
        }
    }
    trusted
}

/// The order in which signatures are tried, by what opening each shows.
enum Triage {
    /// It names a key of the rule, and its payload fits: these are tried first.
    Promising,
    /// It takes long to open. The price.
    Slow(u64),
    /// It names a key of the rule, and its payload does not fit; a try tells what was signed.
    Wanted,
    /// No try can help.
    Hopeless(Box<CheckedSignature>),
}

impl Triage {
    fn order(&self) -> u8 {
        match self {
            Self::Promising => 0,
            Self::Slow(_) => 1,
            Self::Wanted => 2,
            Self::Hopeless(checked) if matches!(checked.outcome, Err(SignatureFault::Malformed(_))) => 3,
            Self::Hopeless(_) => 4,
        }
    }
}

/// Looks at signatures until the requirements are fulfilled, or at all of them.
pub(super) fn check_all(
    question: &Question<'_>,
    trusted: &TrustedCertificates,
    signatures: &[UntrustedSignature],
    budget: &mut VerificationBudget<'_>,
    extent: Extent,
) -> Vec<CheckedSignature> {
    let mut seen = HashSet::new();
    let mut candidates: Vec<(usize, &UntrustedSignature, Triage)> = signatures
        .iter()
        .enumerate()
        .filter(|(_, signature)| extent == Extent::All || seen.insert(&*signature.content))
        .map_while(|(place, signature)| {
            budget.take(price_of_look(&signature.content))?;
            Some((place, signature, look(question, trusted, signature, budget)))
        })
        .collect();
    candidates.sort_by_key(|(_, _, triage)| triage.order());

    let (mut checked, mut hopeless) = (Vec::new(), 0);
    for (place, signature, triage) in candidates {
        let one = match triage {
            Triage::Hopeless(one) => {
                hopeless += 1;
                (extent == Extent::All || hopeless <= MAX_LISTED).then_some(*one)
            }
            Triage::Promising | Triage::Wanted => {
                let taken = budget.take(price_of_look(&signature.content));
                let one = taken.and_then(|()| attempt(question, trusted, signature, budget));
                budget.left_out |= one.is_none();
                one
            }
            Triage::Slow(price) => {
                let one = budget.take_slow_opening(price).and_then(|()| {
                    budget.is_paid = true;
                    let one = attempt(question, trusted, signature, budget);
                    budget.is_paid = false;
                    one
                });
                budget.left_out |= one.is_none();
                one
            }
        };
        if budget.is_over {
            break;
        }
        let Some(one) = one else { continue };
        let good = one.outcome.is_ok();
        checked.push(CheckedSignature { place, ..one });
        if extent == Extent::UntilProven && good && prove(question, &checked).is_some() {
            break;
        }
    }
    checked
}

/// Opens a signature, without cryptography, if that costs little.
fn look(
    question: &Question<'_>,
    trusted: &TrustedCertificates,
    signature: &UntrustedSignature,
    budget: &mut VerificationBudget<'_>,
) -> Triage {
    let knows = |issuers: &[KeyHandle]| trusted.iter().any(|(_, one)| one.keys_of(issuers).next().is_some());
    let message = match envelope::peek(&signature.content, &mut budget.inflated) {
        Ok(Peek::Message(message)) => message,
        Ok(Peek::Slow(Some(issuer))) if !knows(std::slice::from_ref(&issuer)) => {
            let key = Fingerprint::of(&issuer);
            let one = CheckedSignature {
                key: Some(key.clone()),
                ..hopeless(signature, None, SignatureFault::Untrusted(Some(key)))
            };
            return Triage::Hopeless(Box::new(one));
        }
        Ok(slow @ Peek::Slow(_)) => return Triage::Slow(price_of_opening(&signature.content, &slow)),
        Err(why) => return Triage::Hopeless(Box::new(hopeless(signature, None, SignatureFault::Malformed(why)))),
    };
    if !knows(&message.issuers) {
        let named = named_key(&message);
        return Triage::Hopeless(Box::new(hopeless(signature, Some(&message), SignatureFault::Untrusted(named))));
    }
    let fits = Payload::parse(&message.body).is_ok_and(|payload| {
        let fits = |one: &Requirement| identity::fits(&one.identity, question.image, &payload.identity);
        payload.digest == question.digest && question.requirements.all.iter().any(fits)
    });
    if fits { Triage::Promising } else { Triage::Wanted }
}

fn hopeless(signature: &UntrustedSignature, message: Option<&Message>, fault: SignatureFault) -> CheckedSignature {
    CheckedSignature {
        // `check_all` knows it.
        place: 0,
        source: Arc::clone(&signature.source),
        at: matches!(fault, SignatureFault::Malformed(_)).then(|| signature.place()),
        key: message.and_then(named_key),
        certificate: None,
        signed_at: message.and_then(|message| message.signature.signature_creation_time()).map(timestamp),
        outcome: Err(fault),
    }
}

/// The key that a message names, by its fingerprint where it gives that.
fn named_key(message: &Message) -> Option<Fingerprint> {
    message.issuers.first().map(Fingerprint::of)
}

/// Tries a signature with each key that it may be of; usually that is one. Nothing if the tries are over before.
fn attempt(
    question: &Question<'_>,
    trusted: &TrustedCertificates,
    signature: &UntrustedSignature,
    budget: &mut VerificationBudget<'_>,
) -> Option<CheckedSignature> {
    let message = match envelope::open(&signature.content, &mut budget.inflated) {
        Ok(message) => message,
        Err(why) => return Some(hopeless(signature, None, SignatureFault::Malformed(why))),
    };
    let mut best = hopeless(signature, Some(&message), SignatureFault::Untrusted(named_key(&message)));
    for (fingerprint, certificate) in trusted {
        for key in certificate.keys_of(&message.issuers) {
            let handle = key.key().key_handle();
            let outcome = try_key(question, certificate, &key, &message, budget)?;
            let closer = match (&outcome, &best.outcome) {
                (Ok(_), _) => true,
                (Err(fault), Err(known)) => fault.closeness() > known.closeness(),
                (Err(_), Ok(_)) => false,
            };
            if closer {
                best.at = matches!(outcome, Err(SignatureFault::Malformed(_))).then(|| signature.place());
                best.key = Some(Fingerprint::of(&handle));
                best.certificate = Some(fingerprint.clone());
                best.outcome = outcome;
            }
            if best.outcome.is_ok() {
                return Some(best);
            }
        }
    }
    Some(best)
}

type KeyOf<'a> =
    sequoia_openpgp::cert::amalgamation::key::ErasedKeyAmalgamation<'a, sequoia_openpgp::packet::key::PublicParts>;

/// Everything that must hold of a signature by this key, whatever a requirement says. Nothing if the tries or the allowance
/// are over.
fn try_key(
    question: &Question<'_>,
    certificate: &Certificate,
    key: &KeyOf<'_>,
    message: &Message,
    budget: &mut VerificationBudget<'_>,
) -> Option<Result<ValidSignature, SignatureFault>> {
    budget.take(CHECK_PRICE)?;
    let signature = &message.signature;
    let name = Fingerprint::of(&KeyHandle::from(key.key().fingerprint()));
    let now = question.now;
    let Some(signed_at) = signature.signature_creation_time().map(timestamp) else {
        return Some(Err(SignatureFault::Malformed(Malformed::NoTime)));
    };
    if let Some(algorithm) = weak_hash(signature) {
        return Some(Err(SignatureFault::Weak(name, algorithm)));
    }
    if !is_understood(signature, now) {
        return Some(Err(SignatureFault::Invalid(name, Invalid::Critical)));
    }
    if signed_at.duration_since(now) > CLOCK_TOLERANCE {
        return Some(Err(SignatureFault::Invalid(name, Invalid::Future(signed_at))));
    }
    let key_ends = match certificate.check(key, signed_at, now) {
        Ok(expiry) => expiry,
        Err(fault) => return Some(Err(fault.into())),
    };
    // The first bits of the hash stand in the signature: of one that was damaged on its way, that much is seen for nothing.
    if !has_its_hash(message) {
        return Some(Err(SignatureFault::Invalid(name, Invalid::Cryptography)));
    }
    budget.take_try()?;
    budget.take(PUBLIC_KEY_PRICE)?;
    if signature.verify_message(key.key(), &message.body).is_err() {
        return Some(Err(SignatureFault::Invalid(name, Invalid::Cryptography)));
    }
    let signature_ends = signature.signature_expiration_time().map(timestamp);
    if let Some(at) = signature_ends
        && at <= now
    {
        return Some(Err(SignatureFault::ExpiredSignature(name, at)));
    }
    let payload = match Payload::parse(&message.body) {
        Ok(payload) => payload,
        Err(error) => return Some(Err(SignatureFault::Malformed(error.into()))),
    };
    Some(Ok(ValidSignature {
        digest: payload.digest,
        identity: payload.identity,
        certificate: certificate.fingerprint(),
        key: name,
        signed_at,
        valid_until: earliest([key_ends, signature_ends]),
    }))
}

/// Returns whether the left 16 bits of the hash are those that the signature gives (RFC 9580, section 5.2.3). GnuPG wants
/// that too.
fn has_its_hash(message: &Message) -> bool {
    let Message { signature, body, .. } = message;
    let hash = || {
        let mut hash = signature.hash_algo().context()?.for_signature(signature.version());
        if let Some(salt) = signature.salt() {
            hash.update(salt);
        }
        hash.update(body);
        signature.hash(&mut hash)?;
        hash.into_digest()
    };
    hash().is_ok_and(|digest| digest.starts_with(signature.digest_prefix()))
}
