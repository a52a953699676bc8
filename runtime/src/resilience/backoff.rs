//! How long to wait before something is tried again.

use std::time::Duration;

use crate::clock::Rng;

/// How waits are drawn, so that many who failed together do not come back together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Jitter {
    /// Evenly between nothing and the longest: it spreads best, and some come back at once.
    #[default]
    Full,
    /// Evenly between half of the longest and the longest: nobody comes back at once.
    Equal,
    /// Evenly between the first and three times the one before, whatever the factor: who was lucky goes on
    /// being early, and nobody comes back at once.
    Decorrelated,
    /// Not at all: each waits the longest. For one who is alone.
    None,
}

impl Jitter {
    /// The names in the configuration.
    #[cfg_attr(
        not(feature = "http"),
        allow(dead_code, reason = "only services have it in their configuration")
    )]
    pub(crate) const NAMES: &[&str] = &["full", "equal", "decorrelated", "none"];

    /// The one of this name: `full`, `equal`, `decorrelated` or `none`.
    ///
    /// ```
    /// use interline::resilience::Jitter;
    ///
    /// assert_eq!(Jitter::named("equal"), Some(Jitter::Equal));
    /// assert_eq!(Jitter::named("some"), None);
    /// ```
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "full" => Some(Self::Full),
            "equal" => Some(Self::Equal),
            "decorrelated" => Some(Self::Decorrelated),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

/// Waits that grow from try to try up to a limit, drawn by chance so that many who failed together
/// do not come back together.
///
/// ```
/// use std::time::Duration;
/// use interline::clock::Rng;
/// use interline::resilience::{Backoff, Jitter};
///
/// let backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
/// assert_eq!(backoff.longest(1), Duration::from_millis(50));
/// assert_eq!(backoff.longest(3), Duration::from_millis(200));
/// assert_eq!(backoff.longest(100), Duration::from_secs(2));
/// let steady = backoff.with_jitter(Jitter::None);
/// assert_eq!(steady.wait(3, &Rng::new()), Duration::from_millis(200));
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
    /// How a wait is drawn.
    pub jitter: Jitter,
}

impl Backoff {
    /// Waits from `first` to `max`, doubling, with full jitter.
    #[must_use]
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            factor: 2.0,
            jitter: Jitter::Full,
        }
    }

    /// Growing by `factor`.
    #[must_use]
    pub const fn with_factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Drawn like this.
    #[must_use]
    pub const fn with_jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
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

    /// The wait before repeat `repeat`, counted from 1, of one who does not remember the waits before.
    #[must_use]
    pub fn wait(&self, repeat: u32, rng: &Rng) -> Duration {
        let mut wait = None;
        if self.jitter == Jitter::Decorrelated {
            // After so many, each wait is drawn from the same range.
            for earlier in 1..repeat.min(64) {
                wait = Some(self.wait_after(wait, earlier, rng));
            }
        }
        self.wait_after(wait, repeat, rng)
    }

    /// The wait before repeat `repeat`, counted from 1, after this wait before the one before.
    #[must_use]
    pub fn wait_after(&self, before: Option<Duration>, repeat: u32, rng: &Rng) -> Duration {
        let longest = self.longest(repeat);
        match self.jitter {
            Jitter::Full => longest.mul_f64(rng.unit()),
            Jitter::Equal => longest.mul_f64(0.5 + 0.5 * rng.unit()),
            Jitter::None => longest,
            Jitter::Decorrelated => {
                let first = self.first.min(self.max);
                let longest = before.unwrap_or(first).saturating_mul(3);
                let more = longest.saturating_sub(first);
                (first + more.mul_f64(rng.unit())).min(self.max)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That of `waits` so many are in each tenth of the range.
    fn assert_even(waits: &[Duration], range: std::ops::Range<Duration>) {
        let width = (range.end - range.start) / 10;
        for tenth in 0..10 {
            let inside = range.start + width * tenth..range.start + width * (tenth + 1);
            let count = waits.iter().filter(|wait| inside.contains(*wait)).count();
            assert!(
                (850..1_150).contains(&count),
                "{count} of 10000 in {inside:?}"
            );
        }
    }

    #[test]
    fn waits_are_spread_over_the_whole_range_and_never_beyond() {
        let rng = Rng::with_seed(5);
        let ms = Duration::from_millis;
        let backoff = Backoff::new(ms(100), Duration::from_secs(1));
        let waits = |backoff: Backoff, repeat| {
            let drawn = (0..10_000).map(|_| backoff.wait(repeat, &rng));
            drawn.collect::<Vec<_>>()
        };
        assert_even(&waits(backoff, 2), ms(0)..ms(200));
        let equal = backoff.with_jitter(Jitter::Equal);
        assert_even(&waits(equal, 2), ms(100)..ms(200));
        let none = backoff.with_jitter(Jitter::None);
        assert!(waits(none, 2).iter().all(|wait| *wait == ms(200)));
        let decorrelated = backoff.with_jitter(Jitter::Decorrelated);
        assert_even(&waits(decorrelated, 1), ms(100)..ms(300));
    }

    #[test]
    fn decorrelated_waits_follow_from_the_one_before() {
        let rng = Rng::with_seed(5);
        let ms = Duration::from_millis;
        let backoff = Backoff::new(ms(100), Duration::from_secs(1));
        let backoff = backoff.with_jitter(Jitter::Decorrelated);
        let after = |before| {
            let drawn = (0..10_000).map(|_| backoff.wait_after(Some(before), 2, &rng));
            drawn.collect::<Vec<_>>()
        };
        assert_even(&after(ms(200)), ms(100)..ms(600));
        // Of what would be between 100 ms and 1 900 ms, all that is above one second is one second.
        let waits = after(ms(633));
        let longest = waits.iter().filter(|wait| **wait == backoff.max).count();
        assert!((4_700..5_300).contains(&longest), "{longest}");
        assert!(
            waits
                .iter()
                .all(|wait| (ms(100)..=backoff.max).contains(wait))
        );
        // Who does not remember draws what one who does would have.
        let remembered = (0..10_000).map(|_| {
            let first = backoff.wait_after(None, 1, &rng);
            backoff.wait_after(Some(first), 2, &rng)
        });
        let mean = |waits: &mut dyn Iterator<Item = Duration>| waits.sum::<Duration>() / 10_000;
        let (one, other) = (
            mean(&mut remembered.into_iter()),
            mean(&mut (0..10_000).map(|_| backoff.wait(2, &rng))),
        );
        assert!(one.abs_diff(other) < ms(10), "{one:?} {other:?}");
    }

    #[test]
    fn every_way_is_within_its_limits_from_the_first_to_the_last() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut chance = fastrand::Rng::with_seed(seed);
        let rng = Rng::with_seed(seed);
        for _ in 0..2_000 {
            let first = Duration::from_micros(chance.u64(..2_000_000));
            let max = Duration::from_micros(chance.u64(..2_000_000));
            for name in Jitter::NAMES {
                let jitter = Jitter::named(name).expect("its own name");
                let backoff = Backoff::new(first, max).with_jitter(jitter);
                let repeat = chance.u32(1..40);
                assert!(
                    backoff.wait(repeat, &rng) <= max,
                    "{name} {first:?} {max:?}"
                );
            }
        }
        let huge = Backoff::new(Duration::MAX, Duration::MAX);
        for name in Jitter::NAMES {
            let jitter = Jitter::named(name).expect("its own name");
            assert!(huge.with_jitter(jitter).wait(9, &rng) <= Duration::MAX);
        }
    }
}
