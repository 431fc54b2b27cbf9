//! The steps that narrow a layer's ruling after its rule: pins, exemptions, and names without a registry.

use crate::image::{Digest, Reference};
use crate::policy::{Layer, Mode};
use crate::refusal::{Refusal, Unpinned};

use super::{
    admission::Admission,
    decision_context::{DecisionContext, stricter},
    layer::{AppliedExemption, Permission, Ruling},
};

impl DecisionContext<'_> {
    /// Refuses a proven image whose reference does not name the digest, for the proof holds for that digest alone.
    pub(super) fn pinned_if_proven(&self, mut ruling: Ruling) -> Ruling {
        if self.unpinned
            && let (Ok(_), Some(proof), Some(rule)) = (&ruling.result, &ruling.proof, &ruling.rule)
        {
            let why = Unpinned::Verified { rule: rule.clone() };
            ruling.result = Err(Refusal::NotPinned { why, digest: Some(proof.digest()) });
        }
        ruling
    }

    /// Narrows a ruling that the tag has because of the digest that it names now: for another digest another rule may
    /// hold.
    pub(super) fn chosen_by(&self, digest: Digest, layer: &Layer, mut ruling: Ruling) -> Ruling {
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

    /// The ruling with the exemption of its layer that lifts its refusal. `digest` is what the tag names, where that is known.
    pub(super) fn with_exemption(
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
    pub(super) fn with_registry_named(
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
