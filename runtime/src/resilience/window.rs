//! Counts over the last span of time, on atomics.

use std::time::Duration;

use tokio::time::Instant;

use super::sync::{AtomicU64, Ordering};

/// How many pieces the span is cut into: how coarsely old counts leave it.
const BUCKETS: u64 = 10;
/// Bits of one count; the fourth part of the word says which piece of time the counts belong to.
const BITS: u32 = 16;
const MASK: u64 = (1 << BITS) - 1;

/// Three counts that are kept together.
pub(crate) type Counts = [u32; 3];

/// Three counts over the last span of time. Adding is one compare-and-swap, reading ten loads;
/// nothing is allocated and nothing has to be swept, however long nobody looked.
#[derive(Debug)]
pub(crate) struct Window {
    base: Instant,
    bucket_millis: u64,
    buckets: [AtomicU64; BUCKETS as usize],
}

impl Window {
    /// An empty window over `span`, at least 10 ms.
    pub(crate) fn new(span: Duration, now: Instant) -> Self {
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self {
            base: now,
            bucket_millis: (millis / BUCKETS).max(1),
            buckets: Default::default(),
        }
    }

    /// Adds to the counts at `now`.
    pub(crate) fn add(&self, now: Instant, counts: Counts) {
        self.change(now, |held| {
            let held = held.unwrap_or_default();
            let mut sums = [0, 1, 2].map(|at| held[at].saturating_add(counts[at]));
            // Where one count no longer fits, all are halved: what they say as ratios stays true.
            while sums.iter().any(|sum| u64::from(*sum) > MASK) {
                sums = sums.map(|sum| sum / 2);
            }
            Some(sums)
        });
    }

    /// Takes back what was added at `then`, however long ago that was.
    pub(crate) fn take_back(&self, then: Instant, counts: Counts) {
        self.change(then, |held| {
            // Otherwise it has left the span, and a later piece stands in its place.
            let held = held?;
            Some([0, 1, 2].map(|at| held[at].saturating_sub(counts[at])))
        });
    }

    /// Changes the counts of the piece at `at`, which are `None` where there are none yet or no more.
    fn change(&self, at: Instant, change: impl Fn(Option<Counts>) -> Option<Counts>) {
        let piece = self.piece(at);
        let bucket = &self.buckets[usize::try_from(piece % BUCKETS).unwrap_or_default()];
        let tag = piece & MASK;
        // Where the closure gives nothing there is nothing to change.
        let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let held = (word >> (3 * BITS) == tag).then(|| unpack(word));
            Some(pack(tag, change(held)?))
        });
    }

    /// The counts of the span that ends at `now`.
    pub(crate) fn sums(&self, now: Instant) -> Counts {
        let piece = self.piece(now);
        let mut sums = [0; 3];
        for bucket in &self.buckets {
            let word = bucket.load(Ordering::Relaxed);
            let age = piece.wrapping_sub(word >> (3 * BITS)) & MASK;
            // Who has read the clock a moment earlier counts what others have added since, too.
            if !(BUCKETS..=MASK - BUCKETS).contains(&age) {
                let held = unpack(word);
                sums = [0, 1, 2].map(|at| sums[at] + held[at]);
            }
        }
        sums
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
    }

    fn piece(&self, now: Instant) -> u64 {
        let millis = now.saturating_duration_since(self.base).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX) / self.bucket_millis
    }
}

fn pack(tag: u64, counts: Counts) -> u64 {
    let [first, second, third] = counts.map(|count| u64::from(count) & MASK);
    tag << (3 * BITS) | first << (2 * BITS) | second << BITS | third
}

fn unpack(word: u64) -> Counts {
    let part = |at: u32| u32::try_from(word >> (at * BITS) & MASK).unwrap_or_default();
    [part(2), part(1), part(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every count with the piece of time it was added in, and nothing clever.
    #[derive(Default)]
    struct Model(Vec<(u64, Counts)>);

    impl Model {
        fn sums(&self, piece: u64) -> Counts {
            let recent = self.0.iter().filter(|(at, _)| piece - at < BUCKETS);
            recent.fold([0; 3], |sums, (_, counts)| {
                [0, 1, 2].map(|at| sums[at] + counts[at])
            })
        }
    }

    #[test]
    fn it_counts_as_a_plain_list_does() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..50 {
            let base = Instant::now();
            let window = Window::new(Duration::from_secs(10), base);
            let mut model = Model::default();
            let mut millis = 0;
            for _ in 0..2_000 {
                // Mostly small steps, sometimes far more than the whole window.
                millis += if rng.u8(..) < 4 {
                    rng.u64(..200_000)
                } else {
                    rng.u64(..300)
                };
                let now = base + Duration::from_millis(millis);
                let counts = [1, u32::from(rng.bool()), u32::from(rng.u8(..) < 25)];
                window.add(now, counts);
                model.0.push((millis / 1_000, counts));
                assert_eq!(window.sums(now), model.sums(millis / 1_000), "at {millis}");
            }
        }
    }

    #[test]
    fn ten_years_without_a_look_cost_nothing_and_leave_nothing() {
        let base = Instant::now();
        let window = Window::new(Duration::from_secs(10), base);
        window.add(base, [7, 7, 7]);
        let later = base + Duration::from_secs(3_650 * 86_400);
        // Sweeping 300 million pieces would take seconds.
        let begun = std::time::Instant::now();
        assert_eq!(window.sums(later), [0, 0, 0]);
        window.add(later, [1, 0, 0]);
        assert!(begun.elapsed() < Duration::from_millis(500));
        assert_eq!(window.sums(later), [1, 0, 0]);
    }

    #[test]
    fn a_clock_that_was_read_a_moment_earlier_sees_the_same() {
        let base = Instant::now();
        let window = Window::new(Duration::from_secs(10), base);
        let later = base + Duration::from_secs(1);
        window.add(later, [1, 0, 0]);
        window.add(base, [1, 0, 1]);
        assert_eq!(window.sums(base), [2, 0, 1]);
        assert_eq!(window.sums(later), [2, 0, 1]);
    }

    #[test]
    fn counts_that_do_not_fit_keep_their_ratios() {
        let base = Instant::now();
        let window = Window::new(Duration::from_secs(10), base);
        for _ in 0..200_000 {
            window.add(base, [2, 1, 0]);
        }
        let [total, half, none] = window.sums(base);
        assert!((32_000..=65_535).contains(&total), "{total}");
        assert!(half.abs_diff(total / 2) <= total / 100, "{half} of {total}");
        assert_eq!(none, 0);
    }

    #[test]
    fn threads_lose_no_count() {
        let base = Instant::now();
        let window = Window::new(Duration::from_secs(10), base);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5_000).for_each(|_| window.add(base, [1, 0, 1])));
            }
        });
        assert_eq!(window.sums(base), [20_000, 0, 20_000]);
        window.take_back(base, [1, 0, 0]);
        assert_eq!(window.sums(base), [19_999, 0, 20_000]);
        window.clear();
        assert_eq!(window.sums(base), [0; 3]);
    }
}
