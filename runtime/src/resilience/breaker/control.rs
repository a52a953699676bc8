//! The states of a circuit breaker and how they follow each other. Changes are rare, so they happen
//! under a lock; what is frequent is outside.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Rng, later};

use super::{CircuitBreakerOpen, CircuitBreakerOptions, CircuitState, Transition};

/// An open time is drawn up to this share longer, so that many clients do not probe at once.
const JITTER: f64 = 0.1;

/// A state with what belongs to it.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) state: CircuitState,
    /// Grows with every change, so that results of before can be told from those of now. Never 0.
    pub(super) generation: u64,
    /// When an open circuit lets probes through, or a half-open one gives its probes up.
    until: Instant,
    probing: u32,
    passed: u32,
    /// How often it opened without having been closed for long.
    opened: u32,
    closed_at: Instant,
}

/// What an admitted call carries: its generation, and whether it is a probe.
type Admitted = Result<(u64, bool), CircuitBreakerOpen>;

impl Control {
    pub(super) fn closed(now: Instant) -> Self {
        Self {
            state: CircuitState::Closed,
            generation: 1,
            until: now,
            probing: 0,
            passed: 0,
            opened: 0,
            closed_at: now,
        }
    }

    pub(super) fn admit(
        &mut self,
        options: &CircuitBreakerOptions,
        now: Instant,
    ) -> (Admitted, Option<Transition>) {
        let mut change = None;
        match self.state {
            CircuitState::Closed => return (Ok((self.generation, false)), None),
            // Counted for a generation that is never current.
            CircuitState::ForcedClosed => return (Ok((0, false)), None),
            CircuitState::ForcedOpen => {
                return (Err(CircuitBreakerOpen { retry_after: None }), None);
            }
            CircuitState::Open if now < self.until => {
                let retry_after = Some(self.until - now);
                return (Err(CircuitBreakerOpen { retry_after }), None);
            }
            CircuitState::Open => change = self.enter(CircuitState::HalfOpen),
            CircuitState::HalfOpen if now >= self.until => self.generation += 1,
            CircuitState::HalfOpen => {
                if self.probing + self.passed >= options.probes.max(1) {
                    return (Err(CircuitBreakerOpen { retry_after: None }), None);
                }
                self.probing += 1;
                return (Ok((self.generation, true)), None);
            }
        }
        self.until = later(now, options.probe_wait);
        self.probing = 1;
        self.passed = 0;
        (Ok((self.generation, true)), change)
    }

    pub(super) fn would_admit(&self, options: &CircuitBreakerOptions, now: Instant) -> bool {
        match self.state {
            CircuitState::Closed | CircuitState::ForcedClosed => true,
            CircuitState::ForcedOpen => false,
            CircuitState::Open => now >= self.until,
            CircuitState::HalfOpen => {
                now >= self.until || self.probing + self.passed < options.probes.max(1)
            }
        }
    }

    /// Opens, unless that has happened since `generation`.
    pub(super) fn trip(
        &mut self,
        generation: u64,
        options: &CircuitBreakerOptions,
        rng: &Rng,
        now: Instant,
    ) -> Option<Transition> {
        if self.generation != generation {
            return None;
        }
        if now.saturating_duration_since(self.closed_at) >= options.open_max {
            self.opened = 0;
        }
        self.open(options, rng, now)
    }

    pub(super) fn probed(
        &mut self,
        generation: u64,
        healthy: Option<bool>,
        options: &CircuitBreakerOptions,
        rng: &Rng,
        now: Instant,
    ) -> Option<Transition> {
        if self.generation != generation {
            return None;
        }
        match healthy {
            None => {
                self.probing = self.probing.saturating_sub(1);
                None
            }
            Some(false) => self.open(options, rng, now),
            Some(true) => {
                self.probing = self.probing.saturating_sub(1);
                self.passed += 1;
                if self.passed < options.probes.max(1) {
                    return None;
                }
                self.closed_at = now;
                self.enter(CircuitState::Closed)
            }
        }
    }

    pub(super) fn force(&mut self, state: CircuitState, now: Instant) -> Option<Transition> {
        self.opened = 0;
        self.closed_at = now;
        let change = self.enter(state);
        change.filter(|change| change.from != change.to)
    }

    /// Opens until then, for a reason of somebody else's.
    pub(super) fn open_until(&mut self, until: Instant) -> Option<Transition> {
        match self.state {
            CircuitState::ForcedClosed | CircuitState::ForcedOpen => None,
            CircuitState::Open => {
                self.until = self.until.max(until);
                None
            }
            CircuitState::Closed | CircuitState::HalfOpen => {
                self.until = until;
                self.enter(CircuitState::Open)
            }
        }
    }

    /// The rest of the time that it is open.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let open = self.state == CircuitState::Open && self.until > now;
        open.then(|| self.until - now)
    }

    fn open(
        &mut self,
        options: &CircuitBreakerOptions,
        rng: &Rng,
        now: Instant,
    ) -> Option<Transition> {
        let doubled = options.open.saturating_mul(1 << self.opened.min(30));
        let least = doubled.min(options.open_max.max(options.open));
        self.opened = self.opened.saturating_add(1);
        self.until = later(now, least.saturating_add(jitter(least, rng)));
        self.enter(CircuitState::Open)
    }

    fn enter(&mut self, to: CircuitState) -> Option<Transition> {
        let from = self.state;
        self.state = to;
        self.generation += 1;
        Some(Transition { from, to })
    }
}

fn jitter(least: Duration, rng: &Rng) -> Duration {
    least.mul_f64(JITTER * rng.unit())
}
