//! The endpoints of one service with what is known of each, and the choice among them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::clock::Rng;
use crate::discovery::{Endpoint, EndpointSet};
use crate::resilience::{
    Candidate, CircuitBreaker, CircuitPermit, EndpointHealth, Load, LoadBalancer, OutlierOptions,
    Outliers, PickContext, Picker, Signal,
};

use super::endpoints::{Counts, Maker};
use super::transport::Transport;

/// What is kept of one endpoint for as long as it is one, whatever happens to others.
#[derive(Debug)]
pub(super) struct Target {
    /// Tells it from every other that the pool has ever had.
    id: u64,
    pub(super) url: Arc<str>,
    /// Made by the first call: of ten thousand endpoints most are never called from here.
    transport: OnceLock<Transport>,
    load: Load,
    health: Arc<EndpointHealth>,
    breaker: Option<CircuitBreaker>,
    counts: Counts,
}

impl Target {
    /// Whether it is left alone at `now`.
    fn is_resting(&self, now: Instant) -> bool {
        self.health.is_ejected() && self.is_refusing(now)
    }

    fn is_refusing(&self, now: Instant) -> bool {
        let breaker = self.breaker.as_ref();
        breaker.is_some_and(|breaker| breaker.is_open(now))
    }
}

/// An endpoint with what the set says of it.
#[derive(Debug)]
struct Member {
    target: Arc<Target>,
    weight: u32,
    zone: Option<Box<str>>,
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

/// A set of endpoints, ready to be chosen from.
#[derive(Debug)]
struct Members {
    all: Box<[Member]>,
    picker: Picker,
}

/// All endpoints. The set is replaced as a whole; who stays in it keeps everything that is known of it.
#[derive(Debug)]
pub(super) struct Pool {
    members: ArcSwap<Members>,
    maker: Maker,
    balancer: LoadBalancer,
    rng: Rng,
    outliers: Arc<Outliers>,
    in_flight: AtomicUsize,
    /// The next id. Locked while a set is being replaced, so that an endpoint is made once.
    next: Mutex<u64>,
}

/// The endpoints that a call has been to: the last few.
#[derive(Clone, Debug, Default)]
pub(super) struct Tried {
    ids: [Option<u64>; 20],
    count: usize,
}

impl Tried {
    fn add(&mut self, id: u64) {
        self.ids[self.count % self.ids.len()] = Some(id);
        self.count += 1;
    }

    fn contains(&self, id: u64) -> bool {
        self.ids.contains(&Some(id))
    }
}

/// What a call says about the choice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    pub(super) hash: Option<u64>,
    pub(super) zone: Option<&'a str>,
}

impl Pool {
    pub(super) fn new(
        maker: Maker,
        endpoints: &EndpointSet,
        balancer: LoadBalancer,
        options: OutlierOptions,
        rng: &Rng,
    ) -> Self {
        let none: [Member; 0] = [];
        let picker = Picker::new(balancer, &none, rng);
        let empty = Members {
            all: Box::new(none),
            picker,
        };
        let pool = Self {
            members: ArcSwap::from_pointee(empty),
            maker,
            balancer,
            rng: rng.clone(),
            outliers: Outliers::new(options),
            in_flight: AtomicUsize::new(0),
            next: Mutex::new(0),
        };
        pool.update(endpoints);
        pool
    }

