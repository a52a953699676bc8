//! How failed attempts are repeated.

use std::time::Duration;

use crate::resilience::Backoff;

/// How failed attempts are repeated.
///
/// The wait before attempt n is `first * factor^(n-2)`, at most `max`, with jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// All attempts, the first one included; at least 1.
    pub attempts: u32,
    /// The wait before the second attempt.
    pub first: Duration,
    /// The longest wait.
    pub max: Duration,
    /// By what the wait grows each time; at least 1.
    pub factor: f64,
}

impl RetryPolicy {
    /// Five attempts, after 200 ms, doubling, at most 30 s.
    pub const DEFAULT: Self = Self {
        attempts: 5,
        first: Duration::from_millis(200),
        max: Duration::from_secs(30),
        factor: 2.0,
    };

    /// One attempt.
    pub const NONE: Self = Self {
        attempts: 1,
        ..Self::DEFAULT
    };

    /// The wait before attempt `attempt` (from 2), without jitter.
    #[must_use]
    pub fn wait_before(&self, attempt: u32) -> Duration {
        let backoff = Backoff::new(self.first, self.max).with_factor(self.factor);
        backoff.longest(attempt.saturating_sub(1))
    }

    /// The longest time from the first attempt to the last, handlers not counted.
    #[must_use]
    pub fn total_wait(&self) -> Duration {
        (2..=self.attempts.min(10_000)).fold(Duration::ZERO, |sum, attempt| {
            sum.saturating_add(self.wait_before(attempt))
        })
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The parts of a [`RetryPolicy`] that a subscriber sets; the others come from the broker's section
/// of the configuration, then from the default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RetryOptions {
    /// All attempts, the first one included; at least 1.
    pub attempts: Option<u32>,
    /// The wait before the second attempt.
    pub first: Option<Duration>,
    /// The longest wait.
    pub max: Option<Duration>,
    /// By what the wait grows each time; at least 1.
    pub factor: Option<f64>,
}

impl RetryOptions {
    /// Nothing set.
    pub const UNSET: Self = Self {
        attempts: None,
        first: None,
        max: None,
        factor: None,
    };

    /// One attempt.
    pub const NONE: Self = Self {
        attempts: Some(1),
        ..Self::UNSET
    };

    /// With this number of attempts, the first one included.
    #[must_use]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// With this wait before the second attempt.
    #[must_use]
    pub const fn first(mut self, first: Duration) -> Self {
        self.first = Some(first);
        self
    }

    /// With this longest wait.
    #[must_use]
    pub const fn max(mut self, max: Duration) -> Self {
        self.max = Some(max);
        self
    }

    /// With this growth; at least 1.
    #[must_use]
    pub const fn factor(mut self, factor: f64) -> Self {
        self.factor = Some(factor);
        self
    }

    /// `base` with what is set here.
    #[must_use]
    pub fn over(&self, base: RetryPolicy) -> RetryPolicy {
        RetryPolicy {
            attempts: self.attempts.unwrap_or(base.attempts),
            first: self.first.unwrap_or(base.first),
            max: self.max.unwrap_or(base.max),
            factor: self.factor.unwrap_or(base.factor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_by_the_factor_up_to_the_maximum() {
        let policy = RetryPolicy {
            attempts: 6,
            first: Duration::from_secs(1),
            max: Duration::from_secs(5),
            factor: 2.0,
        };
        let waits: Vec<_> = (2..=6)
            .map(|attempt| policy.wait_before(attempt).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        assert_eq!(policy.total_wait(), Duration::from_secs(17));
        assert_eq!(policy.wait_before(u32::MAX), Duration::from_secs(5));
        assert_eq!(RetryPolicy::NONE.total_wait(), Duration::ZERO);
    }
}
