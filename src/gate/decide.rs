//! One image, through the layers of the policy.

use std::sync::Arc;

use tokio::time::timeout_at;

use crate::image::{Digest, HashedManifest, Reference};
use crate::policy::{Action, Layer, Mode, Rule};
use crate::refusal::{LookupError, Refusal};
use crate::verification::Examination;

use super::{
    admission::{Admission, Decision, ImageUse},
    applied_rule::AppliedRule,
    current::LoadedPolicy,
    deadline::Deadlines,
    decision_context::{DecisionContext, Engine, stricter},
    layer::{AppliedExemption, Permission, Ruling, join},
    rule_match::{MatchedLayer, RuleMatch, may_refuse},
    verdict::Verdict,
    workers::CpuBudget,
};

/// Decides about one image.
pub(super) async fn decide(
    engine: &Engine,
    policy: &LoadedPolicy,
    admission: &Admission<'_>,
    budget: &Arc<CpuBudget>,
    image: ImageUse<'_>,
) -> Decision {
    match Reference::for_image(image.text) {
        Ok(reference) => {
            let deadlines = Deadlines::of_admission(admission, Arc::clone(budget));
            let pin_required = engine.settings.pin_required;
            let case = DecisionContext {
                engine,
                policy,
                admission,
                unpinned: image.runs_as_written && pin_required && reference.digest().is_none(),
                short_name: pin_required && !Reference::names_registry(image.text),
                runs_as_written: image.runs_as_written,
                image: reference,
                deadlines,
            };
            case.decide().await
        }
        Err(error) => without_reference(engine, policy, admission, Refusal::InvalidReference(error)),
    }
}

