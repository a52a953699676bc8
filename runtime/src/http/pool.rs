//! The endpoints of one service with what is known of each, and the choice among them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Rng;
use crate::discovery::{Endpoint, EndpointSet};
use crate::observability::metrics::{CLIENT_ATTEMPTS, Labels, MetricsSink, Series};
use crate::resilience::{CircuitBreaker, CircuitPermit, Load, LoadBalancer, Picker, Signal};

use super::checks::Checked;
use super::transport::Transport;

/// One endpoint.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) url: Arc<str>,
    /// Unlike its place, the same for as long as it is there, and never that of another one.
    number: u64,
    pub(super) transport: Transport,
    pub(super) checked: Checked,
    load: Load,
    breaker: Option<CircuitBreaker>,
    answered: Series,
    failed: Series,
}

impl Target {
    pub(super) fn new(
        service: &Arc<str>,
        url: &str,
        number: u64,
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
            number,
            transport,
            checked: Checked::default(),
            load: Load::new(Instant::now()),
            breaker,
            answered,
            failed,
        }
    }
}

/// A target in a pool: it outlives the pool in which it stands.
#[derive(Clone, Debug)]
pub(super) struct Member(Arc<Target>);

impl AsRef<Load> for Member {
    fn as_ref(&self) -> &Load {
        &self.0.load
    }
}

/// All endpoints at one moment. Another set is another pool, with the same targets where an endpoint
/// is still there.
#[derive(Debug)]
pub(super) struct Pool {
    members: Vec<Member>,
    picker: Arc<Picker>,
}

/// The endpoints that a call has been to: the numbers of the last few.
#[derive(Default)]
pub(super) struct Tried {
    numbers: [Option<u64>; 20],
    count: usize,
}

impl Tried {
    fn add(&mut self, number: u64) {
        self.numbers[self.count % self.numbers.len()] = Some(number);
        self.count += 1;
    }

    fn contains(&self, number: u64) -> bool {
        self.numbers.contains(&Some(number))
    }
}

impl Pool {
    /// One without endpoints.
    pub(super) fn empty(balancer: LoadBalancer, rng: &Rng) -> Self {
        Self {
            members: Vec::new(),
            picker: Arc::new(Picker::new(balancer, rng)),
        }
    }

    /// One of these endpoints: those that are known as they are, the others as `make` makes them.
    pub(super) fn with(&self, endpoints: &EndpointSet, make: impl Fn(&Endpoint) -> Target) -> Self {
        let known = self.members.iter();
        let known: HashMap<&str, &Member> = known.map(|member| (&*member.0.url, member)).collect();
        let members = endpoints.iter().map(|endpoint| {
            let known = known.get(endpoint.url()).copied();
            known
                .cloned()
                .unwrap_or_else(|| Member(Arc::new(make(endpoint))))
        });
        Self {
            members: members.collect(),
            picker: Arc::clone(&self.picker),
        }
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = &Arc<Target>> + Clone {
        self.members.iter().map(|member| &member.0)
    }

    pub(super) fn urls(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| &*member.0.url)
    }

    /// Whether there is an endpoint that the call has not been to.
    pub(super) fn has_untried(&self, tried: &Tried) -> bool {
        let mut members = self.members.iter();
        members.any(|member| !tried.contains(member.0.number))
    }

    /// Chooses an endpoint for one attempt: of those it has not been to one that is not failing, else
    /// any of them, else any at all. `None` only where there is no endpoint.
    pub(super) fn pick(&self, tried: &mut Tried, now: Instant) -> Option<Lease<'_>> {
        let is_open = |place: usize| {
            let target = &self.members[place].0;
            let breaker = target.breaker.as_ref();
            target.checked.is_down() || breaker.is_some_and(|breaker| breaker.is_open(now))
        };
        let is_tried = |place: usize| tried.contains(self.members[place].0.number);
        let pick = |usable: &dyn Fn(usize) -> bool| self.picker.pick(&self.members, usable, now);
        let place = pick(&|place| !is_tried(place) && !is_open(place))
            // Where all are failing, one of them is still better than an outage of our own making: how
            // often they are bothered is for the breaker of the service.
            .or_else(|| pick(&|place| !is_tried(place)))
            .or_else(|| pick(&|place| !is_open(place)))
            .or_else(|| pick(&|_| true))?;
        let target = &*self.members[place].0;
        tried.add(target.number);
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