    /// From now on these are the endpoints. Calls that are under way end where they are; an endpoint that
    /// stays, by its address, keeps its connections, its measurements and its circuit; one that is new
    /// beside others starts slowly.
    pub(super) fn update(&self, endpoints: &EndpointSet) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let before = self.members.load();
        let known: HashMap<&str, &Arc<Target>> = before
            .all
            .iter()
            .map(|member| (&*member.target.url, &member.target))
            .collect();
        // The first ones are all new together: there is nobody beside whom to start slowly.
        let started = (!known.is_empty()).then_some(now);
        let expected = median(&before.all, now);
        let member = |endpoint: &Endpoint| {
            let target = match known.get(endpoint.url()) {
                Some(target) => Arc::clone(target),
                None => {
                    *next += 1;
                    let load = match expected {
                        Some(average) => Load::expected(average, now),
                        None => Load::new(now),
                    };
                    let health = Arc::new(self.outliers.join(started));
                    Arc::new(self.make(*next, endpoint.url(), load, health))
                }
            };
            Member {
                target,
                weight: endpoint.weight(),
                zone: endpoint.zone().map(Into::into),
            }
        };
        let all: Box<[Member]> = endpoints.iter().map(member).collect();
        let picker = Picker::new(self.balancer, &all, &self.rng);
        self.outliers.resize(all.len());
        self.members.store(Arc::new(Members { all, picker }));
    }

    fn make(&self, id: u64, url: &str, load: Load, health: Arc<EndpointHealth>) -> Target {
        Target {
            id,
            url: url.into(),
            transport: OnceLock::new(),
            load,
            breaker: self.maker.breaker(url, &health, &self.outliers),
            counts: self.maker.counts(url),
            health,
        }
    }

    /// The addresses of all endpoints.
    pub(super) fn urls(&self) -> Vec<Arc<str>> {
        let members = self.members.load();
        let urls = members.all.iter();
        urls.map(|member| Arc::clone(&member.target.url)).collect()
    }

    /// Whether there is an endpoint that the call has not been to.
    pub(super) fn has_untried(&self, tried: &Tried) -> bool {
        let members = self.members.load();
        let mut all = members.all.iter();
        all.any(|member| !tried.contains(member.target.id))
    }

    /// Chooses an endpoint for one attempt: of those it has not been to one that is not left alone, else
    /// any of them, else any at all. `None` only where there is no endpoint.
    pub(super) fn pick(
        &self,
        tried: &mut Tried,
        wish: Wish<'_>,
        now: Instant,
    ) -> Option<Lease<'_>> {
        let members = self.members.load();
        let context = PickContext {
            hash: wish.hash,
            zone: wish.zone,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            ..PickContext::at(now)
        };
        let panicking = self.outliers.is_panicking();
        let new = |at: usize| !tried.contains(members.all[at].target.id);
        let awake = |at: usize| panicking || !members.all[at].target.is_resting(now);
        let pick = |usable: &dyn Fn(usize) -> bool| {
            let Members { all, picker } = &**members;
            picker.pick(all, &context, usable)
        };
        let place = pick(&|at| new(at) && awake(at))
            // Where all are left alone, one of them is still better than an outage of our own making:
            // how often they are bothered is for the breaker of the service.
            .or_else(|| pick(&new))
            .or_else(|| pick(&awake))
            .or_else(|| pick(&|_| true))?;
        let target = Arc::clone(&members.all[place].target);
        tried.add(target.id);
        target.load.begin();
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let permit = target.breaker.as_ref();
        Some(Lease {
            permit: permit.and_then(|breaker| breaker.acquire(now).ok()),
            begun: now,
            recorded: false,
            pool: self,
            target,
        })
    }
}

/// How long calls take at the one in the middle.
fn median(members: &[Member], now: Instant) -> Option<Duration> {
    let averages = members.iter();
    let averages = averages.filter_map(|member| member.target.load.average(now));
    let mut averages: Vec<Duration> = averages.collect();
    averages.sort_unstable();
    averages.get(averages.len() / 2).copied()
}

/// An endpoint for the time of one attempt. Dropped without a result, because the call was given up or
/// another attempt was faster, it counts neither as success nor as failure.
#[derive(Debug)]
pub(super) struct Lease<'p> {
    pub(super) target: Arc<Target>,
    /// `None` where the endpoint is tried although its breaker is open, and where it has none.
    permit: Option<CircuitPermit>,
    begun: Instant,
    recorded: bool,
    pool: &'p Pool,
}

impl Lease<'_> {
    /// The connections to the endpoint. Fails only where the system gives no resources.
    pub(super) fn transport(&self) -> Result<&Transport, String> {
        let kept = &self.target.transport;
        if let Some(transport) = kept.get() {
            return Ok(transport);
        }
        let made = self.pool.maker.transport()?;
        // Somebody else may have been faster.
        Ok(kept.get_or_init(|| made))
    }

    /// The attempt has ended, and this is what it told of the endpoint.
    pub(super) fn record(mut self, signal: Signal, left_alone: Option<Duration>, now: Instant) {
        let took = now.saturating_duration_since(self.begun);
        self.recorded = true;
        match signal {
            Signal::Success => {
                // What is remembered are the failures for which it was left alone.
                if self.target.health.is_ejected() {
                    self.target.load.forget();
                }
                self.target.load.succeeded(took, now);
                self.target.counts.answered.record(1.0);
            }
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
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if !self.recorded {
            // One that never answers in time would else keep the measurements of its good days.
            let now = Instant::now();
            let took = now.saturating_duration_since(self.begun);
            self.target.load.outlasted(took, now);
        }
        self.target.load.end();
        self.pool.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod dropped;
#[cfg(test)]
mod tests;
