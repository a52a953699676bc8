//! A rate limiter: how many things may start in a span of time.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::sync::{AtomicU64, Ordering};

/// Lets at most `count` things start in each `per`, evenly spaced after a first burst.
///
/// It is the generic cell rate algorithm (the one of ATM networks): one atomic word of state, no timer
/// and no task.
///
/// ```
/// use std::time::Duration;
/// use interline::resilience::RateLimiter;
/// use tokio::time::Instant;
///
/// let limiter = RateLimiter::new(10, Duration::from_secs(1)).with_burst(2);
/// let now = Instant::now();
/// assert!(limiter.admit(now).is_ok());
/// assert!(limiter.admit(now).is_ok());
/// let refused = limiter.admit(now).unwrap_err();
/// assert_eq!(refused.retry_after, Duration::from_millis(100));
/// ```
#[derive(Debug)]
pub struct RateLimiter {
    base: Instant,
    /// In nanoseconds, as all that follows.
    interval: u64,
    burst: u64,
    /// When the next thing would start if everything that was let through had kept its interval, since
    /// the base.
    next: AtomicU64,
}

/// More would start than may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimited {
    /// After what time one more may start.
    pub retry_after: Duration,
}

impl fmt::Display for RateLimited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.retry_after.as_millis().max(1);
        write!(f, "the rate allows the next one in {millis} ms")
    }
}

impl Error for RateLimited {}

impl RateLimiter {
    /// At most `count` (at least 1) in each `per`, all of which may start at once.
    #[must_use]
    pub fn new(count: u32, per: Duration) -> Self {
        let limiter = Self {
            base: Instant::now(),
            interval: nanos(per / count.max(1)).max(1),
            burst: 0,
            next: AtomicU64::new(0),
        };
        limiter.with_burst(count)
    }

    /// So many (at least 1) may start at once after a pause.
    #[must_use]
    pub fn with_burst(mut self, burst: u32) -> Self {
        let beside = u64::from(burst.max(1) - 1);
        self.burst = self.interval.saturating_mul(beside);
        self
    }

    /// Waits until one more may start.
    pub async fn ready(&self) {
        if let Ok(turn) = self.reserve(Instant::now(), None) {
            turn.due().await;
            turn.take();
        }
    }

    /// Waits until one more may start, but not beyond `deadline`: who would have to is refused at once.
    /// One who gives up the wait gives its turn back.
    ///
    /// # Errors
    /// [`RateLimited`] says when one more may start.
    pub async fn ready_by(&self, deadline: Instant) -> Result<(), RateLimited> {
        self.turn_by(deadline).await.map(Turn::take)
    }

    /// The same, for who may not make use of it: the turn goes back when it is dropped and not taken.
    pub(crate) async fn turn_by(&self, deadline: Instant) -> Result<Turn<'_>, RateLimited> {
        let turn = self.reserve(Instant::now(), Some(deadline))?;
        turn.due().await;
        Ok(turn)
    }

    /// Lets one more start now, if it may.
    ///
    /// # Errors
    /// [`RateLimited`] says when it may.
    pub fn admit(&self, now: Instant) -> Result<(), RateLimited> {
        self.reserve(now, Some(now)).map(Turn::take)
    }

    /// Lets one more start now; what is refused counts for nothing.
    ///
    /// # Errors
    /// How long it takes until one more may start.
    pub fn try_ready(&self) -> Result<(), Duration> {
        let admitted = self.admit(Instant::now());
        admitted.map_err(|limited| limited.retry_after)
    }

    fn reserve(&self, now: Instant, latest: Option<Instant>) -> Result<Turn<'_>, RateLimited> {
        let now = nanos(now.saturating_duration_since(self.base));
        let latest = latest.map(|latest| nanos(latest.saturating_duration_since(self.base)));
        let start = |next: u64| next.max(now).saturating_sub(self.burst).max(now);
        let reserved = |next: u64| {
            let late = latest.is_some_and(|latest| start(next) > latest.max(now));
            (!late).then(|| next.max(now).saturating_add(self.interval))
        };
        match self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserved)
        {
            Ok(next) => Ok(Turn {
                limiter: Some(self),
                start: self.base + Duration::from_nanos(start(next)),
            }),
            Err(next) => Err(RateLimited {
                retry_after: Duration::from_nanos(start(next) - now),
            }),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The right to start at a time; dropped before it is taken, it goes back.
#[derive(Debug)]
pub(crate) struct Turn<'l> {
    limiter: Option<&'l RateLimiter>,
    start: Instant,
}

