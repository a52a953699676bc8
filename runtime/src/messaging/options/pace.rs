//! How many messages are taken together, and how often.

use std::time::Duration;

/// How batches are formed: when `max` messages are there, or `wait` after the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchOptions {
    /// Most messages in a batch; at least 1.
    pub max: u32,
    /// Longest wait for further messages.
    pub wait: Duration,
}

impl BatchOptions {
    /// Batches of at most `max` messages, formed at the latest `wait` after the first one arrived.
    #[must_use]
    pub const fn new(max: u32, wait: Duration) -> Self {
        Self { max, wait }
    }
}

/// How many messages may be started in a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// In which time.
    pub per: Duration,
}

impl Rate {
    /// At most `count` messages in each `per`.
    #[must_use]
    pub const fn new(count: u32, per: Duration) -> Self {
        Self { count, per }
    }
}
