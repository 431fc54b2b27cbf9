//! Limits on what one review, one image and one index may cost.

/// Images of one review that are decided side by side.
pub(super) const MAX_CONCURRENT_IMAGES: usize = 32;

/// Manifests of one index that are asked for side by side.
pub(super) const MAX_CONCURRENT_MANIFESTS: usize = 8;

/// Characters of a text that is no reference, in the log.
pub(super) const MAX_LOGGED_TEXT: usize = 512;

/// The budgets of verification, in microseconds of one core by the prices of its steps.
#[derive(Clone, Copy, Debug)]
pub struct CpuBudgets {
    /// On one question: an image, and all manifests of it where it is an index.
    pub question: u64,
    /// On all questions that one review is the first to ask.
    pub review: u64,
}

impl Default for CpuBudgets {
    /// A whole list of signatures by other keys (`limits.signatureListBytes`, 4 MiB) is looked at for half of the first. 128
    /// manifests with three good signatures each cost 0.05 s.
    fn default() -> Self {
        Self { question: 2_000_000, review: 4_000_000 }
    }
}