impl Turn<'_> {
    async fn due(&self) {
        // A timer takes up to a millisecond even where there is nothing to wait for.
        if self.start > Instant::now() {
            tokio::time::sleep_until(self.start).await;
        }
    }

    /// It is made use of.
    pub(crate) fn take(mut self) {
        self.limiter = None;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(limiter) = self.limiter {
            let back = |next: u64| Some(next.saturating_sub(limiter.interval));
            // The closure always gives a value, so the update always happens.
            let _ = limiter
                .next
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_let_through_and_then_one_per_interval() {
        let limiter = RateLimiter::new(10, Duration::from_secs(1));
        let start = Instant::now();
        for _ in 0..10 {
            limiter.ready().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        limiter.ready().await;
        assert_eq!(start.elapsed().as_millis(), 100);
        for _ in 0..10 {
            limiter.ready().await;
        }
        assert!(
            (1_099..=1_101).contains(&start.elapsed().as_millis()),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_counts_for_nothing() {
        let limiter = RateLimiter::new(2, Duration::from_secs(1));
        assert_eq!((limiter.try_ready(), limiter.try_ready()), (Ok(()), Ok(())));
        for _ in 0..3 {
            assert_eq!(limiter.try_ready(), Err(Duration::from_millis(500)));
        }
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(limiter.try_ready(), Ok(()));
        assert!(limiter.try_ready().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_used_does_not_pile_up() {
        let limiter = RateLimiter::new(2, Duration::from_secs(1));
        limiter.ready().await;
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..4 {
            limiter.ready().await;
        }
        assert!(
            start.elapsed() >= Duration::from_millis(999),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_said_and_who_gives_up_gives_back() {
        let limiter = RateLimiter::new(10, Duration::from_secs(1)).with_burst(1);
        limiter.ready().await;
        let begun = Instant::now();
        let ms = Duration::from_millis;
        let refused = limiter.ready_by(begun + ms(50)).await.unwrap_err();
        assert_eq!(refused.retry_after, ms(100));
        assert_eq!(Instant::now(), begun, "refused at once");
        for _ in 0..100 {
            let waiting = limiter.ready_by(begun + ms(200));
            let gave_up = tokio::time::timeout(Duration::ZERO, waiting).await;
            assert!(gave_up.is_err());
        }
        limiter.ready_by(begun + ms(100)).await.unwrap();
        assert_eq!(begun.elapsed(), ms(100));
    }

    /// Tokens that trickle into a bucket, in thousandths of one: the other way to say the same.
    struct Bucket {
        tokens: u64,
        size: u64,
        per_token: u64,
        at: u64,
    }

    impl Bucket {
        fn admit(&mut self, now: u64) -> bool {
            self.tokens = (self.tokens + (now - self.at)).min(self.size * self.per_token);
            self.at = now;
            let admitted = self.tokens >= self.per_token;
            if admitted {
                self.tokens -= self.per_token;
            }
            admitted
        }
    }

    #[test]
    fn it_admits_what_a_bucket_of_tokens_admits() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let (interval, burst) = (rng.u64(1..50), rng.u32(1..20));
            let limiter = RateLimiter::new(1, Duration::from_millis(interval)).with_burst(burst);
            let size = u64::from(burst);
            let mut bucket = Bucket {
                tokens: size * interval,
                size,
                per_token: interval,
                at: 0,
            };
            let mut millis = 0;
            for _ in 0..500 {
                millis += match rng.u8(..10) {
                    0 => rng.u64(..5_000),
                    _ => rng.u64(..interval),
                };
                let now = limiter.base + Duration::from_millis(millis);
                let admitted = limiter.admit(now);
                assert_eq!(admitted.is_ok(), bucket.admit(millis), "at {millis}");
                if let Err(refused) = admitted {
                    // As soon as it says, and no sooner.
                    let wait = refused.retry_after.as_millis() as u64;
                    assert_eq!(bucket.tokens + wait, interval);
                }
            }
        }
    }

    #[test]
    fn threads_never_get_more_than_there_is() {
        let limiter = RateLimiter::new(1_000, Duration::from_secs(1_000));
        let admitted = AtomicU64::new(0);
        let now = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        if limiter.admit(now).is_ok() {
                            admitted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 1_000);
    }
}
