//! One image, through the layers of the policy.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::image::{Digest, Reference, Scope};
use crate::policy::{Action, Dialect, Layer, Mode, Rule};
use crate::verdict::{Refusal, Verdict};

use super::layer::{Lift, Pass, Ruling, join};
use super::verdicts::{Asked, Until, unexamined};
use super::{Admission, Decision, Gate, ImageUse, LoadedPolicy, ResolvedImage};

/// Decides about one image.
pub(super) async fn decide(
    gate: &Gate,
    policy: &LoadedPolicy,
    admission: &Admission<'_>,
    image: ImageUse<'_>,
) -> Decision {
    match Reference::for_image(image.text) {
        Ok(reference) => {
            let until = Until::new(admission.now, admission.deadline);
            let unpinned = image.runs_as_written && gate.settings.pin_required && reference.digest().is_none();
            let decision = Case { gate, policy, admission, image: reference, unpinned, until }.decide().await;
            if image.runs_as_written && gate.settings.pin_required && !Reference::names_registry(image.text) {
                without_registry_refused(decision)
            } else {
                decision
            }
        }
        Err(error) => without_reference(gate, policy, admission, Refusal::InvalidReference(error)),
    }
}

/// Refuses an image that is written without its registry, if nothing but the rule for that registry lets it run. Where a
/// node is set up to look through several, it is the first that has the name which counts. A digest that signatures prove is
/// the same everywhere.
fn without_registry_refused(mut decision: Decision) -> Decision {
    if let (Ok(Verdict::AllowedByRule { rule, .. }), Mode::Enforce) = (&decision.verdict, decision.mode) {
        decision.verdict = Err(Refusal::NotPinned { rule: rule.clone(), short_name: true });
    }
    decision
}

/// Refuses what no rule can be looked up for. It could fall under any rule, so the strictest mode of all holds.
pub(super) fn without_reference(
    gate: &Gate,
    policy: &LoadedPolicy,
    admission: &Admission<'_>,
    refusal: Refusal,
) -> Decision {
    let namespace = admission.namespace.and_then(|name| policy.policy.namespaces.get(name));
    let layers = std::iter::once(&policy.policy.cluster).chain(namespace);
    let mut mode = gate.settings.mode;
    if mode != Mode::Enforce {
        let rules = layers.flat_map(|layer| layer.rules.iter().map(|(_, rule)| rule.mode));
        mode = rules.flatten().fold(mode, stricter);
    }
    let verdict = match mode {
        Mode::Enforce => Err(refusal),
        Mode::Warn | Mode::Audit => Ok(Verdict::NotEnforced { mode, refusal: Box::new(refusal), digest: None }),
    };
    Decision { verdict, image: None, rule: None, mode, pinned: None, examinations: Vec::new() }
}

fn stricter(one: Mode, other: Mode) -> Mode {
    match (one, other) {
        (Mode::Enforce, _) | (_, Mode::Enforce) => Mode::Enforce,
        (Mode::Warn, _) | (_, Mode::Warn) => Mode::Warn,
        (Mode::Audit, Mode::Audit) => Mode::Audit,
    }
}

/// What a reference names: its digest, and the manifest where that had to be fetched to learn the digest.
type Resolved = Result<(Digest, Option<Arc<ResolvedImage>>), Refusal>;

struct Case<'a> {
    gate: &'a Gate,
    policy: &'a LoadedPolicy,
    admission: &'a Admission<'a>,
    image: Reference,
    /// It will run as it is written, must name a digest for that, and does not.
    unpinned: bool,
    until: Until,
}

