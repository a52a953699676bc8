//! One endpoint, and what is known of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::discovery::Endpoint;
use crate::resilience::{Candidate, CircuitBreaker, CircuitPermit, EndpointHealth, Load, Signal};

use super::super::checks::Checked;
use super::super::endpoints::Counts;
use super::super::transport::{Address, Door, Transport};

/// What is kept of one endpoint for as long as it is one, whatever happens to others.
#[derive(Debug)]
pub(in super::super) struct Target {
    /// Tells it from every other that the pool has ever had.
    pub(super) id: u64,
    pub(in super::super) url: Arc<str>,
    pub(super) address: Address,
    pub(in super::super) door: Option<Arc<Door>>,
    pub(in super::super) transport: Arc<Transport>,
    pub(in super::super) checked: Checked,
    pub(super) load: Load,
    pub(super) health: Arc<EndpointHealth>,
    pub(super) breaker: Option<CircuitBreaker>,
    pub(super) counts: Counts,
}

impl Target {
    /// Where requests go, as they say it.
    pub(in super::super) fn address(&self) -> &Address {
        let door = self.door.as_ref();
        door.map_or(&self.address, |door| door.address())
    }

    /// Whether it is this one, called by the same name.
    pub(super) fn is(&self, endpoint: &Endpoint, host: Option<&str>) -> bool {
        self.door.as_ref().map(|door| door.host()) == endpoint.host().or(host)
    }

    /// It answered after `took`.
    pub(super) fn answered(&self, took: Duration, now: Instant) {
        // What is remembered are the failures for which it was left alone.
        if self.health.is_ejected() {
            self.load.forget();
        }
        self.load.succeeded(took, now);
        self.counts.answered.record(1.0);
    }

    /// It did not answer for `took`, while another did.
    pub(in super::super) fn was_outdone(&self, took: Duration, now: Instant) {
        self.counts.failed.record(1.0);
        self.load.failed(took, None, now);
        if let Some(breaker) = &self.breaker {
            breaker.found_failing(now);
        }
    }

    pub(super) fn failed(&self, permit: Option<CircuitPermit>, took: Duration, now: Instant) {
        self.load.failed(took, None, now);
        let another = || self.breaker.as_ref()?.acquire(now).ok();
        if let Some(permit) = permit.or_else(another) {
            permit.record(Signal::Failure, now);
        }
    }

    /// Whether it gets calls like the others; where so many are unwell that all do, each does.
    pub(super) fn is_awake(&self, panicking: bool, now: Instant) -> bool {
        panicking || !self.checked.is_down() && !self.is_resting(now)
    }

    /// Whether it is left alone at `now`.
    fn is_resting(&self, now: Instant) -> bool {
        self.health.is_ejected() && self.is_refusing(now)
    }

    pub(super) fn is_refusing(&self, now: Instant) -> bool {
        let breaker = self.breaker.as_ref();
        breaker.is_some_and(|breaker| breaker.is_open(now))
    }
}

/// An endpoint with what the set says of it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) target: Arc<Target>,
    pub(super) priority: u16,
    pub(super) weight: u32,
    pub(super) zone: Option<Box<str>>,
}

impl Candidate for Member {
    fn name(&self) -> &str {
        &self.target.url
    }

    fn load(&self) -> &Load {
        &self.target.load
    }

    fn weight(&self) -> u32 {
        self.weight
    }

    fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    fn warmth(&self, now: Instant) -> f64 {
        self.target.health.warmth(now)
    }

    fn cost(&self, now: Instant) -> f64 {
        // It was left alone, and its time is over: with its failures still in mind nobody would ever
        // find out that it works again.
        if self.target.health.is_ejected() && !self.target.is_refusing(now) {
            return 0.0;
        }
        self.target.load.cost(now) / self.warmth(now)
    }
}
