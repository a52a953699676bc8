//! Time and chance, injected: the wall clock and the random source that every room uses.
//!
//! Monotonic time is tokio's, so a test can pause it. [`Clock`] gives wall time, [`Rng`] is seeded;
//! together they make any run repeatable from its seed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Wall time. Production uses [`SystemClock`]; tests inject one that they move themselves.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// The current wall time.
    fn now(&self) -> SystemTime;

    /// Milliseconds since the Unix epoch; 0 for a clock set before it.
    fn unix_millis(&self) -> u64 {
        let since = self
            .now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// Wall time that follows tokio's (pausable) monotonic time from a fixed start.
///
/// With tokio's time paused, a run sees the same instants every time.
#[derive(Debug, Clone)]
pub struct TokioClock {
    start: SystemTime,
    origin: Instant,
}

impl TokioClock {
    /// A clock that reads `start` now and then advances with tokio's time.
    #[must_use]
    pub fn starting_at(start: SystemTime) -> Self {
        Self {
            start,
            origin: Instant::now(),
        }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> SystemTime {
        self.start + self.origin.elapsed()
    }
}

/// As long after `now`, or, where the clock does not go that far, so late that nobody will see it.
pub(crate) fn later(now: Instant, wait: Duration) -> Instant {
    const YEARS: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);
    now.checked_add(wait).unwrap_or_else(|| now + YEARS)
}

/// A seeded source of randomness, shared by clone.
///
/// It decides jitter and identifiers, never anything secret.
#[derive(Clone)]
pub struct Rng {
    source: Arc<Mutex<fastrand::Rng>>,
    seed: u64,
}

impl Rng {
    /// A source seeded by the operating system.
    #[must_use]
    pub fn new() -> Self {
        Self::with_seed(fastrand::u64(..))
    }

    /// A source that yields the same sequence for the same seed.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self {
            source: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
            seed,
        }
    }

    /// The seed it started from; printing it makes a run repeatable.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Sixteen random bytes.
    #[must_use]
    pub fn bytes16(&self) -> [u8; 16] {
        self.with(|rng| rng.u128(..)).to_le_bytes()
    }

    /// So many random numbers, drawn at once.
    pub(crate) fn words<const N: usize>(&self) -> [u64; N] {
        self.with(|rng| std::array::from_fn(|_| rng.u64(..)))
    }

    /// A number between 0 (included) and 1 (excluded).
    #[must_use]
    pub fn unit(&self) -> f64 {
        self.with(fastrand::Rng::f64)
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 {
            0
        } else {
            self.with(|rng| rng.u64(..bound))
        }
    }

    fn with<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.source.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for Rng {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rng")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_sequence() {
        let (one, two) = (Rng::with_seed(7), Rng::with_seed(7));
        assert_eq!(one.bytes16(), two.bytes16());
        assert_eq!(one.below(1_000), two.below(1_000));
        assert_eq!(one.below(0), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_tokio_clock_follows_paused_time() {
        let start = UNIX_EPOCH + Duration::from_secs(1_000);
        let clock = TokioClock::starting_at(start);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.now(), start + Duration::from_secs(5));
        assert_eq!(clock.unix_millis(), 1_005_000);
    }
}
