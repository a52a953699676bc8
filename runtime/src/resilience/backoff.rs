//! How long to wait before something is tried again.

use std::time::Duration;

use crate::clock::Rng;

/// Waits that grow from try to try up to a limit, drawn by chance so that many who failed together
/// do not come back together.
///
/// ```
/// use std::time::Duration;
/// use interline::resilience::Backoff;
///
/// let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
/// assert_eq!(backoff.longest(1), Duration::from_millis(50));
/// assert_eq!(backoff.longest(3), Duration::from_millis(200));
/// assert_eq!(backoff.longest(100), Duration::from_secs(2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Backoff {
    /// The longest wait before the first repeat.
    pub first: Duration,
    /// The longest wait of all.
    pub max: Duration,
    /// By what the longest wait grows each time; at least 1.
    pub factor: f64,
}

impl Backoff {
    /// Waits from `first` to `max`, doubling.
    #[must_use]
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            factor: 2.0,
        }
    }

    /// Growing by `factor`.
    #[must_use]
    pub const fn with_factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// The longest wait before repeat `repeat`, counted from 1.
    #[must_use]
    pub fn longest(&self, repeat: u32) -> Duration {
        let exponent = i32::try_from(repeat.saturating_sub(1)).unwrap_or(i32::MAX);
        let wait = self.first.as_secs_f64() * self.factor.powi(exponent);
        if wait.is_finite() && wait < self.max.as_secs_f64() {
            Duration::from_secs_f64(wait)
        } else {
            self.max
        }
    }

    /// The wait before repeat `repeat`, drawn evenly between nothing and [`longest`](Self::longest).
    #[must_use]
    pub fn wait(&self, repeat: u32, rng: &Rng) -> Duration {
        self.longest(repeat).mul_f64(rng.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_spread_over_the_whole_range_and_never_beyond() {
        let rng = Rng::with_seed(5);
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<_> = (0..10_000).map(|_| backoff.wait(2, &rng)).collect();
        let longest = Duration::from_millis(200);
        assert!(waits.iter().all(|wait| *wait < longest));
        for tenth in 0..10 {
            let inside = longest / 10 * tenth..longest / 10 * (tenth + 1);
            let count = waits.iter().filter(|wait| inside.contains(*wait)).count();
            assert!(
                (850..1_150).contains(&count),
                "{count} of 10000 in {inside:?}"
            );
        }
    }
}
