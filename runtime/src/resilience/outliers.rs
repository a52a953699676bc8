//! Endpoints that are worse than the others: left alone, but never so many that the rest breaks down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The smallest part of its share that an endpoint gets while it starts: with less it would never warm
/// up.
const WARMTH_MIN: f64 = 0.1;

/// How many endpoints are left alone, and how they come back.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct OutlierOptions {
    /// The largest share of the endpoints, from 0 to 1, that is left alone at once. 0.5 unless set.
    pub max_share: f64,
    /// Where less than this share of the endpoints, from 0 to 1, is healthy, all are called: then it is
    /// hardly the endpoints that fail, or what checks them is wrong, and the healthy ones would get more
    /// than they can take. 0.5 unless set.
    pub panic: f64,
    /// Over how long an endpoint that is new, or comes back, gets more and more of its share. 10 s unless
    /// set; zero for at once.
    pub slow_start: Duration,
}

impl OutlierOptions {
    /// At most half of the endpoints; all of them where less than half is healthy; slow start over 10 s.
    pub const DEFAULT: Self = Self {
        max_share: 0.5,
        panic: 0.5,
        slow_start: Duration::from_secs(10),
    };
}

impl Default for OutlierOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What is known of the health of all endpoints of one service together.
///
/// ```
/// use interline::resilience::{OutlierOptions, Outliers};
/// use tokio::time::Instant;
///
/// let outliers = Outliers::new(OutlierOptions::DEFAULT);
/// outliers.resize(4);
/// let endpoints: Vec<_> = (0..4).map(|_| outliers.join(None)).collect();
/// for endpoint in &endpoints {
///     endpoint.fell_ill();
/// }
/// let ejected = endpoints.iter().filter(|endpoint| endpoint.is_ejected());
/// assert_eq!(ejected.count(), 2, "no more than half");
/// assert!(outliers.is_panicking(), "and so many that all are called");
/// for endpoint in &endpoints {
///     endpoint.recovered(Instant::now());
/// }
/// assert!(!outliers.is_panicking());
/// ```
#[derive(Debug)]
pub struct Outliers {
    options: OutlierOptions,
    base: Instant,
    members: AtomicUsize,
    /// Those that fail, and those whose checks do.
    unwell: AtomicUsize,
    ejected: AtomicUsize,
}

const HEALTHY: u8 = 0;
/// Ill, and called all the same because too many others are left alone.
const ILL: u8 = 1;
const EJECTED: u8 = 2;
/// Which of these three it is.
const CALLS: u8 = 0b011;
/// Beside them: its checks fail.
const DOWN: u8 = 0b100;

impl Outliers {
    /// Of no endpoint yet.
    #[must_use]
    pub fn new(options: OutlierOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            base: Instant::now(),
            members: AtomicUsize::new(0),
            unwell: AtomicUsize::new(0),
            ejected: AtomicUsize::new(0),
        })
    }

    /// There are now this many endpoints.
    pub fn resize(&self, members: usize) {
        self.members.store(members, Ordering::Relaxed);
    }

    /// Another endpoint, which is healthy. It starts slowly from `started` on, if that is given.
    #[must_use]
    pub fn join(self: &Arc<Self>, started: Option<Instant>) -> EndpointHealth {
        let health = EndpointHealth {
            outliers: Arc::clone(self),
            state: AtomicU8::new(HEALTHY),
            warming: AtomicU64::new(0),
        };
        if let Some(started) = started {
            health.start_slowly(started);
        }
        health
    }

    /// Whether so few are healthy that none is left alone.
    #[must_use]
    pub fn is_panicking(&self) -> bool {
        let unwell = self.unwell.load(Ordering::Relaxed);
        if unwell == 0 {
            return false;
        }
        let members = self.members.load(Ordering::Relaxed);
        let healthy = members.saturating_sub(unwell);
        (healthy as f64) < self.options.panic * members as f64
    }

    /// How many are left alone.
    #[must_use]
    pub fn ejected(&self) -> usize {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Takes one of the seats of those that are left alone, if one is free.
    fn take_seat(&self) -> bool {
        let members = self.members.load(Ordering::Relaxed);
        // A product of a count and a share: small and not negative.
        let seats = (members as f64 * self.options.max_share).floor() as usize;
        let taken = |ejected| (ejected < seats).then_some(ejected + 1);
        self.ejected
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
            .is_ok()
    }
}

