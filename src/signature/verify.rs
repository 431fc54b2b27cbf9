//! The one place that says yes: whether signatures prove what a rule requires.
//!
//! Signatures are looked at in three steps, from cheap to dear. Each is opened (at a cost in proportion to its size, without
//! cryptography), which tells the key that it names; those that name a key of the rule are tried, the ones with a fitting
//! payload first; what a try proves is then held against each requirement.
//!
//! So nobody can drown a good signature in junk that names no key of the rule, or in bombs, however much of it there is. Who
//! goes to the length of forgeries, which name the key and the image and are whole but for the signature itself, can use up
//! the tries with them: then an image is refused that could run. None runs that could not.

use std::{cell::OnceCell, collections::HashSet, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use sequoia_openpgp::{KeyHandle, crypto::hash::Hash as _};

use super::{
    AskedSource, Certificate, ExaminedSignature, Fingerprint, FoundSignatures, UntrustedSignature,
    certificate::{KeyFault, is_understood, timestamp, weak_hash},
    envelope::{self, Glance, Message},
    identity,
    payload::Payload,
};
use crate::image::{Descriptor, Digest, HashedManifest, Reference};
use crate::policy::{Requirement, Requirements, RuleId};
use crate::verdict::{
    Refusal,
    refusal::{Invalid, Malformed, Wanted},
};

/// How far a signer's clock may be ahead of ours.
pub const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);
/// How many signatures by keys that the rule does not name are listed for people.
const MOST_LISTED: usize = 64;

/// Proof that an image fulfils a rule's requirements. Only [`verify`] and [`verify_each`] build one.
#[derive(Clone, Debug)]
pub struct VerifiedImage(Arc<Proof>);

#[derive(Debug)]
struct Proof {
    image: Reference,
    digest: Digest,
    rule: RuleId,
    keys: Arc<[VerifiedKey]>,
    valid_until: Option<Timestamp>,
}

/// A key whose signature counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedKey {
    /// The signer's name in the policy.
    pub signer: Box<str>,
    /// The certificate's fingerprint.
    pub fingerprint: Fingerprint,
    /// When the signature was made.
    pub signed_at: Timestamp,
}

/// What is asked of the signatures.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The image as it was asked for, canonical: identities are compared with this.
    pub image: &'a Reference,
    /// The digest that was computed over the manifest's bytes.
    pub digest: Digest,
    /// The rule that applies.
    pub rule: &'a RuleId,
    /// What it requires.
    pub requirements: &'a Requirements,
    /// The time that it is now.
    pub now: Timestamp,
    /// How many signatures may be tried (not: be there).
    pub tries: usize,
}

/// The answer, with what was seen on the way to it.
#[derive(Clone, Debug)]
pub struct Examination {
    /// The proof, or why there is none.
    pub result: Result<VerifiedImage, Refusal>,
    /// Each signature looked at, those that were tried first. Left out are copies, what came after the proof was there or
    /// the tries were over, and of signatures by keys that nobody asked for all but the first 64; `asked` has the counts.
    pub signatures: Vec<ExaminedSignature>,
    /// Each source asked.
    pub asked: Vec<AskedSource>,
}

impl VerifiedImage {
    /// The image that it was asked for as.
    pub fn image(&self) -> &Reference {
        &self.0.image
    }

    /// The digest that is proven.
    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    /// The rule that it fulfils.
    pub fn rule(&self) -> &RuleId {
        &self.0.rule
    }

    /// The keys whose signatures counted.
    pub fn keys(&self) -> &[VerifiedKey] {
        &self.0.keys
    }

    /// When the proof ends: the first expiry of a signature or certificate that it needs, or signing time + `maxAge`. At that
    /// very time it is over.
    pub fn valid_until(&self) -> Option<Timestamp> {
        self.0.valid_until
    }
}

/// Whether the signatures prove that the image fulfils the requirements.
///
/// One good signature suffices for a threshold of one; bad ones beside it do no harm. Where there is no proof and a source
/// could not be asked, the refusal is that source's failure, for nothing is known then; unless no signature could help,
/// because the keys can't be used.
pub fn verify(question: &Question<'_>, found: &FoundSignatures) -> Examination {
    examine(question, found, Extent::UntilProven)
}

/// The same, and every signature is looked at and listed, copies and what comes after the proof included: for whoever wants
/// to know what each of them is worth. `question.tries` bounds nothing here, so this is not for those who are in a hurry.
pub fn examine_all(question: &Question<'_>, found: &FoundSignatures) -> Examination {
    examine(question, found, Extent::All)
}

