//! A rate limiter: how many things may start in a span of time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lets at most `count` things start in each `per`, evenly spaced after a first burst.
///
/// It is the generic cell rate algorithm (the one of ATM networks): one instant of state, no timer
/// and no task.
#[derive(Debug)]
pub struct RateLimiter {
    interval: Duration,
    burst: Duration,
    /// When the next thing would start if everything that was let through had kept its interval.
    next: Mutex<Option<Instant>>,
}

impl RateLimiter {
    /// At most `count` (at least 1) in each `per`.
    #[must_use]
    pub fn new(count: u32, per: Duration) -> Self {
        let interval = per / count.max(1);
        Self {
            interval,
            burst: per.saturating_sub(interval),
            next: Mutex::new(None),
        }
    }

    /// Waits until one more may start.
    pub async fn ready(&self) {
        let start = self.reserve(Instant::now());
        tokio::time::sleep_until(start).await;
    }

    /// Lets one more start now; what is refused counts for nothing.
    ///
    /// # Errors
    /// How long it takes until one more may start.
    pub fn try_ready(&self) -> Result<(), Duration> {
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = next.map_or(now, |next| next.max(now));
        let ahead = due.saturating_duration_since(now);
        if ahead > self.burst {
            return Err(ahead - self.burst);
        }
        *next = Some(due + self.interval);
        Ok(())
    }

    fn reserve(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = next.map_or(now, |next| next.max(now));
        *next = Some(due + self.interval);
        due.checked_sub(self.burst)
            .map_or(now, |start| start.max(now))
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
}