/// The health of one endpoint among others. Dropping it takes the endpoint out of the count.
#[derive(Debug)]
pub struct EndpointHealth {
    outliers: Arc<Outliers>,
    state: AtomicU8,
    /// Milliseconds since the base, and one more, when it began to start slowly; 0 for done.
    warming: AtomicU64,
}

impl EndpointHealth {
    /// It fails. Left alone from now on, unless too many others are. Gives whether it is.
    pub fn fell_ill(&self) -> bool {
        self.change(|state| (state & CALLS == HEALTHY).then_some(state | ILL));
        // One that stayed ill without a seat gets one when there is one.
        let eject = |state| (state & CALLS == ILL).then_some(state & !CALLS | EJECTED);
        let is_ill = self.state.load(Ordering::Relaxed) & CALLS == ILL;
        if is_ill && self.outliers.take_seat() && !self.change(eject) {
            // It recovered in between, or somebody else took a seat for it.
            self.outliers.ejected.fetch_sub(1, Ordering::Relaxed);
        }
        self.is_ejected()
    }

    /// Checks beside the calls say that it is healthy, or that it is not.
    pub fn checked(&self, healthy: bool) {
        if !healthy {
            self.change(|state| (state & DOWN == 0).then_some(state | DOWN));
            return;
        }
        let before = self.state.fetch_and(!DOWN, Ordering::AcqRel);
        if before == DOWN {
            self.outliers.unwell.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether checks say that it is not healthy.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.state.load(Ordering::Relaxed) & DOWN != 0
    }

    /// It works again, and gets more and more of its share. Gives whether it was ill.
    pub fn recovered(&self, now: Instant) -> bool {
        let was_ill = self.leave();
        if was_ill {
            self.start_slowly(now);
        }
        was_ill
    }

    /// Whether it is left alone.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.state.load(Ordering::Relaxed) & CALLS == EJECTED
    }

    /// How much of its share it gets at `now`: above 0, and 1 when it has started.
    #[must_use]
    pub fn warmth(&self, now: Instant) -> f64 {
        let warming = self.warming.load(Ordering::Relaxed);
        if warming == 0 {
            return 1.0;
        }
        let age = self.millis(now).saturating_sub(warming);
        let whole = self.outliers.options.slow_start.as_millis() as f64;
        if age as f64 >= whole {
            // Another start in between is as good as over too late.
            let _ = self
                .warming
                .compare_exchange(warming, 0, Ordering::Relaxed, Ordering::Relaxed);
            return 1.0;
        }
        (age as f64 / whole).max(WARMTH_MIN)
    }

    fn start_slowly(&self, now: Instant) {
        if !self.outliers.options.slow_start.is_zero() {
            self.warming.store(self.millis(now), Ordering::Relaxed);
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.outliers.base);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn leave(&self) -> bool {
        let before = self.state.fetch_and(!CALLS, Ordering::AcqRel);
        let was_ill = before & CALLS != HEALTHY;
        if was_ill && before & DOWN == 0 {
            self.outliers.unwell.fetch_sub(1, Ordering::Relaxed);
        }
        if before & CALLS == EJECTED {
            self.outliers.ejected.fetch_sub(1, Ordering::Relaxed);
        }
        was_ill
    }

    /// Goes on to the state that `next` gives, which is never the healthy one. Whether it gave one.
    fn change(&self, next: impl Fn(u8) -> Option<u8>) -> bool {
        let unwell = &self.outliers.unwell;
        // Counted before anybody can see it, so that nobody takes it from the count before.
        unwell.fetch_add(1, Ordering::Relaxed);
        let before = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, next);
        if before != Ok(HEALTHY) {
            unwell.fetch_sub(1, Ordering::Relaxed);
        }
        before.is_ok()
    }
}

