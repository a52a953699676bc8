//! A budget for second requests, fed by success.

use super::sync::{AtomicU64, Ordering};

/// How many second requests may be saved up.
const SAVED_MAX: u64 = 10;
/// Parts of a second request.
const PARTS: u64 = 1 << 20;

/// Allows second requests as a share of successful calls, so that they end by themselves where all is
/// slow: a server that has too much to do does not get more for it.
#[derive(Debug)]
pub struct HedgeBudget {
    reward: u64,
    saved: AtomicU64,
}

impl HedgeBudget {
    /// Allows `share` (0.05 is 5 %) of the successful calls, and ten at the beginning.
    #[must_use]
    pub fn new(share: f64) -> Self {
        Self {
            // Not negative, and no more than one for each.
            reward: (share.clamp(0.0, 1.0) * PARTS as f64) as u64,
            saved: AtomicU64::new(if share > 0.0 { SAVED_MAX * PARTS } else { 0 }),
        }
    }

    /// A call has succeeded: it earns its share of a second request.
    pub fn succeeded(&self) {
        let full = SAVED_MAX * PARTS;
        // Most of the time it is full, and then nothing is written.
        if self.saved.load(Ordering::Relaxed) < full {
            let more = |saved: u64| (saved < full).then(|| (saved + self.reward).min(full));
            let _ = self
                .saved
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }

    /// Gives back one that was taken and not sent.
    pub fn give_back(&self) {
        let full = SAVED_MAX * PARTS;
        let more = |saved: u64| Some((saved + PARTS).min(full));
        // The closure always gives a value, so the update always happens.
        let _ = self
            .saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Takes one second request, if there is one.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        let one = |saved: u64| saved.checked_sub(PARTS);
        self.saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_requests_are_a_share_of_success() {
        let budget = HedgeBudget::new(0.05);
        let at_first = (0..100).filter(|_| budget.withdraw()).count();
        assert_eq!(at_first, 10);
        let mut taken = 0;
        for _ in 0..10_000 {
            budget.succeeded();
            taken += usize::from(budget.withdraw());
        }
        assert!((499..=500).contains(&taken), "{taken}");
        (0..10_000).for_each(|_| budget.succeeded());
        let saved = (0..100).filter(|_| budget.withdraw()).count();
        assert_eq!(saved, 10, "no more are saved up");
        budget.give_back();
        assert!(budget.withdraw() && !budget.withdraw());
        assert!(!HedgeBudget::new(0.0).withdraw());
    }
}
