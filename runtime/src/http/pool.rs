//! The endpoints of one service with what is known of each, and the choice among them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Rng;
use crate::observability::metrics::{CLIENT_ATTEMPTS, Labels, MetricsSink, Series};
use crate::resilience::{CircuitBreaker, CircuitPermit, Load, LoadBalancer, Picker, Signal};

use super::transport::Transport;

/// One endpoint.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) url: Arc<str>,
    pub(super) transport: Transport,
    load: Load,
    breaker: Option<CircuitBreaker>,
    answered: Series,
    failed: Series,
}

impl Target {
    pub(super) fn new(
        service: &Arc<str>,
        url: &str,
        transport: Transport,
        breaker: Option<CircuitBreaker>,
        metrics: Option<&dyn MetricsSink>,
    ) -> Self {
        let url: Arc<str> = url.into();
        let series = |outcome: &str| {
            let labels: Labels = vec![Arc::clone(service), Arc::clone(&url), outcome.into()];
            Series::of(metrics, CLIENT_ATTEMPTS, labels)
        };
        let (answered, failed) = (series("answered"), series("failed"));
        Self {
            url,
            transport,
            load: Load::new(Instant::now()),
            breaker,
            answered,
            failed,
        }
    }
}

impl AsRef<Load> for Target {
    fn as_ref(&self) -> &Load {
        &self.load
    }
}

/// All endpoints.
#[derive(Debug)]
pub(super) struct Pool {
    targets: Vec<Target>,
    picker: Picker,
}

/// The endpoints that a call has been to: the places of the last few.
#[derive(Default)]
pub(super) struct Tried {
    places: [Option<usize>; 20],
    count: usize,
}

impl Tried {
    fn add(&mut self, place: usize) {
        self.places[self.count % self.places.len()] = Some(place);
        self.count += 1;
    }

    fn contains(&self, place: usize) -> bool {
        self.places.contains(&Some(place))
    }
}

impl Pool {
    pub(super) fn new(targets: Vec<Target>, balancer: LoadBalancer, rng: &Rng) -> Self {
        let picker = Picker::new(balancer, rng);
        Self { targets, picker }
    }

    pub(super) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Whether there is an endpoint that the call has not been to.
    pub(super) fn has_untried(&self, tried: &Tried) -> bool {
        (0..self.targets.len()).any(|place| !tried.contains(place))
    }

    /// Chooses an endpoint for one attempt: of those it has not been to one that is not failing, else
    /// any of them, else any at all. `None` only where there is no endpoint.
    pub(super) fn pick(&self, tried: &mut Tried, now: Instant) -> Option<Lease<'_>> {
        let is_open = |place: usize| {
            let breaker = self.targets[place].breaker.as_ref();
            breaker.is_some_and(|breaker| breaker.is_open(now))
        };
        let pick = |usable: &dyn Fn(usize) -> bool| self.picker.pick(&self.targets, usable, now);
        let place = pick(&|place| !tried.contains(place) && !is_open(place))
            // Where all are failing, one of them is still better than an outage of our own making: how
            // often they are bothered is for the breaker of the service.
            .or_else(|| pick(&|place| !tried.contains(place)))
            .or_else(|| pick(&|place| !is_open(place)))
            .or_else(|| pick(&|_| true))?;
        tried.add(place);
        let target = &self.targets[place];
        target.load.begin();
        let permit = target.breaker.as_ref();
        Some(Lease {
            target,
            permit: permit.and_then(|breaker| breaker.acquire(now).ok()),
            begun: now,
        })
    }
}

/// An endpoint for the time of one attempt. Dropped without a result, because the call was given up,
/// it counts as nothing.
#[derive(Debug)]
pub(super) struct Lease<'p> {
    pub(super) target: &'p Target,
    /// `None` where the endpoint is tried although its breaker is open, and where it has none.
    permit: Option<CircuitPermit>,
    begun: Instant,
}

impl Lease<'_> {
    /// The attempt has ended, and this is what it told of the endpoint.
    pub(super) fn record(mut self, signal: Signal, left_alone: Option<Duration>, now: Instant) {
        let took = now.saturating_duration_since(self.begun);
        match signal {
            Signal::Success => {
                self.target.load.succeeded(took, now);
                self.target.answered.record(1.0);
            }
            Signal::Failure | Signal::Refused => {
                self.target.load.failed(took, left_alone, now);
                self.target.failed.record(1.0);
            }
            _ => {}
        }
        if let Some(permit) = self.permit.take() {
            permit.record(signal, now);
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.target.load.end();
    }
}