/// Refuses what no rule can be looked up for. It could fall under any rule, so the strictest mode of all holds.
pub(super) fn without_reference(
    engine: &Engine,
    policy: &LoadedPolicy,
    admission: &Admission<'_>,
    refusal: Refusal,
) -> Decision {
    let namespace = admission.namespace.and_then(|name| policy.policy.namespaces.get(name));
    let layers = std::iter::once(&policy.policy.cluster).chain(namespace);
    let mut mode = engine.settings.mode;
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

/// The image that a reference names: its digest, and the manifest where that had to be fetched to learn a digest.
type ResolvedImage = Result<(Digest, Option<Arc<HashedManifest>>), Refusal>;

/// The image that a reference names, by both of its digests.
struct ResolvedDigests {
    image: ResolvedImage,
    /// The manifest's digest of the other algorithm. An error where nothing needed it.
    other_digest: Result<Digest, Refusal>,
}

impl DecisionContext<'_> {
    async fn decide(self) -> Decision {
        let cluster = self.match_layer(&self.policy.policy.cluster);
        let namespace = self.admission.namespace.and_then(|name| self.policy.policy.namespaces.get(name));
        let namespace = namespace
            .map(|layer| self.match_layer(layer))
            .filter(|found| found.by_other_digest || !matches!(found.rule, RuleMatch::None));

        // What the policy alone decides costs no request, and none of another layer.
        let early = self.without_registry(cluster);
        let early_namespace = namespace.and_then(|found| self.without_registry(found));
        for (found, ruling) in [(Some(cluster), &early), (namespace, &early_namespace)] {
            if let (Some(found), Some(ruling)) = (found, ruling)
                && ruling.is_final(None)
            {
                let (ruling, applied) = self.with_exemption(found.layer, ruling.clone(), None);
                if ruling.is_final(applied.as_ref()) {
                    return join(self.image, vec![(ruling, applied)]);
                }
            }
        }

        let pending = early.is_none() || (namespace.is_some() && early_namespace.is_none());
        let both_digests = cluster.by_other_digest || namespace.is_some_and(|found| found.by_other_digest);
        let resolved = if pending || both_digests { Some(self.resolve(both_digests).await) } else { None };
        let rulings = match namespace {
            Some(found) => {
                let cluster = self.rulings(cluster, early, resolved.as_ref());
                let namespace = self.rulings(found, early_namespace, resolved.as_ref());
                let (mut rulings, namespace) = futures_util::future::join(cluster, namespace).await;
                rulings.extend(namespace);
                rulings
            }
            None => self.rulings(cluster, early, resolved.as_ref()).await,
        };
        join(self.image, rulings)
    }

    /// Returns the layer's rulings: by its rule, and by the one that names the manifest's digest of the other algorithm,
    /// if there is one. Each can refuse it.
    async fn rulings(
        &self,
        found: MatchedLayer<'_>,
        early: Option<Ruling>,
        resolved: Option<&ResolvedDigests>,
    ) -> Vec<(Ruling, Option<AppliedExemption>)> {
        let own = self.ruling(found, early, resolved.map(|resolved| &resolved.image));
        let (own, other) = futures_util::future::join(own, self.ruling_by_other_digest(found, resolved)).await;
        let digest = resolved.and_then(|resolved| resolved.image.as_ref().ok()).map(|(digest, _)| *digest);
        let with_exemption = |ruling| self.with_registry_named(self.with_exemption(found.layer, ruling, digest));
        std::iter::once(own).chain(other).map(with_exemption).collect()
    }

    /// Returns the ruling of a layer without a rule for the image. The cluster's layer always applies: there it is the
    /// refusal.
    fn no_rule(&self, layer: &Layer) -> Ruling {
        if self.is_cluster(layer) {
            Ruling::new(None, self.engine.settings.mode, Err(Refusal::NoPolicy))
        } else {
            Ruling::new(None, Mode::Enforce, Ok(Permission::Abstained))
        }
    }

    /// Returns the layer's ruling by the manifest's digest of the other algorithm. `None` if no rule names that.
    async fn ruling_by_other_digest(
        &self,
        found: MatchedLayer<'_>,
        resolved: Option<&ResolvedDigests>,
    ) -> Option<Ruling> {
        if !found.by_other_digest {
            return None;
        }
        let ResolvedDigests { image, other_digest } = resolved?;
        let layer = found.layer;
        let other_digest = match other_digest {
            Ok(digest) => digest,
            // Of a tag that leads nowhere, `rule_unknown` says so.
            Err(_) if self.image.digest().is_none() => return None,
            Err(refusal) => {
                let modes = self.refusing_by_other_digest(layer).map(|rule| self.mode(rule));
                let mode = modes.reduce(stricter).unwrap_or(Mode::Enforce);
                return Some(Ruling::new(None, mode, Err(refusal.clone())));
            }
        };
        let rule = layer.rules.get_digest(self.image.repository(), other_digest).filter(|rule| may_refuse(rule))?;
        let ruling = self.by_rule(layer, rule, image).await;
        Some(match (self.image.digest(), image) {
            (None, Ok((digest, _))) => self.chosen_by(*digest, layer, ruling),
            _ => ruling,
        })
    }

    /// The ruling, where no registry has to be asked for it.
    fn without_registry(&self, found: MatchedLayer<'_>) -> Option<Ruling> {
        match found.rule {
            RuleMatch::ByDigest => None,
            RuleMatch::None => Some(self.no_rule(found.layer)),
            RuleMatch::Rule(rule) => self.unsigned_action(rule),
        }
    }

    /// Returns the ruling of a rule that requires no signatures; `None` of another.
    fn unsigned_action(&self, rule: &Rule) -> Option<Ruling> {
        let result = match &rule.action {
            Action::Require(_) => return None,
            Action::Allow { reason } => Ok(Permission::Allowed { reason: Arc::clone(reason) }),
            Action::Deny { reason } => {
                Err(Refusal::DeniedByPolicy { rule: rule.id.clone(), reason: Arc::clone(reason) })
            }
        };
        Some(Ruling::new(Some(rule.id.clone()), self.mode(rule), result))
    }

    /// The reference's own digest, or what its tag names now; and with `both_digests` the other digest of that.
    async fn resolve(&self, both_digests: bool) -> ResolvedDigests {
        let own = self.image.digest().copied();
        if let Some(digest) = own
            && !both_digests
        {
            return ResolvedDigests { image: Ok((digest, None)), other_digest: Err(Refusal::NoPolicy) };
        }
        let resolving = self.engine.resolve.resolve(&self.image, self.deadlines.lookups);
        let manifest = match timeout_at(self.deadlines.deadline, resolving).await {
            Ok(Ok(manifest)) if own.is_none_or(|own| own == manifest.digest()) => Ok(manifest),
            Ok(Ok(_)) => Err(LookupError::another_digest(self.image.repository()).into()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(self.deadlines.exceeded()),
        };
        let other_digest = manifest.as_ref().map(|manifest| manifest.other_digest()).map_err(Refusal::clone);
        let image = match (manifest, own) {
            (Ok(manifest), _) => Ok((manifest.digest(), Some(manifest))),
            // The digest asked for is known all the same, and an earlier proof of it may count.
            (Err(_), Some(digest)) => Ok((digest, None)),
            (Err(refusal), None) => Err(refusal),
        };
        ResolvedDigests { image, other_digest }
    }

    /// Returns the ruling of the layer's rule.
    async fn ruling(&self, found: MatchedLayer<'_>, early: Option<Ruling>, resolved: Option<&ResolvedImage>) -> Ruling {
        let layer = found.layer;
        let (None, Some(resolved)) = (&early, resolved) else { return early.unwrap_or_else(|| self.no_rule(layer)) };
        match found.rule {
            RuleMatch::ByDigest => {}
            RuleMatch::None => return self.no_rule(layer),
            RuleMatch::Rule(rule) => return self.pinned_if_proven(self.by_rule(layer, rule, resolved).await),
        }
        let digest = match resolved {
            Ok((digest, _)) => *digest,
            Err(refusal) => return self.rule_unknown(layer, refusal),
        };
        let ruling = match layer.rules.get(&self.image.pinned(digest)) {
            Some(rule) => self.by_rule(layer, rule, resolved).await,
            None => self.no_rule(layer),
        };
        self.chosen_by(digest, layer, ruling)
    }

    async fn by_rule(&self, layer: &Layer, rule: &Arc<Rule>, resolved: &ResolvedImage) -> Ruling {
        match self.unsigned_action(rule) {
            Some(ruling) => ruling,
            None => self.require(layer, rule, resolved).await,
        }
    }

    /// The digest could not be learned, and so neither which rule applies. The strictest mode of those that may apply holds.
    fn rule_unknown(&self, layer: &Layer, refusal: &Refusal) -> Ruling {
        let modes = self.may_apply(layer).map(|rule| self.mode(rule)).chain(self.may_have_no_rule(layer));
        let mode = modes.reduce(stricter).unwrap_or(Mode::Enforce);
        Ruling::new(None, mode, Err(refusal.clone()))
    }

    async fn require(&self, layer: &Layer, rule: &Arc<Rule>, resolved: &ResolvedImage) -> Ruling {
        let mut ruling = Ruling::new(Some(rule.id.clone()), self.mode(rule), Err(Refusal::NoPolicy));
        let Some(applied) = AppliedRule::new(self.policy.generation, rule, layer.dialect, &self.image) else {
            return ruling;
        };
        let verdicts = &self.engine.verdicts;
        let examination = match resolved {
            Ok((digest, manifest)) => verdicts.examine(applied, *digest, manifest.as_ref(), &self.deadlines).await,
            Err(refusal) => verdicts
                .last_known_good(&applied, None, refusal, self.deadlines.now)
                .unwrap_or_else(|| Arc::new(Examination::refused(refusal.clone()))),
        };
        ruling.result = match &examination.result {
            Ok(proof) => {
                ruling.proof = Some(proof.clone());
                Ok(Permission::Proven(proof.clone()))
            }
            Err(refusal) => Err(refusal.clone()),
        };
        ruling.examination = Some(examination);
        ruling
    }
}
