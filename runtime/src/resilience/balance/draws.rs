//! Chance without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Rng;

use super::first_from;

/// Counts draws; each number is scrambled into chance.
#[derive(Debug)]
pub(super) struct Draws(AtomicU64);

impl Draws {
    pub(super) fn new(rng: &Rng) -> Self {
        Self(AtomicU64::new(rng.below(u64::MAX)))
    }

    /// A number below `bound`, which is above 0.
    pub(super) fn below(&self, bound: usize) -> usize {
        let wide = u128::from(self.word()) * bound as u128;
        // Smaller than the bound, so it fits.
        (wide >> 64) as usize
    }

    /// A number between 0 (included) and 1 (excluded).
    pub(super) fn unit(&self) -> f64 {
        const BITS: u32 = 53;
        (self.word() >> (u64::BITS - BITS)) as f64 / (1_u64 << BITS) as f64
    }

    /// The cheaper of two different places below `count`, which is above 1, of those that are usable.
    pub(super) fn cheaper(
        &self,
        count: usize,
        usable: impl Fn(usize) -> bool,
        cost: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        let (one, other) = self.two(count);
        match (usable(one), usable(other)) {
            (true, true) if cost(other) < cost(one) => Some(other),
            (true, _) => Some(one),
            (false, true) => Some(other),
            (false, false) => first_from(one, count, usable),
        }
    }

    /// Two different places below `count`, which is above 1.
    pub(super) fn two(&self, count: usize) -> (usize, usize) {
        let one = self.below(count);
        (one, (one + 1 + self.below(count - 1)) % count)
    }

    fn word(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        scramble(self.0.fetch_add(STEP, Ordering::Relaxed))
    }
}

/// The finish of SplitMix64: every bit of the result depends on every bit of the word.
pub(super) fn scramble(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
