//! Publishing at a later time, where a broker can hold a message until then.

use std::fmt;
use std::time::Duration;

use crate::config::units::HumanDuration;

/// How a kind of broker holds messages that are published at a later time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scheduling {
    /// Times are rounded up to a multiple of this. A message is never early.
    pub granularity: Duration,
    /// The longest time that a message can be held.
    pub longest: Duration,
    /// Whether what is held outlives the service that published it and a restart of the broker.
    pub durable: bool,
    /// Whether a message that is held can be taken back.
    pub cancel: bool,
}

impl Scheduling {
    /// Held with this granularity for at most `longest`; not durable, no cancellation.
    #[must_use]
    pub const fn new(granularity: Duration, longest: Duration) -> Self {
        Self {
            granularity,
            longest,
            durable: false,
            cancel: false,
        }
    }

    /// What is held outlives service and broker.
    #[must_use]
    pub const fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// What is held can be taken back.
    #[must_use]
    pub const fn cancel(mut self) -> Self {
        self.cancel = true;
        self
    }
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "to {}, up to {} days, {}, {}",
            HumanDuration(self.granularity),
            self.longest.as_secs() / 86_400,
            if self.durable {
                "durable"
            } else {
                "lost with the process"
            },
            if self.cancel {
                "can be taken back"
            } else {
                "cannot be taken back"
            },
        )
    }
}
