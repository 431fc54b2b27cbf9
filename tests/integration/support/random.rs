//! Numbers that look random and are the same for the same seed.

use std::time::Duration;

/// A `SplitMix64` generator.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// With a seed of its own, which a test that fails has printed: `SEALGATE_TEST_SEED` takes it again.
    pub(crate) fn seeded() -> Self {
        let given = std::env::var("SEALGATE_TEST_SEED").ok();
        let seed = given.map(|seed| seed.parse().expect("SEALGATE_TEST_SEED is a number"));
        let seed = seed.unwrap_or_else(|| {
            let mut bytes = [0; 4];
            aws_lc_rs::rand::fill(&mut bytes).expect("there is randomness");
            u64::from(u32::from_le_bytes(bytes))
        });
        eprintln!("SEALGATE_TEST_SEED={seed}");
        Self(seed)
    }

    /// Another generator, for what runs beside.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// A time of fewer milliseconds than this.
    pub(crate) fn millis(&mut self, bound: usize) -> Duration {
        Duration::from_millis(u64::try_from(self.below(bound)).expect("a bound is small"))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a bound is small");
        usize::try_from(self.next() % bound).expect("smaller than the bound")
    }

    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}
