//! How busy and how slow an endpoint is.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How fast old measurements lose their weight.
const DECAY: f64 = 10.0;
/// What is taken for the round trip of an endpoint that nobody has measured and that is being
/// measured now: so much that nobody else waits for it.
const UNKNOWN: f64 = 1.0;
/// What a failure counts as, at least: an endpoint that fails fast must not look like a fast one.
const PENALTY: Duration = Duration::from_secs(5);

/// How busy and how slow an endpoint is: calls in flight, and a moving average of the time they take
/// that rises at once and falls slowly.
#[derive(Debug)]
pub struct Load {
    base: Instant,
    in_flight: AtomicU32,
    /// Seconds as the bits of an `f32`, then the milliseconds since `base` when they were measured:
    /// one word, so that the two always belong together. 0 is never measured.
    average: AtomicU64,
}

impl Load {
    /// That of an endpoint that nobody has called.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            base: now,
            in_flight: AtomicU32::new(0),
            average: AtomicU64::new(0),
        }
    }

    /// That of an endpoint that nobody has called and that is taken to be as fast as `average` until
    /// somebody has: it would otherwise look like the fastest of all.
    #[must_use]
    pub fn expected(average: Duration, now: Instant) -> Self {
        let load = Self::new(now);
        load.measure(average, now);
        load
    }

    /// A call begins.
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A call has ended, in whatever way.
    pub fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// A call has succeeded after `took`.
    pub fn succeeded(&self, took: Duration, now: Instant) {
        self.measure(took, now);
    }

    /// A call has failed after `took`; the endpoint may have said for how long it wants to be left
    /// alone.
    pub fn failed(&self, took: Duration, left_alone: Option<Duration>, now: Instant) {
        const LEFT_ALONE_MAX: Duration = Duration::from_secs(300);
        let penalty = left_alone.map_or(PENALTY, |wait| wait.clamp(PENALTY, LEFT_ALONE_MAX));
        self.measure(took.max(penalty), now);
    }

    /// A call was given up after `took`: it would have taken at least that long.
    pub fn outlasted(&self, took: Duration, now: Instant) {
        let known = self.average_at(now);
        if known.is_none_or(|average| average < took.as_secs_f64()) {
            self.measure(took, now);
        }
    }

    /// Forgets how long calls took.
    pub fn forget(&self) {
        self.average.store(0, Ordering::Relaxed);
    }

    /// How long calls took lately; `None` where nobody knows.
    #[must_use]
    pub fn average(&self, now: Instant) -> Option<Duration> {
        self.average_at(now).map(Duration::from_secs_f64)
    }

    /// How many calls are in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What one more call is expected to cost, in seconds: the average times those in flight.
    #[must_use]
    pub fn cost(&self, now: Instant) -> f64 {
        let in_flight = f64::from(self.in_flight());
        match self.average_at(now) {
            Some(average) => average * (in_flight + 1.0),
            None => UNKNOWN * in_flight,
        }
    }

    fn average_at(&self, now: Instant) -> Option<f64> {
        let (average, measured) = unpack(self.average.load(Ordering::Relaxed))?;
        Some(average * weight(self.millis(now), measured))
    }

    fn measure(&self, took: Duration, now: Instant) {
        let (took, millis) = (took.as_secs_f64(), self.millis(now));
        let measured = |word| {
            let average = match unpack(word) {
                Some((average, before)) if took < average => {
                    let weight = weight(millis, before);
                    average * weight + took * (1.0 - weight)
                }
                _ => took,
            };
            Some(pack(average, millis))
        };
        // The closure always gives a value, so the update always happens.
        let _ = self
            .average
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, measured);
    }

    /// Wraps around after 49 days, like every difference taken of it.
    fn millis(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.base).as_millis() as u32
    }
}

fn weight(now: u32, before: u32) -> f64 {
    let age = now.wrapping_sub(before) as i32;
    (-f64::from(age.max(0)) / 1_000.0 / DECAY).exp()
}

fn pack(seconds: f64, millis: u32) -> u64 {
    // Smaller than any round trip, and not the word of "never measured".
    let seconds = (seconds as f32).max(1e-9);
    u64::from(seconds.to_bits()) << 32 | u64::from(millis)
}

fn unpack(word: u64) -> Option<(f64, u32)> {
    let seconds = f32::from_bits((word >> 32) as u32);
    (word != 0).then_some((f64::from(seconds), word as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_rises_at_once_and_falls_slowly() {
        let base = Instant::now();
        let load = Load::new(base);
        assert_eq!(load.cost(base), 0.0);
        load.begin();
        assert_eq!(load.cost(base), 1.0, "one is finding out");
        load.succeeded(Duration::from_millis(10), base);
        load.end();
        assert!((load.cost(base) - 0.01).abs() < 1e-6);
        load.succeeded(Duration::from_millis(500), base);
        assert!((load.cost(base) - 0.5).abs() < 1e-6);
        load.succeeded(Duration::from_millis(10), base);
        assert!(load.cost(base) > 0.49);
        let later = base + Duration::from_secs(10);
        let expected = 0.5 / std::f64::consts::E;
        assert!((load.cost(later) - expected).abs() < 0.01);
        load.begin();
        load.begin();
        assert!((load.cost(later) - 3.0 * expected).abs() < 0.03);
    }

    #[test]
    fn a_call_that_was_given_up_took_at_least_as_long() {
        let base = Instant::now();
        let load = Load::new(base);
        load.outlasted(Duration::from_millis(30), base);
        assert!((load.cost(base) - 0.03).abs() < 1e-6);
        load.outlasted(Duration::from_millis(10), base);
        assert!(
            (load.cost(base) - 0.03).abs() < 1e-6,
            "which says nothing new"
        );
    }

    #[test]
    fn an_expectation_holds_until_it_is_measured() {
        let base = Instant::now();
        let load = Load::expected(Duration::from_millis(20), base);
        assert!((load.cost(base) - 0.02).abs() < 1e-6);
        load.forget();
        assert_eq!((load.cost(base), load.average(base)), (0.0, None));
        load.succeeded(Duration::from_millis(10), base);
        let average = load.average(base).unwrap();
        assert!(average.abs_diff(Duration::from_millis(10)) < Duration::from_micros(1));
    }

    #[test]
    fn failing_fast_looks_slow() {
        let base = Instant::now();
        let load = Load::new(base);
        load.failed(Duration::from_micros(100), None, base);
        assert!((load.cost(base) - 5.0).abs() < 1e-3);
        load.failed(Duration::ZERO, Some(Duration::from_secs(20)), base);
        assert!((load.cost(base) - 20.0).abs() < 1e-3);
        load.failed(Duration::ZERO, Some(Duration::from_secs(1_000_000)), base);
        assert!((load.cost(base) - 300.0).abs() < 1e-3);
    }

    #[test]
    fn two_months_later_it_still_measures() {
        let base = Instant::now();
        let load = Load::new(base);
        load.failed(Duration::ZERO, None, base);
        let later = base + Duration::from_secs(60 * 86_400);
        load.succeeded(Duration::from_millis(10), later);
        assert!(load.cost(later) < 0.02, "{}", load.cost(later));
    }
}
