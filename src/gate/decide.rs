//! One image, through the layers of the policy.

use std::sync::Arc;

use tokio::time::timeout_at;

use crate::image::{Digest, HashedManifest, Reference};
use crate::policy::{Action, Dialect, Layer, Mode, Rule, RuleId};
use crate::refusal::{LookupError, Refusal, Unpinned};
use crate::verification::Examination;

use super::{
    admission::{Admission, Decision, ImageUse},
    applied_rule::AppliedRule,
    current::LoadedPolicy,
    deadline::Deadlines,
    layer::{AppliedExemption, Permission, Ruling, join},
    ports::ResolveDigest,
    settings::Settings,
    verdict::Verdict,
    verdict_cache::VerdictCache,
    workers::CpuBudget,
};

/// What a decision about one image needs, whatever the review.
pub(super) struct Engine {
    pub(super) settings: Settings,
    pub(super) resolve: Arc<dyn ResolveDigest>,
    pub(super) verdicts: VerdictCache,
}

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

fn stricter(one: Mode, other: Mode) -> Mode {
    match (one, other) {
        (Mode::Enforce, _) | (_, Mode::Enforce) => Mode::Enforce,
        (Mode::Warn, _) | (_, Mode::Warn) => Mode::Warn,
        (Mode::Audit, Mode::Audit) => Mode::Audit,
    }
}

/// What a reference names: its digest, and the manifest where that had to be fetched to learn a digest.
type ResolvedImage = Result<(Digest, Option<Arc<HashedManifest>>), Refusal>;

/// What a reference names, by both of its digests.
struct ResolvedDigests {
    image: ResolvedImage,
    /// The manifest's digest of the other algorithm. An error where nothing needed it.
    other_digest: Result<Digest, Refusal>,
}

fn may_refuse(rule: &Rule) -> bool {
    !matches!(rule.action, Action::Allow { .. })
}

/// A layer, and its rule for the image.
#[derive(Clone, Copy)]
struct MatchedLayer<'a> {
    layer: &'a Layer,
    rule: RuleMatch<'a>,
    /// Whether the image may be refused by its digest of another algorithm than the reference has: the manifest is read then,
    /// and both digests count.
    by_other_digest: bool,
}

#[derive(Clone, Copy)]
enum RuleMatch<'a> {
    Rule(&'a Arc<Rule>),
    /// It has none.
    None,
    /// Its rules name single digests of the repository, and the reference names none.
    ByDigest,
}

