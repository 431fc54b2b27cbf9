//! The ruling of one layer about an image, and the combination of all layers' rulings. Pure: the rules of combination are
//! here alone.

use std::sync::Arc;

use crate::image::{Digest, Reference};
use crate::policy::{Exemption, Mode, RuleId};
use crate::refusal::Refusal;
use crate::verification::{Examination, VerifiedImage};

use super::{admission::Decision, verdict::Verdict};

/// The ruling of one layer's rule, before exemptions and modes.
#[derive(Clone, Debug)]
pub(super) struct Ruling {
    /// The rule; nothing where none covers the image, or where it could not be learned which one does.
    pub(super) rule: Option<RuleId>,
    /// The enforcement of a refusal.
    pub(super) mode: Mode,
    /// May it run?
    pub(super) result: Result<Permission, Refusal>,
    /// The proof by this layer's signatures, even where the image is refused for something else (not pinned).
    pub(super) proof: Option<VerifiedImage>,
    /// The digest that the choice of the rule, or of none, rests on, where the reference itself names none.
    pub(super) chosen_by: Option<Digest>,
    /// True if for another digest an enforced rule could refuse it: then it runs by that digest alone, even where what is
    /// said of it is not enforced.
    pub(super) guarded: bool,
    /// True if a mutation must write the registry for it, since it would be refused without.
    pub(super) needs_registry: bool,
    /// The examination of the signatures.
    pub(super) examination: Option<Arc<Examination>>,
}

/// Why a rule lets an image run.
#[derive(Clone, Debug)]
pub(super) enum Permission {
    /// Its requirements are proven.
    Proven(VerifiedImage),
    /// It asks for no signature.
    Allowed {
        /// Its reason.
        reason: Arc<str>,
    },
    /// None of a namespace's rules is about it, though one is about another digest of its repository.
    Abstained,
}

/// An exemption that lifts a layer's refusal.
#[derive(Clone, Debug)]
pub(super) struct AppliedExemption {
    pub(super) exemption: Arc<Exemption>,
    /// The digest by which it covers the image, where it does not cover the reference as it was written.
    pub(super) by_digest: Option<Digest>,
}

/// A ruling with exemptions and mode applied.
#[derive(Clone, Debug)]
struct SettledRuling {
    rule: Option<RuleId>,
    mode: Mode,
    outcome: Outcome,
    /// The digest that a mutation has to write, so that the image that runs is the one that was decided about.
    digest: Option<Digest>,
    needs_registry: bool,
    proven: bool,
    examination: Option<Arc<Examination>>,
}

#[derive(Clone, Debug)]
enum Outcome {
    Proven(VerifiedImage),
    Allowed { reason: Arc<str> },
    Abstained,
    Exempted { exemption: Arc<Exemption>, refusal: Refusal },
    NotEnforced { refusal: Refusal },
    Refused(Refusal),
}

impl Ruling {
    /// A ruling that needed nothing but the policy.
    pub(super) fn new(rule: Option<RuleId>, mode: Mode, result: Result<Permission, Refusal>) -> Self {
        Self {
            rule,
            mode,
            result,
            proof: None,
            chosen_by: None,
            guarded: false,
            needs_registry: false,
            examination: None,
        }
    }

    /// Returns whether it refuses, and nothing lifts that. Then no other layer can change the outcome.
    pub(super) fn is_final(&self, applied: Option<&AppliedExemption>) -> bool {
        self.result.is_err() && self.mode == Mode::Enforce && applied.is_none()
    }

    fn settle(self, applied: Option<AppliedExemption>) -> SettledRuling {
        let Self { rule, mode, result, proof, chosen_by, guarded, needs_registry, examination } = self;
        let mut digest = proof.as_ref().map(VerifiedImage::digest).or(chosen_by);
        let outcome = match (result, applied) {
            (Ok(Permission::Proven(proof)), _) => Outcome::Proven(proof),
            (Ok(Permission::Allowed { reason }), _) => Outcome::Allowed { reason },
            (Ok(Permission::Abstained), _) => Outcome::Abstained,
            (Err(refusal), Some(AppliedExemption { exemption, by_digest })) => {
                digest = digest.or(by_digest);
                Outcome::Exempted { exemption, refusal }
            }
            (Err(refusal), None) if mode == Mode::Enforce => Outcome::Refused(refusal),
            (Err(refusal), None) => Outcome::NotEnforced { refusal },
        };
        // What merely is not enforced gives no reason to write anything, unless what is enforced could come in its place.
        if matches!(outcome, Outcome::NotEnforced { .. } | Outcome::Refused(_)) && proof.is_none() && !guarded {
            digest = None;
        }
        SettledRuling { rule, mode, outcome, digest, needs_registry, proven: proof.is_some(), examination }
    }
}

