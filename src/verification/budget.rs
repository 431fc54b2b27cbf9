//! The budget of one question: tries, slow openings and the allowance.

use super::allowance::{Allowance, Unlimited};

/// The number of messages of one list that are opened although that takes long. Signers make none, unless GnuPG is set up
/// to compress with bzip2; and then there are few signatures of one image.
pub(super) const MAX_SLOW_OPENINGS: usize = 16;

/// The budget of one question, with what is left of it.
pub(super) struct VerificationBudget<'a> {
    /// The tries that are left.
    tries: usize,
    /// The messages that take long to open and may still be opened.
    slow_openings: usize,
    /// The allowance from which all steps take their price.
    allowance: &'a dyn Allowance,
    /// True once the allowance ended before everything was looked at.
    pub(super) is_over: bool,
    /// True once a signature was left out that might have counted.
    pub(super) left_out: bool,
    /// True if the next try is paid for, by the opening of its signature.
    pub(super) is_paid: bool,
    /// Bytes that came out of compressed messages.
    pub(super) inflated: usize,
}

impl<'a> VerificationBudget<'a> {
    /// With nothing but the number of tries to bound it.
    #[cfg(test)]
    pub(super) fn new(tries: usize) -> Self {
        Self::within(tries, &Unlimited)
    }

    pub(super) fn within(tries: usize, allowance: &'a dyn Allowance) -> Self {
        let slow_openings = MAX_SLOW_OPENINGS;
        Self { tries, slow_openings, allowance, is_over: false, left_out: false, is_paid: false, inflated: 0 }
    }

    /// Without any bound.
    pub(super) fn unlimited() -> Self {
        Self { slow_openings: usize::MAX, ..Self::within(usize::MAX, &Unlimited) }
    }

    /// Takes the price of a step. Returns `None` if the allowance is over.
    pub(super) fn take(&mut self, price: u64) -> Option<()> {
        self.is_over = self.is_over || !self.allowance.take(price);
        (!self.is_over).then_some(())
    }

    /// Takes a try. Returns `None` if there is none left.
    pub(super) fn take_try(&mut self) -> Option<()> {
        if !std::mem::take(&mut self.is_paid) {
            self.tries = self.tries.checked_sub(1)?;
        }
        Some(())
    }

    /// Takes the opening of a message that takes long to open: half of a try. Returns `None` if there is none
    /// left.
    pub(super) fn take_slow_opening(&mut self, price: u64) -> Option<()> {
        self.slow_openings = self.slow_openings.checked_sub(1)?;
        self.take_try()?;
        self.take(price)
    }
}
