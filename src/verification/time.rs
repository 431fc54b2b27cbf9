//! Times in signatures and proofs.

use jiff::{SignedDuration, Timestamp};

/// The time by which a signer's clock may be ahead of ours.
pub const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// The first of several ends, where nothing means never.
pub(super) fn earliest<const N: usize>(ends: [Option<Timestamp>; N]) -> Option<Timestamp> {
    ends.into_iter().flatten().min()
}