impl SettledRuling {
    /// The lower, the more it says about the image. Every layer must let it run; of those that do, what a reader must know
    /// first goes first: what is not enforced, what is exempted, what is proven, what is merely allowed.
    fn rank(&self) -> u8 {
        match &self.outcome {
            // A mutation mends the third, but not where one of the others stands beside it. Waiting helps against the second,
            // but not where the first does.
            Outcome::Refused(refusal) if !refusal.code().is_transient() => 0,
            Outcome::Refused(refusal) if !matches!(refusal, Refusal::NotPinned { .. }) => 1,
            Outcome::Refused(_) => 2,
            Outcome::NotEnforced { .. } if self.mode == Mode::Warn => 3,
            Outcome::NotEnforced { .. } => 4,
            Outcome::Exempted { .. } => 5,
            Outcome::Proven(_) => 6,
            Outcome::Allowed { .. } => 7,
            Outcome::Abstained => 8,
        }
    }
}

/// Joins what the layers say, the cluster's first; there is at least that one. A layer may say two things, of the two digests of
/// one manifest: they are joined as those of two layers are.
///
/// - One enforced refusal refuses: no layer can lift what another refuses.
/// - Else, if something is refused but not enforced, that is the verdict, and else what is only exempted: both must be seen,
///   whatever other layers prove.
/// - Else every layer lets it run by itself. `Verified` means that every layer that requires signatures has proof, and that
///   there is one such layer; a layer that asks for none takes nothing away from that. Without one, it is `AllowedByRule`.
///
/// A namespace's layer that abstains says nothing, but its digest is pinned: for another one it might refuse.
///
/// Between two that say as much, the cluster's layer is named.
pub(super) fn join(image: Reference, rulings: Vec<(Ruling, Option<AppliedExemption>)>) -> Decision {
    let mut layers: Vec<_> = rulings.into_iter().map(|(ruling, applied)| ruling.settle(applied)).collect();
    let proven = layers.iter().filter(|layer| layer.proven).find_map(|layer| layer.digest);
    // All layers speak of one digest: a tag is resolved once a decision.
    let digest = proven.or_else(|| layers.iter().find_map(|layer| layer.digest));
    let needs_registry = layers.iter().any(|layer| layer.needs_registry);
    let unenforced = layers.iter().any(|layer| matches!(layer.outcome, Outcome::NotEnforced { .. }));
    let examinations = layers.iter_mut().filter_map(|layer| layer.examination.take()).collect();
    // The first of those that say as much.
    let (rule, mode, outcome) = match layers.into_iter().min_by_key(SettledRuling::rank) {
        Some(SettledRuling { rule, mode, outcome, .. }) => (rule, mode, outcome),
        // Cannot be: the cluster's layer always says something.
        None => (None, Mode::Enforce, Outcome::Refused(Refusal::NoPolicy)),
    };
    let verdict = match outcome {
        Outcome::Refused(refusal) => Err(refusal),
        Outcome::NotEnforced { refusal } => {
            Ok(Verdict::NotEnforced { mode, refusal: Box::new(refusal), digest: proven })
        }
        Outcome::Exempted { exemption, refusal } => Ok(Verdict::Exempted { exemption, refusal: Box::new(refusal) }),
        Outcome::Proven(proof) => Ok(Verdict::Verified(proof)),
        Outcome::Allowed { reason } => match &rule {
            Some(rule) => Ok(Verdict::AllowedByRule { rule: rule.clone(), reason }),
            // Cannot be: only a rule allows. If it were, it would be no reason to let the image run.
            None => Err(Refusal::NoPolicy),
        },
        // Cannot be: the cluster's layer never abstains.
        Outcome::Abstained => Err(Refusal::NoPolicy),
    };
    let pinned = match (&verdict, digest) {
        (Ok(_), Some(digest)) => Some(image.pinned(digest)),
        (Ok(_), None) if needs_registry || !unenforced => Some(image.clone()),
        _ => None,
    };
    Decision { verdict, image: Some(image), rule, mode, pinned, examinations }
}
