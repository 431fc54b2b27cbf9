//! The allowance of verification, in microseconds of one core. Each step has a price: what comes from outside decides how
//! many steps there are and how dear they are.
//!
//! Prices are rounded up from measurements of a release build (x86-64, November 2026). They need not be exact: they are there
//! so that a thousand dear steps are told from a thousand cheap ones, whatever the clock or the load of the machine.

use crate::signature::envelope::{MAX_MESSAGE_BYTES, Peek, USUAL_RATIO};

/// Lets verification go on, or ends it.
pub trait Allowance: Sync {
    /// Takes the price of the next step, in microseconds of one core. `false` ends the examination: not so much is left, or
    /// no caller waits for the answer any more.
    fn take(&self, price: u64) -> bool;
}

/// For a tool that may take the time that it takes.
#[derive(Clone, Copy, Debug)]
pub struct Unlimited;

impl Allowance for Unlimited {
    fn take(&self, _: u64) -> bool {
        true
    }
}

/// The check of one public-key signature. Measured: RSA-4096 176, P-256 183, Ed25519 190, RSA-2048 110.
pub(super) const PUBLIC_KEY_PRICE: u64 = 250;
/// The checks before that: validity and bindings of the key, and the hash of a payload.
pub(super) const CHECK_PRICE: u64 = 50;
/// The packets of one small message.
const PACKETS_PRICE: u64 = 20;
/// Received bytes that are inflated (to [`USUAL_RATIO`] times as many, at most) and parsed in a microsecond.
const BYTES_PER_MICROSECOND: u64 = 32;
/// One block of bzip2: 900,000 bytes are undone before the first byte comes out. Measured: 800 for a message of 55 to 100
/// bytes, which can hold a whole block.
const BZIP2_PRICE: u64 = 1_000;
/// Received bytes of bzip2 that cost another microsecond. Measured: 6,120 for 64 KiB.
const BZIP2_BYTES_PER_MICROSECOND: u64 = 12;

/// The price of a first look, or of opening a message that a first look opened.
pub(super) fn price_of_look(content: &[u8]) -> u64 {
    PACKETS_PRICE + length(content) / BYTES_PER_MICROSECOND
}

/// The price of opening what a first look did not.
pub(super) fn price_of_opening(content: &[u8], peek: &Peek) -> u64 {
    match peek {
        // Whose key a message of bzip2 names can't be seen from outside.
        Peek::Slow(None) => BZIP2_PRICE + length(content) / BZIP2_BYTES_PER_MICROSECOND,
        Peek::Slow(Some(_)) => {
            let inflated = u64::try_from(MAX_MESSAGE_BYTES / USUAL_RATIO).unwrap_or(u64::MAX);
            PACKETS_PRICE + inflated / BYTES_PER_MICROSECOND
        }
        Peek::Message(_) => price_of_look(content),
    }
}

fn length(content: &[u8]) -> u64 {
    u64::try_from(content.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_that_of_a_small_message_and_grows_with_its_bytes() {
        for (bytes, price) in [(0, 20), (31, 20), (32, 21), (3_200, 120)] {
            assert_eq!(price_of_look(&vec![0; bytes]), price, "{bytes}");
        }
    }

    #[test]
    fn what_is_not_open_yet_is_paid_by_how_it_is_compressed() {
        let key = sequoia_openpgp::KeyHandle::from(sequoia_openpgp::KeyID::from(1));
        for (bytes, deflated, bzip2) in [(0, 276, 1_000), (12, 276, 1_001), (65_536, 276, 6_461)] {
            let content = vec![0; bytes];
            assert_eq!(price_of_opening(&content, &Peek::Slow(Some(key.clone()))), deflated, "{bytes}");
            assert_eq!(price_of_opening(&content, &Peek::Slow(None)), bzip2, "{bytes}");
        }
    }
}
