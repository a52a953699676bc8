//! How long something usually takes, without keeping what it took.

use std::time::Duration;

use super::sync::{AtomicU32, AtomicU64, Ordering};

/// So many times must be known before they say anything.
const ENOUGH: u32 = 20;
/// By how much the estimate moves at most with one more time, as an exponent: much at first, and then
/// little.
const STEP_MAX: f64 = 0.5;
const STEP_MIN: f64 = 0.05;
/// Beyond this many times the steps are as small as they become.
const SETTLED: u32 = 1_000;

/// The time within which a share of what is done is done, followed as it changes: two words, whatever
/// the number of times, and nothing is allocated.
///
/// Each time that is longer than the estimate moves it up, each that is shorter moves it down, by so much
/// that it stays where the share of shorter ones is the wanted one.
///
/// ```
/// use std::time::Duration;
/// use interline::resilience::UsualTime;
///
/// let usual = UsualTime::new(0.95);
/// assert_eq!(usual.estimate(), None);
/// // From 1 ms to 100 ms, each as often as the others.
/// for n in 0..20_000 {
///     usual.record(Duration::from_millis(n * 37 % 100 + 1));
/// }
/// let estimate = usual.estimate().unwrap().as_millis();
/// assert!((90..=100).contains(&estimate), "{estimate}");
/// ```
#[derive(Debug)]
pub struct UsualTime {
    share: f64,
    /// In nanoseconds.
    estimate: AtomicU64,
    known: AtomicU32,
}

impl UsualTime {
    /// That of a share of 0.01 to 0.999: with 0.95, nineteen of twenty take less.
    #[must_use]
    pub fn new(share: f64) -> Self {
        Self {
            share: share.clamp(0.01, 0.999),
            estimate: AtomicU64::new(0),
            known: AtomicU32::new(0),
        }
    }

    /// One more was done, in this time.
    pub fn record(&self, took: Duration) {
        self.weigh(took, false);
    }

    /// One more is not done yet after this time.
    pub fn outlasted(&self, time: Duration) {
        self.weigh(time, true);
    }

    /// The time within which the share is done; `None` as long as too little is known.
    #[must_use]
    pub fn estimate(&self) -> Option<Duration> {
        let enough = self.known.load(Ordering::Relaxed) >= ENOUGH;
        enough.then(|| Duration::from_nanos(self.estimate.load(Ordering::Relaxed)))
    }

    fn weigh(&self, time: Duration, unfinished: bool) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        let known = self.known.load(Ordering::Relaxed);
        if known == 0 && unfinished {
            return;
        }
        let step = (10.0 / f64::from(known + 1)).clamp(STEP_MIN, STEP_MAX);
        let moved = |estimate: u64| match nanos.cmp(&estimate) {
            _ if estimate == 0 => Some(nanos),
            // How much longer is not known, so it may be either.
            std::cmp::Ordering::Less if unfinished => None,
            std::cmp::Ordering::Less => Some(scaled(estimate, -step * (1.0 - self.share))),
            _ => Some(scaled(estimate, step * self.share)),
        };
        let (set, fetched) = (Ordering::Relaxed, Ordering::Relaxed);
        if self.estimate.fetch_update(set, fetched, moved).is_ok() && known < SETTLED {
            self.known.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// At least a nanosecond, and no more than ten years, so that it can always go back.
fn scaled(nanos: u64, exponent: f64) -> u64 {
    let scaled = nanos as f64 * exponent.exp();
    scaled.clamp(1.0, 3.2e17).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which share of these is shorter than the estimate.
    fn shorter(usual: &UsualTime, times: &[Duration]) -> f64 {
        let estimate = usual.estimate().expect("enough is known");
        let shorter = times.iter().filter(|time| **time < estimate).count();
        shorter as f64 / times.len() as f64
    }

    #[test]
    fn it_stays_where_the_share_is_as_a_sorted_list_has_it() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for share in [0.5, 0.9, 0.95] {
            // Most take about a time that changes by a hundred, and a few take long.
            for base in [10_000.0, 1_000_000.0, 10_000.0] {
                let usual = UsualTime::new(share);
                let mut draw = || {
                    let tail = if rng.u8(..) < 5 { 20.0 } else { 1.0 };
                    Duration::from_nanos((base * (1.0 + rng.f64()) * tail) as u64)
                };
                let times: Vec<_> = (0..20_000).map(|_| draw()).collect();
                times.iter().for_each(|time| usual.record(*time));
                // One estimate swings a little around the right one.
                let shares = times.chunks(10).take(500).map(|some| {
                    some.iter().for_each(|time| usual.record(*time));
                    shorter(&usual, &times[..2_000])
                });
                let mean = shares.sum::<f64>() / 500.0;
                assert!((mean - share).abs() < 0.04, "{mean} for {share} of {base}");
            }
        }
    }

    #[test]
    fn it_follows_when_everything_becomes_slower_or_faster() {
        let usual = UsualTime::new(0.95);
        let millis = Duration::from_millis;
        (0..1_000).for_each(|_| usual.record(millis(10)));
        let before = usual.estimate().unwrap();
        assert!(before < millis(12), "{before:?}");
        (0..200).for_each(|_| usual.record(millis(100)));
        let slow = usual.estimate().unwrap();
        assert!(slow > millis(90) && slow < millis(120), "{slow:?}");
        (0..5_000).for_each(|_| usual.record(millis(1)));
        let fast = usual.estimate().unwrap();
        assert!(fast < millis(2), "{fast:?}");
    }

    #[test]
    fn what_is_not_done_counts_as_longer_and_no_more() {
        let usual = UsualTime::new(0.9);
        let millis = Duration::from_millis;
        usual.outlasted(millis(1_000));
        (0..100).for_each(|_| usual.record(millis(10)));
        let before = usual.estimate().unwrap();
        // Shorter than the estimate it says nothing, longer it moves it as any time does.
        (0..100).for_each(|_| usual.outlasted(millis(1)));
        assert_eq!(usual.estimate().unwrap(), before);
        (0..10).for_each(|_| usual.outlasted(before));
        assert!(usual.estimate().unwrap() > before);
    }
}