impl Drop for EndpointHealth {
    fn drop(&mut self) {
        self.leave();
        self.checked(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which endpoints are ill, which of them are left alone, and which fail their checks, as plain lists.
    #[derive(Default)]
    struct Model {
        ill: Vec<usize>,
        ejected: Vec<usize>,
        down: Vec<usize>,
    }

    #[test]
    fn it_counts_as_plain_lists_do() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let options = OutlierOptions {
                max_share: rng.f64(),
                panic: rng.f64(),
                ..OutlierOptions::DEFAULT
            };
            let outliers = Outliers::new(options);
            let count = rng.usize(1..12);
            outliers.resize(count);
            let mut endpoints: Vec<_> = (0..count).map(|_| outliers.join(None)).collect();
            let mut model = Model::default();
            for _ in 0..200 {
                let at = rng.usize(..count);
                match rng.u8(..7) {
                    0 | 1 => {
                        if !model.ill.contains(&at) {
                            model.ill.push(at);
                        }
                        let seats = (count as f64 * options.max_share) as usize;
                        if model.ejected.len() < seats && !model.ejected.contains(&at) {
                            model.ejected.push(at);
                        }
                        assert_eq!(endpoints[at].fell_ill(), model.ejected.contains(&at));
                    }
                    2 | 3 => {
                        let was_ill = endpoints[at].recovered(Instant::now());
                        assert_eq!(was_ill, model.ill.contains(&at));
                        model.ill.retain(|ill| *ill != at);
                        model.ejected.retain(|ejected| *ejected != at);
                    }
                    4 | 5 => {
                        let healthy = rng.bool();
                        endpoints[at].checked(healthy);
                        model.down.retain(|down| *down != at);
                        if !healthy {
                            model.down.push(at);
                        }
                    }
                    // Replaced by another.
                    _ => {
                        endpoints[at] = outliers.join(None);
                        model.down.retain(|down| *down != at);
                        model.ill.retain(|ill| *ill != at);
                        model.ejected.retain(|ejected| *ejected != at);
                    }
                }
                let unwell = |at: &usize| model.ill.contains(at) || model.down.contains(at);
                let unwell = (0..count).filter(unwell).count();
                let healthy = (count - unwell) as f64;
                let panicking = unwell > 0 && healthy < options.panic * count as f64;
                assert_eq!(outliers.is_panicking(), panicking);
                assert_eq!(outliers.ejected(), model.ejected.len());
                for (at, endpoint) in endpoints.iter().enumerate() {
                    assert_eq!(endpoint.is_ejected(), model.ejected.contains(&at));
                    assert_eq!(endpoint.is_down(), model.down.contains(&at));
                }
            }
        }
    }

    #[test]
    fn a_share_grows_over_the_slow_start() {
        let outliers = Outliers::new(OutlierOptions::DEFAULT);
        outliers.resize(2);
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let (old, new) = (outliers.join(None), outliers.join(Some(now)));
        assert_eq!(old.warmth(now), 1.0);
        assert_eq!(new.warmth(now), 0.1);
        assert!((new.warmth(after(4)) - 0.4).abs() < 0.01);
        assert_eq!(new.warmth(after(10)), 1.0);
        assert_eq!(new.warmth(after(5)), 1.0, "started is started");
        assert!(new.fell_ill());
        new.recovered(after(20));
        assert!((new.warmth(after(23)) - 0.3).abs() < 0.01);
        old.recovered(after(20));
        assert_eq!(old.warmth(after(20)), 1.0, "it was never ill");
        let at_once = OutlierOptions {
            slow_start: Duration::ZERO,
            ..OutlierOptions::DEFAULT
        };
        assert_eq!(Outliers::new(at_once).join(Some(now)).warmth(now), 1.0);
    }

    #[test]
    fn threads_leave_no_seat_taken() {
        let outliers = Outliers::new(OutlierOptions::DEFAULT);
        outliers.resize(8);
        let endpoints: Vec<_> = (0..8).map(|_| outliers.join(None)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (endpoints, outliers) = (&endpoints, &outliers);
                scope.spawn(move || {
                    for step in 0..20_000 {
                        let endpoint = &endpoints[(step * 7 + thread) % 8];
                        match (step + thread) % 5 {
                            0 => _ = endpoint.recovered(Instant::now()),
                            1 => endpoint.checked(true),
                            2 => endpoint.checked(false),
                            _ => _ = endpoint.fell_ill(),
                        }
                        assert!(outliers.ejected() <= 4);
                    }
                });
            }
        });
        drop(endpoints);
        assert_eq!(outliers.ejected(), 0);
        assert!(!outliers.is_panicking());
    }
}
