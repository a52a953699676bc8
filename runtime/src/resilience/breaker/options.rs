//! When a circuit breaker opens and how it closes again.

use std::time::Duration;

/// When a [`CircuitBreaker`](super::CircuitBreaker) opens, and how it closes again.
///
/// Both signs of trouble count at once: failures in a row, which tell an outage at once, and the
/// share of failures (and of slow calls), which tells a service that fails every second call and
/// never five times in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct CircuitBreakerOptions {
    /// Failures in a row that open it; 0 for never. 5 unless set.
    pub consecutive: u32,
    /// The share of failures, from 0 to 1, that opens it; above 1 for never. 0.5 unless set.
    pub failure_rate: f64,
    /// A call that takes this long is slow. `None` unless set: none is.
    pub slow_call: Option<Duration>,
    /// The share of slow calls that opens it. 1 unless set.
    pub slow_rate: f64,
    /// Shares say nothing before this many calls within the window. 20 unless set.
    pub minimum_calls: u32,
    /// Over how long shares are taken. 10 s unless set.
    pub window: Duration,
    /// How long it stays open the first time, at least; twice as long each further time. 5 s unless
    /// set.
    pub open: Duration,
    /// How long it stays open at most. 60 s unless set.
    pub open_max: Duration,
    /// How many probes must succeed to close it; never more than these at once. 1 unless set.
    pub probes: u32,
    /// After this time, probes that nobody has answered are given up and others sent. 30 s unless
    /// set.
    pub probe_wait: Duration,
}

impl CircuitBreakerOptions {
    /// Opens after 5 failures in a row, or half of at least 20 calls in 10 s; open for 5 s to 60 s;
    /// one probe.
    pub const DEFAULT: Self = Self {
        consecutive: 5,
        failure_rate: 0.5,
        slow_call: None,
        slow_rate: 1.0,
        minimum_calls: 20,
        window: Duration::from_secs(10),
        open: Duration::from_secs(5),
        open_max: Duration::from_secs(60),
        probes: 1,
        probe_wait: Duration::from_secs(30),
    };
}

impl Default for CircuitBreakerOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}
