//! The admission that the gate is asked about, and its decisions.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::verdict::Verdict;
use crate::image::Reference;
use crate::policy::{Mode, RuleId};
use crate::refusal::Refusal;
use crate::verification::Examination;

/// A request for decisions: whether these images may run in this namespace.
#[derive(Clone, Debug)]
pub struct Admission<'a> {
    /// The namespace. `None` for a resource without one.
    pub namespace: Option<&'a str>,
    /// The images.
    pub images: &'a [ImageUse<'a>],
    /// The current time.
    pub now: Timestamp,
    /// The time by which the gate answers.
    pub deadline: Instant,
    /// True if this decides: it is logged and counted then. A mutation asks about the same images before, maybe several
    /// times, and about placeholders that never run.
    pub is_final: bool,
}

/// One image in an object under review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageUse<'a> {
    /// As it stands there.
    pub text: &'a str,
    /// True if it will run as it stands there (a pod, on validation), so that it must be pinned where its rule requires
    /// signatures.
    pub runs_as_written: bool,
}

/// The decision about one image.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Why the image may run, or why not.
    pub verdict: Result<Verdict, Refusal>,
    /// The canonical reference. `None` if the text is not a reference.
    pub image: Option<Reference>,
    /// The rule that decided, where one did.
    pub rule: Option<RuleId>,
    /// The mode of that rule.
    pub mode: Mode,
    /// The text that a mutation writes in its place: the canonical name, with the digest where one was verified.
    pub pinned: Option<Reference>,
    /// The examinations, one for each layer that required signatures.
    pub examinations: Vec<Arc<Examination>>,
}
