//! Failures in a row.

use super::super::sync::{AtomicU64, Ordering};

/// Counts them for one generation of the circuit, which stands in the same word: what comes late from one
/// of before finds another there, and changes nothing.
#[derive(Debug)]
pub(super) struct Streak(AtomicU64);

impl Streak {
    pub(super) fn new(generation: u64) -> Self {
        Self(AtomicU64::new(word(generation, 0)))
    }

    /// Begins anew for this generation.
    pub(super) fn begin(&self, generation: u64) {
        // Not stored: what comes late at this moment is then before it or after it, for the models too.
        self.0.swap(word(generation, 0), Ordering::Relaxed);
    }

    /// One more; gives how many that is.
    pub(super) fn failed(&self, generation: u64) -> u32 {
        let more = |held| {
            let (of, count) = parts(held);
            (of == tag(generation)).then(|| word(generation, count.saturating_add(1)))
        };
        let set = Ordering::Relaxed;
        let before = self.0.fetch_update(set, Ordering::Relaxed, more);
        before.map_or(0, |held| parts(held).1.saturating_add(1))
    }

    /// That was the end of it.
    pub(super) fn ended(&self, generation: u64) {
        let none = word(generation, 0);
        // Most of the time there is none, and then nothing is written.
        if self.0.load(Ordering::Relaxed) != none {
            let end = |held| (parts(held).0 == tag(generation)).then_some(none);
            let _ = self
                .0
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, end);
        }
    }
}

/// What tells generations apart that can meet: there are not four billion changes during a call.
fn tag(generation: u64) -> u32 {
    (generation & u64::from(u32::MAX)) as u32
}

fn word(generation: u64, count: u32) -> u64 {
    u64::from(tag(generation)) << 32 | u64::from(count)
}

fn parts(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, tag(word))
}
