//! A budget for repeats, so that they cannot become a storm.

use std::time::Duration;

use tokio::time::Instant;

use super::sync::{Ordering, fence};
use super::window::Window;

/// Over how long calls and repeats are counted.
const SPAN: Duration = Duration::from_secs(10);

/// Allows repeats as a share of recent calls, and at least a few each second so that a quiet client can
/// repeat at all.
///
/// With the share of 20 %, a server that fails every call sees at most 1.2 times the calls, whatever
/// each of them would like to do; and with at least 3 a second, 3 more than them where they are fewer than
/// 15 a second.
#[derive(Debug)]
pub struct RetryBudget {
    share: f64,
    floor: f64,
    window: Window,
}

impl RetryBudget {
    /// Allows `share` (0.2 is 20 %) of the calls of the last ten seconds, or `per_second` where that is
    /// more.
    #[must_use]
    pub fn new(share: f64, per_second: u32) -> Self {
        Self {
            share,
            floor: f64::from(per_second) * SPAN.as_secs_f64(),
            window: Window::new(SPAN, Instant::now()),
        }
    }

    /// Counts a call: it earns its share of a repeat.
    pub fn deposit(&self, now: Instant) {
        self.window.add(now, [1, 0, 0]);
    }

    /// Takes one repeat, if there is one.
    #[must_use]
    pub fn withdraw(&self, now: Instant) -> bool {
        // Taken first and given back: two threads at the last one may both get none, never both one.
        self.window.add(now, [0, 1, 0]);
        // Between the two, or two threads at the border of two pieces of time, each of which adds to its
        // own, might each miss what the other has added.
        fence(Ordering::SeqCst);
        let [calls, repeats, _] = self.window.sums(now);
        let allowed = f64::from(repeats) <= (self.share * f64::from(calls)).max(self.floor);
        if !allowed {
            self.give_back(now);
        }
        allowed
    }

    /// Gives back a repeat that was taken at `then` and not made.
    ///
    /// ```
    /// use interline::resilience::RetryBudget;
    /// use tokio::time::Instant;
    ///
    /// let budget = RetryBudget::new(1.0, 0);
    /// let now = Instant::now();
    /// budget.deposit(now);
    /// assert!(budget.withdraw(now));
    /// budget.give_back(now);
    /// assert!(budget.withdraw(now));
    /// assert!(!budget.withdraw(now));
    /// ```
    pub fn give_back(&self, then: Instant) {
        self.window.take_back(then, [0, 1, 0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_a_share_of_recent_calls() {
        let budget = RetryBudget::new(0.2, 0);
        let now = Instant::now();
        assert!(!budget.withdraw(now));
        (0..1_000).for_each(|_| budget.deposit(now));
        let allowed = (0..1_000).filter(|_| budget.withdraw(now)).count();
        assert_eq!(allowed, 200);
        assert!(!budget.withdraw(now + Duration::from_secs(11)));
    }

    #[test]
    fn a_repeat_that_was_not_made_may_be_made_later() {
        let budget = RetryBudget::new(0.0, 1);
        let now = Instant::now();
        assert!((0..10).all(|_| budget.withdraw(now)));
        (0..4).for_each(|_| budget.give_back(now));
        let soon = now + Duration::from_secs(5);
        assert_eq!((0..10).filter(|_| budget.withdraw(soon)).count(), 4);
        // What was taken so long ago that it does not count any more gives nothing, and takes nothing of
        // what has been counted since in its place.
        let late = now + Duration::from_secs(20);
        assert!((0..10).all(|_| budget.withdraw(late)));
        (0..10).for_each(|_| budget.give_back(now));
        assert!(!budget.withdraw(late));
    }

    #[test]
    fn a_quiet_client_may_repeat_a_few_times() {
        let budget = RetryBudget::new(0.2, 3);
        let now = Instant::now();
        let allowed = (0..1_000).filter(|_| budget.withdraw(now)).count();
        assert_eq!(allowed, 30);
        let later = now + Duration::from_secs(60);
        assert!(budget.withdraw(later));
    }

    /// The budget as one would write it without regard to cost: all calls and repeats in a list.
    #[test]
    fn it_allows_what_a_plain_list_allows() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..100 {
            let (share, floor) = (rng.f64() * 1.5, rng.u32(..3));
            let base = Instant::now();
            let budget = RetryBudget::new(share, floor);
            // In the middle of a second, so that the moment between does not matter.
            let mut millis = 500;
            let (mut calls, mut repeats): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
            for step in 0..1_000 {
                if rng.u8(..) < 10 {
                    millis += 1_000 * rng.u64(..12);
                }
                let now = base + Duration::from_millis(millis);
                let second = millis / 1_000;
                let recent = |all: &[u64]| all.iter().filter(|at| second - **at < 10).count();
                if rng.bool() {
                    budget.deposit(now);
                    calls.push(second);
                    continue;
                }
                let may = (share * recent(&calls) as f64).max(10.0 * f64::from(floor));
                let allowed = (recent(&repeats) + 1) as f64 <= may;
                assert_eq!(budget.withdraw(now), allowed, "step {step} at {millis}");
                if allowed {
                    repeats.push(second);
                }
            }
        }
    }

    #[test]
    fn the_few_of_a_quiet_client_are_no_more_for_a_busy_one() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let budget = RetryBudget::new(0.2, 3);
        let begin = Instant::now();
        // A hundred calls a second that all fail and would be made three times each.
        let (mut calls, mut attempts) = (0_u32, 0_u32);
        for second in 0..60 {
            for _ in 0..100 {
                let now = begin + Duration::from_millis(second * 1_000 + rng.u64(..1_000));
                budget.deposit(now);
                calls += 1;
                attempts += 1 + (0..2).map(|_| u32::from(budget.withdraw(now))).sum::<u32>();
            }
        }
        let share = f64::from(attempts) / f64::from(calls);
        assert!((1.19..=1.21).contains(&share), "{share}");
    }

    #[test]
    fn many_threads_never_get_more_than_there_is() {
        let budget = RetryBudget::new(0.2, 0);
        let now = Instant::now();
        (0..1_000).for_each(|_| budget.deposit(now));
        let taken = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        if budget.withdraw(now) {
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 200);
    }
}
