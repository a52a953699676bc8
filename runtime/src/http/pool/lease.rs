//! An endpoint for as long as an attempt, or its answer, takes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::resilience::{CircuitPermit, Signal};

use super::Shared;
use super::target::Target;

/// An endpoint for the time of one attempt. Dropped without a result, because the call was given up or
/// another attempt was faster, it counts neither as success nor as failure.
#[derive(Debug)]
pub(in super::super) struct Lease<'p> {
    pub(in super::super) target: &'p Arc<Target>,
    /// `None` where the endpoint is tried although its breaker is open, and where it has none.
    pub(super) permit: Option<CircuitPermit>,
    pub(super) begun: Instant,
    pub(super) recorded: bool,
    pub(super) shared: &'p Arc<Shared>,
}

impl Lease<'_> {
    /// The attempt has ended, and this is what it told of the endpoint.
    pub(in super::super) fn record(
        mut self,
        signal: Signal,
        left_alone: Option<Duration>,
        now: Instant,
    ) {
        let took = now.saturating_duration_since(self.begun);
        self.recorded = true;
        match signal {
            Signal::Success => self.target.answered(took, now),
            Signal::Failure | Signal::Refused => {
                self.target.load.failed(took, left_alone, now);
                self.target.counts.failed.record(1.0);
            }
            _ => {}
        }
        if let Some(permit) = self.permit.take() {
            permit.record(signal, now);
        }
    }

    /// The answer has begun and is right so far; the endpoint is busy with it until it ends.
    pub(in super::super) fn hold(mut self, now: Instant) -> Held {
        let took = now.saturating_duration_since(self.begun);
        self.recorded = true;
        self.target.answered(took, now);
        // The lease counts until it is dropped, and that is now.
        self.target.load.begin();
        self.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        Held {
            permit: self.permit.take().and_then(|permit| permit.answered(now)),
            target: Arc::clone(self.target),
            shared: Arc::clone(self.shared),
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if !self.recorded {
            // One that never answers in time would else keep the measurements of its good days.
            let now = Instant::now();
            let took = now.saturating_duration_since(self.begun);
            // What was given up at once says nothing.
            if took >= Duration::from_millis(1) {
                self.target.load.outlasted(took, now);
            }
        }
        self.target.load.end();
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An endpoint for the time in which its answer comes.
#[derive(Debug)]
pub(in super::super) struct Held {
    target: Arc<Target>,
    shared: Arc<Shared>,
    permit: Option<CircuitPermit>,
}

impl Held {
    pub(in super::super) fn url(&self) -> Arc<str> {
        Arc::clone(&self.target.url)
    }

    /// The answer broke off.
    pub(in super::super) fn broke(&mut self, now: Instant) {
        // A probe told of the beginning.
        let permit = self.permit.take();
        self.target.failed(permit, Duration::ZERO, now);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // As far as somebody wanted to read it, it was right.
        if let Some(permit) = self.permit.take() {
            permit.record(Signal::Success, Instant::now());
        }
        self.target.load.end();
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