struct DecisionContext<'a> {
    engine: &'a Engine,
    policy: &'a LoadedPolicy,
    admission: &'a Admission<'a>,
    image: Reference,
    /// It will run as it is written, must name a digest for that, and does not.
    unpinned: bool,
    /// It must name its registry to run, and does not.
    short_name: bool,
    /// It will run as it is written: nothing is written in its place any more.
    runs_as_written: bool,
    deadlines: Deadlines,
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

    /// What the layer says of the image: by its rule, and by the one that names the manifest's digest of the other algorithm, if
    /// there is one. Each can refuse it.
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

    /// The layer, with its rule for the image as far as that is known without a registry.
    fn match_layer<'a>(&self, layer: &'a Layer) -> MatchedLayer<'a> {
        let rule = if self.is_by_digest(layer) {
            RuleMatch::ByDigest
        } else {
            layer.rules.get(&self.image).map_or(RuleMatch::None, RuleMatch::Rule)
        };
        let by_other_digest = self.refusing_by_other_digest(layer).next().is_some();
        MatchedLayer { layer, rule, by_other_digest }
    }

    /// What a layer without a rule for the image says. The cluster's layer always applies: there it is the refusal.
    fn no_rule(&self, layer: &Layer) -> Ruling {
        if self.is_cluster(layer) {
            Ruling::new(None, self.engine.settings.mode, Err(Refusal::NoPolicy))
        } else {
            Ruling::new(None, Mode::Enforce, Ok(Permission::Abstained))
        }
    }

    /// The rules that may refuse the image by a digest of another algorithm than the reference has; of any, if it has none. A
    /// rule that allows is left out: a manifest's other digest lifts nothing that is said of the one by which it is asked for.
    fn refusing_by_other_digest<'a>(&self, layer: &'a Layer) -> impl Iterator<Item = &'a Arc<Rule>> {
        let own = self.image.digest().map(Digest::algorithm);
        // policy.json's scopes are compared with the reference as it was asked for.
        let digests = (layer.dialect == Dialect::Sealgate).then(|| layer.rules.digests_of(self.image.repository()));
        let others = digests.into_iter().flatten().filter(move |(digest, _)| Some(digest.algorithm()) != own);
        others.map(|(_, rule)| rule).filter(|rule| may_refuse(rule))
    }

    /// What the layer says of the manifest by its digest of the other algorithm. `None` if no rule names that.
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

    /// Whether the layer has rules for single digests of this repository: then a tag's digest is needed to find the rule.
    fn is_by_digest(&self, layer: &Layer) -> bool {
        layer.dialect == Dialect::Sealgate
            && self.image.digest().is_none()
            && layer.rules.has_digests_of(self.image.repository())
    }

    fn mode(&self, rule: &Rule) -> Mode {
        rule.mode.unwrap_or(self.engine.settings.mode)
    }

    /// The ruling, where no registry has to be asked for it.
    fn without_registry(&self, found: MatchedLayer<'_>) -> Option<Ruling> {
        match found.rule {
            RuleMatch::ByDigest => None,
            RuleMatch::None => Some(self.no_rule(found.layer)),
            RuleMatch::Rule(rule) => self.unsigned_action(rule),
        }
    }

    /// What a rule says that requires no signatures.
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

    /// What the layer's rule says.
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

    /// What was proven of a digest holds only for a reference that names it.
    fn pinned_if_proven(&self, mut ruling: Ruling) -> Ruling {
        if self.unpinned
            && let (Ok(_), Some(proof), Some(rule)) = (&ruling.result, &ruling.proof, &ruling.rule)
        {
            let why = Unpinned::Verified { rule: rule.clone() };
            ruling.result = Err(Refusal::NotPinned { why, digest: Some(proof.digest()) });
        }
        ruling
    }

    /// What was said of the tag because of the digest that it names now, too: for another digest another rule may hold.
    fn chosen_by(&self, digest: Digest, layer: &Layer, mut ruling: Ruling) -> Ruling {
        let guard = self.guard(layer);
        ruling.guarded = guard.as_ref().is_some_and(|(_, mode)| *mode == Mode::Enforce);
        // Where nothing could refuse it, an abstention says nothing.
        let abstained = matches!(ruling.result, Ok(Permission::Abstained));
        if guard.is_some() || !abstained {
            ruling.chosen_by = Some(digest);
        }
        if !self.unpinned {
            return ruling;
        }
        let not_pinned = |why| Err(Refusal::NotPinned { why, digest: Some(digest) });
        match (guard, &ruling.rule) {
            (Some((rule, mode)), _)
                if abstained
                    || (mode != ruling.mode && stricter(mode, ruling.mode) == mode && ruling.result.is_ok())
                    || (mode == Mode::Enforce && ruling.mode != Mode::Enforce) =>
            {
                ruling.result = not_pinned(Unpinned::MayFallUnder { rule: rule.clone() });
                (ruling.rule, ruling.mode) = (rule, mode);
                ruling
            }
            (_, Some(rule)) if ruling.result.is_ok() && ruling.proof.is_none() => {
                ruling.result = not_pinned(Unpinned::Allowed { rule: rule.clone() });
                ruling
            }
            _ => self.pinned_if_proven(ruling),
        }
    }

    fn is_cluster(&self, layer: &Layer) -> bool {
        std::ptr::eq(layer, &raw const self.policy.policy.cluster)
    }

    /// The rules of a layer that is by digest under which the image may fall, whatever its tag names.
    fn may_apply<'a>(&'a self, layer: &'a Layer) -> impl Iterator<Item = &'a Arc<Rule>> {
        let by_digest = layer.rules.digests_of(self.image.repository()).map(|(_, rule)| rule);
        by_digest.chain(layer.rules.get(&self.image))
    }

    /// The mode of what the cluster's layer says where none of its rules covers the image: it may be without one for
    /// another digest.
    fn may_have_no_rule(&self, layer: &Layer) -> Option<Mode> {
        (self.is_cluster(layer) && layer.rules.get(&self.image).is_none()).then_some(self.engine.settings.mode)
    }

    /// Of all that could refuse the image if its tag named another digest, what has the strictest mode: a rule, or that there
    /// is none.
    fn guard(&self, layer: &Layer) -> Option<(Option<RuleId>, Mode)> {
        let refusing = self.may_apply(layer).filter(|rule| may_refuse(rule));
        let refusing = refusing.map(|rule| (Some(rule.id.clone()), self.mode(rule)));
        let all = refusing.chain(self.may_have_no_rule(layer).map(|mode| (None, mode)));
        all.reduce(|one, other| if stricter(one.1, other.1) == one.1 { one } else { other })
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

    /// The ruling with the exemption of its layer that lifts its refusal. `digest` is what the tag names, where that is known.
    fn with_exemption(
        &self,
        layer: &Layer,
        mut ruling: Ruling,
        digest: Option<Digest>,
    ) -> (Ruling, Option<AppliedExemption>) {
        if ruling.result.is_ok() || layer.exemptions.is_empty() {
            return (ruling, None);
        }
        let covering = |image: &Reference| {
            let Admission { namespace, now, .. } = *self.admission;
            layer.exemptions.iter().find(|exemption| exemption.covers(image, namespace, now)).cloned()
        };
        if let Some(exemption) = covering(&self.image) {
            return (ruling, Some(AppliedExemption { exemption, by_digest: None }));
        }
        let Some((exemption, digest)) = digest.and_then(|digest| Some((covering(&self.image.pinned(digest))?, digest)))
        else {
            return (ruling, None);
        };
        // An exemption for one digest is none for whatever the tag names when the node pulls it.
        if self.unpinned {
            if !matches!(ruling.result, Err(Refusal::NotPinned { .. })) {
                let why = Unpinned::Exempted { exemption: exemption.id.clone() };
                ruling.result = Err(Refusal::NotPinned { why, digest: Some(digest) });
            }
            return (ruling, None);
        }
        (ruling, Some(AppliedExemption { exemption, by_digest: Some(digest) }))
    }

    /// Refuses an image that is written without its registry, if nothing but the rule or the exemption for that registry
    /// lets it run. A node that is set up to look through several registries takes the first one that has the name. A digest
    /// that signatures prove is the same everywhere.
    ///
    /// Part of a layer's own ruling, exemption included, so that no other layer takes it away.
    fn with_registry_named(
        &self,
        (mut ruling, applied): (Ruling, Option<AppliedExemption>),
    ) -> (Ruling, Option<AppliedExemption>) {
        if !self.short_name || ruling.mode != Mode::Enforce {
            return (ruling, applied);
        }
        let why = match (&ruling.result, &ruling.rule, &applied) {
            (Ok(Permission::Allowed { .. }), Some(rule), _) => Unpinned::ShortName { rule: rule.clone() },
            (Err(_), _, Some(applied)) => Unpinned::ExemptedShortName { exemption: applied.exemption.id.clone() },
            _ => return (ruling, applied),
        };
        if !self.runs_as_written {
            ruling.needs_registry = true;
            return (ruling, applied);
        }
        ruling.result = Err(Refusal::NotPinned { why, digest: None });
        (ruling, None)
    }
}
