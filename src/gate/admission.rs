//! What the gate is asked, and what it answers.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::verdict::Verdict;
use crate::image::Reference;
use crate::policy::{Mode, RuleId};
use crate::refusal::Refusal;
use crate::verification::Examination;

/// What is asked: may these images run there?
#[derive(Clone, Debug)]
pub struct Admission<'a> {
    /// The namespace; nothing for what has none.
    pub namespace: Option<&'a str>,
    /// The images.
    pub images: &'a [ImageUse<'a>],
    /// The time that it is now.
    pub now: Timestamp,
    /// When an answer must be there.
    pub deadline: Instant,
    /// Whether this decides: it is logged and counted then. A mutation asks about the same images before, maybe several
    /// times, and about placeholders that never run.
    pub is_final: bool,
}

/// One image in an object under review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageUse<'a> {
    /// As it stands there.
    pub text: &'a str,
    /// Whether it will run as it stands there (a pod, on validation), so that it must be pinned where its rule requires
    /// signatures.
    pub runs_as_written: bool,
}

/// What is decided about one image.
#[derive(Clone, Debug)]
pub struct Decision {
    /// May it run?
    pub verdict: Result<Verdict, Refusal>,
    /// The canonical reference; nothing if it is none.
    pub image: Option<Reference>,
    /// The rule that decided, where one did.
    pub rule: Option<RuleId>,
    /// The mode of that rule.
    pub mode: Mode,
    /// What a mutation writes in its place: the canonical name, with the digest where one was verified.
    pub pinned: Option<Reference>,
    /// What was seen on the way, one a layer that required signatures.
    pub examinations: Vec<Arc<Examination>>,
}
