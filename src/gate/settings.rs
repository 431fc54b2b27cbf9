//! The gate's settings.

use std::time::Duration;

use super::limits::CpuBudgets;
use crate::policy::Mode;

/// Settings that hold for every policy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The mode of rules that have none, and where no rule covers an image.
    pub mode: Mode,
    /// True if a pod must name the digest of an image that must be signed.
    pub pin_required: bool,
    /// The most images of one review, identical ones too.
    pub images_per_review: usize,
    /// The most signatures tried for one image.
    pub signatures_per_image: usize,
    /// CPU time that verification may take.
    pub budgets: CpuBudgets,
    /// The time that the look-ups of one examination have, whichever review waits for it.
    pub lookup: Duration,
    /// The time for which the verdict about a verified digest is kept for when its registry is down. Zero: not at all.
    pub last_known_good: Duration,
}
