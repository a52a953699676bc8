//! When failures stop the fetching of a subscription.

use std::time::Duration;

/// When a subscription's breaker opens, as far as somebody has said.
///
/// It stops the fetching of the subscription, not its connection; messages that were fetched and not
/// started go back untouched. After a wait one message is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct BreakerOptions {
    /// The share of failed attempts that opens it, above 0 and at most 1.
    pub ratio: Option<f64>,
    /// The share says nothing before this many attempts.
    pub minimum: Option<u32>,
    /// Over how long the share is taken.
    pub window: Option<Duration>,
    /// How long it stays open at first; twice as long each further time.
    pub wait: Option<Duration>,
    /// How long it stays open at most.
    pub max: Option<Duration>,
}

impl BreakerOptions {
    /// Nothing set.
    pub const UNSET: Self = Self {
        ratio: None,
        minimum: None,
        window: None,
        wait: None,
        max: None,
    };

    /// With this share of failed attempts.
    #[must_use]
    pub const fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = Some(ratio);
        self
    }

    /// Not before this many attempts.
    #[must_use]
    pub const fn minimum(mut self, minimum: u32) -> Self {
        self.minimum = Some(minimum);
        self
    }

    /// Over this time.
    #[must_use]
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = Some(window);
        self
    }

    /// Open for this long at first.
    #[must_use]
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Open for this long at most.
    #[must_use]
    pub const fn max(mut self, max: Duration) -> Self {
        self.max = Some(max);
        self
    }

    /// `base` with what is set here.
    #[must_use]
    pub fn over(&self, base: BreakerPolicy) -> BreakerPolicy {
        BreakerPolicy {
            ratio: self.ratio.unwrap_or(base.ratio),
            minimum: self.minimum.unwrap_or(base.minimum),
            window: self.window.unwrap_or(base.window),
            wait: self.wait.unwrap_or(base.wait),
            max: self.max.unwrap_or(base.max),
        }
    }
}

/// When a subscription's breaker opens, decided.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BreakerPolicy {
    /// The share of failed attempts that opens it.
    pub ratio: f64,
    /// The share says nothing before this many attempts.
    pub minimum: u32,
    /// Over how long the share is taken.
    pub window: Duration,
    /// How long it stays open at first.
    pub wait: Duration,
    /// How long it stays open at most.
    pub max: Duration,
}

impl BreakerPolicy {
    /// Half of at least 20 attempts within 30 s; open for 10 s, then for up to 2 min.
    pub const DEFAULT: Self = Self {
        ratio: 0.5,
        minimum: 20,
        window: Duration::from_secs(30),
        wait: Duration::from_secs(10),
        max: Duration::from_secs(120),
    };
}