impl Case<'_> {
    async fn decide(self) -> Decision {
        let cluster = &self.policy.policy.cluster;
        let namespace = self
            .admission
            .namespace
            .and_then(|name| self.policy.policy.namespaces.get(name))
            .filter(|layer| self.is_by_digest(layer) || layer.rules.get(&self.image).is_some());

        // What the policy alone decides costs no request, and none of another layer.
        let early = self.without_registry(cluster);
        let early_namespace = namespace.and_then(|layer| self.without_registry(layer));
        for (layer, ruling) in [(Some(cluster), &early), (namespace, &early_namespace)] {
            if let (Some(layer), Some(ruling)) = (layer, ruling) {
                let (ruling, lift) = self.lifted(layer, ruling.clone(), None);
                if ruling.is_final(lift.as_ref()) {
                    return join(self.image, (ruling, lift), None);
                }
            }
        }

        let pending = early.is_none() || (namespace.is_some() && early_namespace.is_none());
        let resolved = if pending { Some(self.resolve().await) } else { None };
        let digest = resolved.as_ref().and_then(|resolved| resolved.as_ref().ok()).map(|(digest, _)| *digest);
        let cluster_ruling = self.ruling(cluster, early, resolved.as_ref());
        let namespace_ruling = async {
            match namespace {
                Some(layer) => {
                    self.ruling(layer, early_namespace, resolved.as_ref()).await.map(|ruling| (layer, ruling))
                }
                None => None,
            }
        };
        let (cluster_ruling, namespace_ruling) = if namespace.is_some() {
            futures_util::future::join(cluster_ruling, namespace_ruling).await
        } else {
            (cluster_ruling.await, None)
        };
        // The cluster's layer always applies: where it has no rule, that is the refusal.
        let cluster_ruling = cluster_ruling.unwrap_or_else(|| self.no_rule());
        let cluster_ruling = self.lifted(cluster, cluster_ruling, digest);
        let namespace_ruling = namespace_ruling.map(|(layer, ruling)| self.lifted(layer, ruling, digest));
        join(self.image.clone(), cluster_ruling, namespace_ruling)
    }

    fn no_rule(&self) -> Ruling {
        Ruling::new(None, self.gate.settings.mode, Err(Refusal::NoPolicy { namespace: None }))
    }

    /// Whether the layer has rules for single digests of this repository: then a tag's digest is needed to find the rule.
    fn is_by_digest(&self, layer: &Layer) -> bool {
        layer.dialect == Dialect::Sealgate
            && self.image.digest().is_none()
            && layer.rules.has_digests_of(self.image.repository())
    }

    fn mode(&self, rule: &Rule) -> Mode {
        rule.mode.unwrap_or(self.gate.settings.mode)
    }

    /// The ruling, where no registry has to be asked for it.
    fn without_registry(&self, layer: &Layer) -> Option<Ruling> {
        if self.is_by_digest(layer) {
            return None;
        }
        match layer.rules.get(&self.image) {
            None => Some(self.no_rule()),
            Some(rule) => self.unsigned_action(rule),
        }
    }

    /// What a rule says that requires no signatures.
    fn unsigned_action(&self, rule: &Rule) -> Option<Ruling> {
        let result = match &rule.action {
            Action::Require(_) => return None,
            Action::Allow { reason } => Ok(Pass::Allowed { reason: Arc::clone(reason) }),
            Action::Deny { reason } => {
                Err(Refusal::DeniedByPolicy { rule: rule.id.clone(), reason: Arc::clone(reason) })
            }
        };
        Some(Ruling::new(Some(rule.id.clone()), self.mode(rule), result))
    }

    /// The reference's own digest, or what its tag names now.
    async fn resolve(&self) -> Resolved {
        if let Some(digest) = self.image.digest() {
            return Ok((*digest, None));
        }
        let resolving = self.gate.resolve.resolve(&self.image, self.until.lookups);
        match timeout_at(self.until.deadline, resolving).await {
            Ok(Ok(resolved)) => Ok((resolved.digest, Some(resolved))),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(self.until.exceeded()),
        }
    }

    /// What the layer's rule says. Nothing: the layer has no rule for this image.
    async fn ruling(&self, layer: &Layer, early: Option<Ruling>, resolved: Option<&Resolved>) -> Option<Ruling> {
        if early.is_some() {
            return early;
        }
        let resolved = resolved?;
        let (rule, chosen_by) = if self.is_by_digest(layer) {
            match resolved {
                Ok((digest, _)) => (layer.rules.get(&self.image.pinned(*digest))?, Some(*digest)),
                Err(refusal) => return Some(self.rule_unknown(layer, refusal)),
            }
        } else {
            (layer.rules.get(&self.image)?, None)
        };
        let mut ruling = match self.unsigned_action(rule) {
            Some(ruling) => ruling,
            None => self.require(layer, rule, resolved).await,
        };
        // What was proven of a digest, or allowed because of it, holds only for a reference that names it.
        if self.unpinned && ruling.result.is_ok() && (ruling.proof.is_some() || chosen_by.is_some()) {
            ruling.result = Err(Refusal::NotPinned { rule: rule.id.clone(), short_name: false });
        }
        ruling.chosen_by = chosen_by;
        Some(ruling)
    }

    /// The digest could not be learned, and so neither which rule applies. The strictest mode of those that may apply holds.
    fn rule_unknown(&self, layer: &Layer, refusal: &Refusal) -> Ruling {
        let for_digests = layer.rules.iter().filter_map(|(scope, rule)| match scope {
            Scope::Digest(repository, _) if repository == *self.image.repository() => Some(rule),
            _ => None,
        });
        let modes = for_digests.chain(layer.rules.get(&self.image)).map(|rule| self.mode(rule));
        let mode = modes.reduce(stricter).unwrap_or(Mode::Enforce);
        Ruling::new(None, mode, Err(refusal.clone()))
    }

    async fn require(&self, layer: &Layer, rule: &Arc<Rule>, resolved: &Resolved) -> Ruling {
        let mut ruling =
            Ruling::new(Some(rule.id.clone()), self.mode(rule), Err(Refusal::NoPolicy { namespace: None }));
        let Some(asked) = Asked::new(self.policy.generation, rule, layer.dialect, &self.image) else {
            return ruling;
        };
        let verdicts = &self.gate.verdicts;
        let examination = match resolved {
            Ok((digest, manifest)) => verdicts.examine(&asked, *digest, manifest.as_ref(), self.until).await,
            Err(refusal) => verdicts
                .last_known_good(&asked, None, refusal, self.until.now)
                .unwrap_or_else(|| Arc::new(unexamined(refusal.clone()))),
        };
        ruling.result = match &examination.result {
            Ok(proof) => {
                ruling.proof = Some(proof.clone());
                Ok(Pass::Proven(proof.clone()))
            }
            Err(refusal) => Err(refusal.clone()),
        };
        ruling.examination = Some(examination);
        ruling
    }

    /// The ruling with the exemption of its layer that lifts its refusal. `digest` is what the tag names, where that is known.
    fn lifted(&self, layer: &Layer, mut ruling: Ruling, digest: Option<Digest>) -> (Ruling, Option<Lift>) {
        if ruling.result.is_ok() || layer.exemptions.is_empty() {
            return (ruling, None);
        }
        let covering = |image: &Reference| {
            let Admission { namespace, now, .. } = *self.admission;
            layer.exemptions.iter().find(|exemption| exemption.covers(image, namespace, now)).cloned()
        };
        if let Some(exemption) = covering(&self.image) {
            return (ruling, Some(Lift { exemption, by_digest: None }));
        }
        let Some((exemption, digest)) = digest.and_then(|digest| Some((covering(&self.image.pinned(digest))?, digest)))
        else {
            return (ruling, None);
        };
        // An exemption for one digest is none for whatever the tag names when the node pulls it.
        if self.unpinned {
            if let Some(rule) = &ruling.rule {
                ruling.result = Err(Refusal::NotPinned { rule: rule.clone(), short_name: false });
            }
            return (ruling, None);
        }
        (ruling, Some(Lift { exemption, by_digest: Some(digest) }))
    }
}

impl Until {
    /// The refusal of what has no answer at the deadline.
    pub(super) fn exceeded(&self) -> Refusal {
        Refusal::DeadlineExceeded { after: self.deadline.saturating_duration_since(self.started) }
    }

    /// `now` for what is trusted, `deadline` for when the answer must be there.
    pub(super) fn new(now: jiff::Timestamp, deadline: Instant) -> Self {
        let started = Instant::now();
        let left = deadline.saturating_duration_since(started);
        // Look-ups end a little earlier: what they found by then can still be examined, and may suffice.
        let lookups = deadline.checked_sub((left / 8).min(super::verdicts::EXAMINING)).unwrap_or(deadline);
        Self { now, started, lookups, deadline }
    }
}