/// How far signatures are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// Until they prove what is asked, or the tries are over.
    UntilProven,
    /// To the last.
    All,
}

fn examine(question: &Question<'_>, found: &FoundSignatures, extent: Extent) -> Examination {
    let asked = found.asked.clone();
    if let Err(refusal) = can_be_met(question) {
        return Examination { result: Err(refusal), signatures: Vec::new(), asked };
    }
    let trusted = trusted(question.requirements);
    let tries = if extent == Extent::All { usize::MAX } else { question.tries };
    let judged = judge_all(question, &trusted, &found.signatures, &mut Effort::new(tries), extent);
    let wants = Wants::of(question, &trusted);
    let result = match prove(question, &judged) {
        Some(proof) => Ok(proof),
        None => Err(refuse(question, &wants, &trusted, &judged, found)),
    };
    let signatures = judged.into_iter().map(|judged| examined(question, &wants, judged)).collect();
    Examination { result, signatures, asked }
}

/// Joins the proofs of every manifest in an index into one of the index: `platforms: each`.
///
/// `index` has the digest that is asked about. `proofs` are what [`verify`] (or this
/// function, for a nested index) said, for the same image and rule, of each entry that is no attestation, in their order.
///
/// # Errors
/// The first refusal among them. And, since then the caller did not prove what it was asked to, a refusal where there is no
/// entry but attestations, the index is another one, or a proof is missing, one too many, for another digest, another image or another rule.
pub fn verify_each(
    question: &Question<'_>,
    index: &HashedManifest,
    proofs: &[Result<VerifiedImage, Refusal>],
) -> Result<VerifiedImage, Refusal> {
    can_be_met(question)?;
    // `can_be_met` has seen to it that there is one.
    let unsigned = || match question.requirements.all.first() {
        Some(requirement) => Refusal::Unsigned(wanted(question, &trusted(question.requirements), requirement)),
        None => Refusal::DeniedByPolicy { rule: question.rule.clone(), reason: "it requires nothing".into() },
    };
    let runnable: Vec<&Descriptor> = index.entries().iter().filter(|entry| !entry.attestation).collect();
    if index.digest() != question.digest || runnable.is_empty() || runnable.len() != proofs.len() {
        return Err(unsigned());
    }
    let mut keys: Vec<VerifiedKey> = Vec::new();
    let mut valid_until = None;
    for (entry, proof) in runnable.into_iter().zip(proofs) {
        let proof = &*proof.as_ref().map_err(Clone::clone)?.0;
        if proof.digest != entry.digest || proof.rule != *question.rule || proof.image != *question.image {
            return Err(unsigned());
        }
        keys.extend(proof.keys.iter().filter(|key| !keys.contains(key)).cloned().collect::<Vec<_>>());
        valid_until = first_of([valid_until, proof.valid_until]);
    }
    let (image, digest, rule) = (question.image.clone(), question.digest, question.rule.clone());
    Ok(VerifiedImage(Arc::new(Proof { image, digest, rule, keys: keys.into(), valid_until })))
}

/// A signature, after it was looked at.
struct Judged {
    place: usize,
    source: Arc<str>,
    /// The key that it names, or that it was proven to be of.
    key: Option<Fingerprint>,
    /// The certificate of that key, where it is one of the rule's.
    certificate: Option<Fingerprint>,
    signed_at: Option<Timestamp>,
    outcome: Result<Proven, Fault>,
}

/// A signature that is good as such: what it is good for, each requirement has to say.
struct Proven {
    digest: Digest,
    identity: Reference,
    certificate: Fingerprint,
    key: Fingerprint,
    signed_at: Timestamp,
    valid_until: Option<Timestamp>,
}

