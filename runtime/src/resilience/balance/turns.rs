//! One after the other, each as often as its weight says.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::clock::Rng;

use super::{Candidate, WEIGHT_MAX, first_from};

/// A round of places, gone through again and again.
#[derive(Debug)]
pub(super) struct Turns {
    round: Box<[u32]>,
    turn: AtomicUsize,
}

impl Turns {
    /// Each of `count` places once.
    pub(super) fn equal(count: usize, rng: &Rng) -> Self {
        Self::over((0..count).map(place).collect(), rng)
    }

    /// Each place as often as its weight says, evenly spread over the round.
    pub(super) fn weighted<C: Candidate>(members: &[C], rng: &Rng) -> Self {
        let weights = members.iter().map(|member| member.weight());
        let weights: Vec<u32> = weights.map(|weight| weight.clamp(1, WEIGHT_MAX)).collect();
        let divisor = weights.iter().copied().fold(0, common_divisor).max(1);
        // A place of weight w wants its turns in the middle of each w-th part of the round.
        let mut wanted: Vec<(f64, u32)> = Vec::new();
        for (at, weight) in weights.into_iter().enumerate() {
            let weight = weight / divisor;
            let turns = (0..weight).map(|turn| (f64::from(turn) + 0.5) / f64::from(weight));
            wanted.extend(turns.map(|when| (when, place(at))));
        }
        wanted.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        Self::over(wanted.into_iter().map(|(_, at)| at).collect(), rng)
    }

    fn over(round: Box<[u32]>, rng: &Rng) -> Self {
        // Every process, and every new set, would begin with the same endpoint.
        let start = rng.below(round.len() as u64);
        Self {
            round,
            turn: AtomicUsize::new(usize::try_from(start).unwrap_or_default()),
        }
    }

    /// Whose turn it is, or of the next that is usable.
    pub(super) fn pick(&self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.round.len();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % count.max(1);
        let found = first_from(turn, count, |turn| usable(self.round[turn] as usize))?;
        Some(self.round[found] as usize)
    }
}

/// More endpoints than fit do not exist.
fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn common_divisor(one: u32, other: u32) -> u32 {
    match other {
        0 => one,
        _ => common_divisor(other, one % other),
    }
}
