//! The data of one decision: the image, the policy that holds for it, and the engine.

use std::sync::Arc;

use crate::image::Reference;
use crate::policy::{Layer, Mode, Rule};

use super::{
    admission::Admission, current::LoadedPolicy, deadline::Deadlines, ports::ResolveDigest, settings::Settings,
    verdict_cache::VerdictCache,
};

/// The parts of the gate that every decision needs, whatever the review.
pub(super) struct Engine {
    pub(super) settings: Settings,
    pub(super) resolve: Arc<dyn ResolveDigest>,
    pub(super) verdicts: VerdictCache,
}

pub(super) struct DecisionContext<'a> {
    pub(super) engine: &'a Engine,
    pub(super) policy: &'a LoadedPolicy,
    pub(super) admission: &'a Admission<'a>,
    pub(super) image: Reference,
    /// It will run as it is written, must name a digest for that, and does not.
    pub(super) unpinned: bool,
    /// It must name its registry to run, and does not.
    pub(super) short_name: bool,
    /// It will run as it is written: nothing is written in its place any more.
    pub(super) runs_as_written: bool,
    pub(super) deadlines: Deadlines,
}

impl DecisionContext<'_> {
    pub(super) fn mode(&self, rule: &Rule) -> Mode {
        rule.mode.unwrap_or(self.engine.settings.mode)
    }

    pub(super) fn is_cluster(&self, layer: &Layer) -> bool {
        std::ptr::eq(layer, &raw const self.policy.policy.cluster)
    }
}

pub(super) fn stricter(one: Mode, other: Mode) -> Mode {
    match (one, other) {
        (Mode::Enforce, _) | (_, Mode::Enforce) => Mode::Enforce,
        (Mode::Warn, _) | (_, Mode::Warn) => Mode::Warn,
        (Mode::Audit, Mode::Audit) => Mode::Audit,
    }
}