/// Why a signature does not count, as a [`Refusal`] without what the rule wants.
#[derive(Clone)]
enum Fault {
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

impl From<KeyFault> for Fault {
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

impl Fault {
    /// How close to success it is: the closest tells the reader most about what is missing.
    fn closeness(&self) -> u8 {
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

    fn refusal(self, wanted: Wanted) -> Refusal {
        match self {
            Self::Untrusted(key) => Refusal::UntrustedKey { signed_by: key.into_iter().collect(), wanted },
            Self::Malformed(why) => Refusal::MalformedSignature { why, wanted },
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

/// Every certificate that the requirements name. Where one stands there in several versions, all that they say holds, as if
/// they had been imported into one keyring: a revocation in one of them is a revocation.
fn trusted(requirements: &Requirements) -> Vec<(Fingerprint, Arc<Certificate>)> {
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

type Trusted = [(Fingerprint, Arc<Certificate>)];

/// What opening a signature tells about it, for the order in which signatures are tried.
enum Sight {
    /// It names a key of the rule, and its payload fits: these are tried first.
    Promising,
    /// It takes long to open.
    Slow,
    /// It names a key of the rule, and its payload does not fit; a try tells what was signed.
    Wanted,
    /// No try can help.
    Hopeless(Box<Judged>),
}

impl Sight {
    fn order(&self) -> u8 {
        match self {
            Self::Promising => 0,
            Self::Slow => 1,
            Self::Wanted => 2,
            Self::Hopeless(judged) if matches!(judged.outcome, Err(Fault::Malformed(_))) => 3,
            Self::Hopeless(_) => 4,
        }
    }
}

/// What may be spent on a question, and what was.
struct Effort {
    /// How many tries are left.
    tries: usize,
    /// Whether the next try is paid for: opening the signature was.
    is_paid: bool,
    /// Bytes that came out of compressed messages.
    inflated: usize,
}

impl Effort {
    fn new(tries: usize) -> Self {
        Self { tries, is_paid: false, inflated: 0 }
    }

    /// Takes a try. Nothing, if there is none left.
    fn take_try(&mut self) -> Option<()> {
        if !std::mem::take(&mut self.is_paid) {
            self.tries = self.tries.checked_sub(1)?;
        }
        Some(())
    }
}

/// Looks at signatures until the requirements are fulfilled, or at all of them.
fn judge_all(
    question: &Question<'_>,
    trusted: &Trusted,
    signatures: &[UntrustedSignature],
    effort: &mut Effort,
    extent: Extent,
) -> Vec<Judged> {
    let mut seen = HashSet::new();
    let mut candidates: Vec<(usize, &UntrustedSignature, Sight)> = signatures
        .iter()
        .enumerate()
        .filter(|(_, signature)| extent == Extent::All || seen.insert(&*signature.content))
        .map(|(place, signature)| (place, signature, look(question, trusted, signature, effort)))
        .collect();
    candidates.sort_by_key(|(_, _, sight)| sight.order());

    let (mut judged, mut hopeless) = (Vec::new(), 0);
    for (place, signature, sight) in candidates {
        let one = match sight {
            Sight::Hopeless(one) => {
                hopeless += 1;
                (extent == Extent::All || hopeless <= MOST_LISTED).then_some(*one)
            }
            Sight::Promising | Sight::Wanted => attempt(question, trusted, signature, effort),
            // Opening it is half of the try.
            Sight::Slow => effort.take_try().and_then(|()| {
                effort.is_paid = true;
                let one = attempt(question, trusted, signature, effort);
                effort.is_paid = false;
                one
            }),
        };
        let Some(one) = one else { continue };
        let good = one.outcome.is_ok();
        judged.push(Judged { place, ..one });
        if extent == Extent::UntilProven && good && prove(question, &judged).is_some() {
            break;
        }
    }
    judged
}

/// Opens a signature, without cryptography, if that costs little.
fn look(question: &Question<'_>, trusted: &Trusted, signature: &UntrustedSignature, effort: &mut Effort) -> Sight {
    let knows = |issuers: &[KeyHandle]| trusted.iter().any(|(_, one)| one.keys_of(issuers).next().is_some());
    let message = match envelope::glance(&signature.content, &mut effort.inflated) {
        Ok(Glance::Message(message)) => message,
        Ok(Glance::Slow(Some(issuer))) if !knows(std::slice::from_ref(&issuer)) => {
            let key = Fingerprint::of(&issuer);
            let one = Judged { key: Some(key.clone()), ..hopeless(signature, None, Fault::Untrusted(Some(key))) };
            return Sight::Hopeless(Box::new(one));
        }
        Ok(Glance::Slow(_)) => return Sight::Slow,
        Err(why) => return Sight::Hopeless(Box::new(hopeless(signature, None, Fault::Malformed(why)))),
    };
    if !knows(&message.issuers) {
        let named = named_key(&message);
        return Sight::Hopeless(Box::new(hopeless(signature, Some(&message), Fault::Untrusted(named))));
    }
    let fits = Payload::parse(&message.body).is_ok_and(|payload| {
        let fits = |one: &Requirement| identity::fits(&one.identity, question.image, &payload.identity);
        payload.digest == question.digest && question.requirements.all.iter().any(fits)
    });
    if fits { Sight::Promising } else { Sight::Wanted }
}

fn hopeless(signature: &UntrustedSignature, message: Option<&Message>, fault: Fault) -> Judged {
    Judged {
        // `judge_all` knows it.
        place: 0,
        source: Arc::clone(&signature.source),
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
    trusted: &Trusted,
    signature: &UntrustedSignature,
    effort: &mut Effort,
) -> Option<Judged> {
    let message = match envelope::open(&signature.content, &mut effort.inflated) {
        Ok(message) => message,
        Err(why) => return Some(hopeless(signature, None, Fault::Malformed(why))),
    };
    let mut best = hopeless(signature, Some(&message), Fault::Untrusted(named_key(&message)));
    for (fingerprint, certificate) in trusted {
        for key in certificate.keys_of(&message.issuers) {
            let handle = key.key().key_handle();
            let outcome = try_key(question, certificate, &key, &message, effort)?;
            let closer = match (&outcome, &best.outcome) {
                (Ok(_), _) => true,
                (Err(fault), Err(known)) => fault.closeness() > known.closeness(),
                (Err(_), Ok(_)) => false,
            };
            if closer {
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

/// Everything that must hold of a signature by this key, whatever a requirement says. Nothing if the tries are over.
fn try_key(
    question: &Question<'_>,
    certificate: &Certificate,
    key: &KeyOf<'_>,
    message: &Message,
    effort: &mut Effort,
) -> Option<Result<Proven, Fault>> {
    let signature = &message.signature;
    let name = Fingerprint::of(&KeyHandle::from(key.key().fingerprint()));
    let now = question.now;
    let Some(signed_at) = signature.signature_creation_time().map(timestamp) else {
        return Some(Err(Fault::Malformed(Malformed::NoTime)));
    };
    if let Some(algorithm) = weak_hash(signature) {
        return Some(Err(Fault::Weak(name, algorithm)));
    }
    if !is_understood(signature, now) {
        return Some(Err(Fault::Invalid(name, Invalid::Critical)));
    }
    if signed_at.duration_since(now) > CLOCK_TOLERANCE {
        return Some(Err(Fault::Invalid(name, Invalid::Future(signed_at))));
    }
    let key_ends = match certificate.check(key, signed_at, now) {
        Ok(expiry) => expiry,
        Err(fault) => return Some(Err(fault.into())),
    };
    // The first bits of the hash stand in the signature: of one that was damaged on its way, that much is seen for nothing.
    if !has_its_hash(message) {
        return Some(Err(Fault::Invalid(name, Invalid::Cryptography)));
    }
    effort.take_try()?;
    if signature.verify_message(key.key(), &message.body).is_err() {
        return Some(Err(Fault::Invalid(name, Invalid::Cryptography)));
    }
    let signature_ends = signature.signature_expiration_time().map(timestamp);
    if let Some(at) = signature_ends
        && at <= now
    {
        return Some(Err(Fault::ExpiredSignature(name, at)));
    }
    let payload = match Payload::parse(&message.body) {
        Ok(payload) => payload,
        Err(error) => return Some(Err(Fault::Malformed(error.into()))),
    };
    Some(Ok(Proven {
        digest: payload.digest,
        identity: payload.identity,
        certificate: certificate.fingerprint(),
        key: name,
        signed_at,
        valid_until: first_of([key_ends, signature_ends]),
    }))
}

/// Whether the left 16 bits of the hash are those that the signature gives (RFC 9580, section 5.2.3). GnuPG wants that too.
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
fn weigh(question: &Question<'_>, requirement: &Requirement, judged: &Judged) -> Result<Option<Timestamp>, Fault> {
    let is_wanted = judged.certificate.as_ref().is_some_and(|one| signers_of(requirement, one).next().is_some());
    match &judged.outcome {
        Err(fault @ (Fault::Malformed(_) | Fault::Untrusted(_))) => Err(fault.clone()),
        _ if !is_wanted => Err(Fault::Untrusted(judged.key.clone())),
        Err(fault) => Err(fault.clone()),
        Ok(proven) => fits(question, requirement, proven),
    }
}

/// The names under which a requirement knows a certificate; the loaders see to it that there is one at most.
fn signers_of<'a>(requirement: &'a Requirement, certificate: &'a Fingerprint) -> impl Iterator<Item = &'a str> {
    let knows = move |one: &Arc<Certificate>| one.fingerprint() == *certificate;
    requirement.signed_by.iter().filter(move |signer| signer.certificates.iter().any(knows)).map(|signer| &*signer.name)
}

/// The signers whose signatures count for a requirement, as many as it wants or all that there are. A name counts once, and
/// so do a certificate and a key, even if a policy could have them under two names.
fn count<'a>(
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

/// The proof, if every requirement is fulfilled.
fn prove(question: &Question<'_>, judged: &[Judged]) -> Option<VerifiedImage> {
    let mut keys: Vec<VerifiedKey> = Vec::new();
    let mut valid_until = None;
    for requirement in &question.requirements.all {
        let counted = count(question, requirement, judged);
        if counted.len() < requirement.threshold.get() {
            return None;
        }
        for (key, until) in counted {
            valid_until = first_of([valid_until, until]);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    // The loops above have run at least once each: `can_be_met` saw to it, and a threshold is above zero. Proof without a
    // key is none, whatever happened before.
    let (image, digest, rule) = (question.image.clone(), question.digest, question.rule.clone());
    (!keys.is_empty()).then(|| VerifiedImage(Arc::new(Proof { image, digest, rule, keys: keys.into(), valid_until })))
}

/// Why there is no proof.
fn refuse(
    question: &Question<'_>,
    wants: &Wants<'_>,
    trusted: &Trusted,
    judged: &[Judged],
    found: &FoundSignatures,
) -> Refusal {
    let unmet = |want: &&Want<'_>| count(question, want.requirement, judged).len() < want.requirement.threshold.get();
    let unmet: Vec<&Want<'_>> = wants.0.iter().filter(unmet).collect();
    for want in &unmet {
        if let Some(fault) = unusable(question, trusted, want.requirement) {
            return Fault::from(fault).refusal(want.wanted());
        }
    }
    if let Some(failure) = found.failure() {
        return failure.clone().into();
    }
    match unmet.first() {
        Some(want) => closest(question, want, judged),
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
    let faults: Vec<Fault> = judged.iter().filter_map(|one| weigh(question, requirement, one).err()).collect();
    let mut closest: Option<&Fault> = None;
    for fault in &faults {
        if closest.is_none_or(|known| fault.closeness() > known.closeness()) {
            closest = Some(fault);
        }
    }
    match closest {
        None => Refusal::Unsigned(wanted),
        Some(Fault::Untrusted(_)) => {
            let mut signed_by: Vec<Fingerprint> = Vec::new();
            for fault in &faults {
                if let Fault::Untrusted(Some(key)) = fault
                    && signed_by.len() < MOST_NAMED
                    && !signed_by.contains(key)
                {
                    signed_by.push(key.clone());
                }
            }
            Refusal::UntrustedKey { signed_by, wanted }
        }
        Some(fault) => fault.clone().refusal(wanted),
    }
}

/// The requirements, with what each wants in words: made once, if at all, and shared by all that is said of signatures.
struct Wants<'a>(Vec<Want<'a>>);

struct Want<'a> {
    question: &'a Question<'a>,
    trusted: &'a Trusted,
    requirement: &'a Requirement,
    words: OnceCell<Wanted>,
}

impl<'a> Wants<'a> {
    fn of(question: &'a Question<'a>, trusted: &'a Trusted) -> Self {
        let want = |requirement| Want { question, trusted, requirement, words: OnceCell::new() };
        Self(question.requirements.all.iter().map(want).collect())
    }
}

impl Want<'_> {
    fn wanted(&self) -> Wanted {
        self.words.get_or_init(|| wanted(self.question, self.trusted, self.requirement)).clone()
    }
}

fn wanted(question: &Question<'_>, trusted: &Trusted, requirement: &Requirement) -> Wanted {
    let mut unusable = Vec::new();
    let signers = requirement.signed_by.iter().map(|signer| {
        let keys: Vec<Fingerprint> = signer.certificates.iter().map(|certificate| certificate.fingerprint()).collect();
        let known = trusted.iter().filter(|(fingerprint, _)| keys.contains(fingerprint));
        let faulty = known.filter(|(_, certificate)| certificate.usable(question.now).is_err());
        unusable.extend(faulty.map(|(fingerprint, _)| fingerprint.clone()));
        (signer.name.clone(), keys)
    });
    Wanted {
        rule: question.rule.clone(),
        signers: signers.collect(),
        unusable: unusable.into(),
        identity: Arc::new(requirement.identity.clone()),
        manifest: None,
    }
}

/// What people are told of a signature: it counts if it does for any requirement.
fn examined(question: &Question<'_>, wants: &Wants<'_>, judged: Judged) -> ExaminedSignature {
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
        outcome: outcome.map_err(|(want, fault)| fault.refusal(want.wanted())),
    }
}

/// The first of several ends, where nothing means never.
fn first_of<const N: usize>(ends: [Option<Timestamp>; N]) -> Option<Timestamp> {
    ends.into_iter().flatten().min()
}

#[cfg(test)]
mod tests;
