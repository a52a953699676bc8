//! The endpoints of one service with what is known of each, and the choice among them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Rng;
use crate::discovery::{Endpoint, EndpointSet};
use crate::resilience::{
    Candidate, CircuitBreaker, CircuitPermit, EndpointHealth, Load, LoadBalancer, OutlierOptions,
    Outliers, PickContext, Picker, Signal,
};

use super::checks::Checked;
use super::endpoints::{Counts, Maker};
use super::transport::{Door, Transport};
use super::views::ServiceEndpoint;

/// What is kept of one endpoint for as long as it is one, whatever happens to others.
#[derive(Debug)]
pub(super) struct Target {
    /// Tells it from every other that the pool has ever had.
    id: u64,
    pub(super) url: Arc<str>,
    pub(super) door: Option<Arc<Door>>,
    pub(super) transport: Arc<Transport>,
    pub(super) checked: Checked,
    load: Load,
    health: Arc<EndpointHealth>,
    breaker: Option<CircuitBreaker>,
    counts: Counts,
}

impl Target {
    /// What stands before the path of a request.
    pub(super) fn origin(&self) -> &str {
        self.door.as_ref().map_or(&self.url, |door| door.origin())
    }

    /// Whether it is this one, called by the same name.
    fn is(&self, endpoint: &Endpoint, host: Option<&str>) -> bool {
        self.door.as_ref().map(|door| door.host()) == endpoint.host().or(host)
    }

    /// It answered after `took`.
    fn answered(&self, took: Duration, now: Instant) {
        // What is remembered are the failures for which it was left alone.
        if self.health.is_ejected() {
            self.load.forget();
        }
        self.load.succeeded(took, now);
        self.counts.answered.record(1.0);
    }

    /// It did not answer for `took`, while another did.
    pub(super) fn was_outdone(&self, took: Duration, now: Instant) {
        self.counts.failed.record(1.0);
        self.load.failed(took, None, now);
        if let Some(breaker) = &self.breaker {
            breaker.found_failing(now);
        }
    }

    fn failed(&self, permit: Option<CircuitPermit>, took: Duration, now: Instant) {
        self.load.failed(took, None, now);
        let another = || self.breaker.as_ref()?.acquire(now).ok();
        if let Some(permit) = permit.or_else(another) {
            permit.record(Signal::Failure, now);
        }
    }

    /// Whether it gets calls like the others; where so many are unwell that all do, each does.
    fn is_awake(&self, panicking: bool, now: Instant) -> bool {
        panicking || !self.checked.is_down() && !self.is_resting(now)
    }

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
    priority: u16,
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

/// All endpoints at one moment. Another set is another pool, with the same targets where an endpoint
/// is still there.
#[derive(Debug)]
pub(super) struct Pool {
    /// Those of one priority stand together, the first priority first.
    all: Box<[Member]>,
    tiers: Box<[Tier]>,
    shared: Arc<Shared>,
}

/// The endpoints of one priority.
#[derive(Debug)]
struct Tier {
    begin: usize,
    end: usize,
    picker: Picker,
}

/// What the pools of one service have together.
#[derive(Debug)]
struct Shared {
    maker: Maker,
    transport: Arc<Transport>,
    balancer: LoadBalancer,
    rng: Rng,
    outliers: Arc<Outliers>,
    in_flight: AtomicUsize,
    made: AtomicU64,
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
    /// One without endpoints.
    pub(super) fn empty(
        maker: Maker,
        transport: Arc<Transport>,
        balancer: LoadBalancer,
        options: OutlierOptions,
        rng: &Rng,
    ) -> Self {
        let shared = Shared {
            maker,
            transport,
            balancer,
            rng: rng.clone(),
            outliers: Outliers::new(options),
            in_flight: AtomicUsize::new(0),
            made: AtomicU64::new(0),
        };
        Self {
            all: Box::default(),
            tiers: Box::default(),
            shared: Arc::new(shared),
        }
    }

    /// One of these endpoints, of which there must be one at a time. An endpoint that stays, by its
    /// address, keeps its measurements and its circuit; one that is new beside others starts slowly.
    pub(super) fn with(&self, endpoints: &EndpointSet) -> Self {
        let now = Instant::now();
        let known: HashMap<&str, &Arc<Target>> = self
            .all
            .iter()
            .map(|member| (&*member.target.url, &member.target))
            .collect();
        // The first ones are all new together: there is nobody beside whom to start slowly.
        let started = (!known.is_empty()).then_some(now);
        let expected = median(&self.all, now);
        let member = |endpoint: &Endpoint| {
            let target = match known.get(endpoint.url()) {
                Some(target) if target.is(endpoint, self.shared.maker.host()) => Arc::clone(target),
                _ => Arc::new(self.make(endpoint, expected, started)),
            };
            Member {
                target,
                priority: endpoint.priority(),
                weight: endpoint.weight(),
                zone: endpoint.zone().map(Into::into),
            }
        };
        let mut all: Vec<Member> = endpoints.iter().map(member).collect();
        // The sort is stable: within a priority they stay in the order of the set.
        all.sort_by_key(|member| member.priority);
        let shared = Arc::clone(&self.shared);
        shared.outliers.resize(all.len());
        Self {
            tiers: tiers(&all, &shared),
            all: all.into(),
            shared,
        }
    }

    fn make(
        &self,
        endpoint: &Endpoint,
        expected: Option<Duration>,
        started: Option<Instant>,
    ) -> Target {
        let url = endpoint.url();
        let now = Instant::now();
        let Shared {
            maker, outliers, ..
        } = &*self.shared;
        let health = Arc::new(outliers.join(started));
        Target {
            id: self.shared.made.fetch_add(1, Ordering::Relaxed),
            url: url.into(),
            door: Door::of(endpoint, maker.host()).map(Arc::new),
            transport: Arc::clone(&self.shared.transport),
            checked: Checked::new(&health),
            load: match expected {
                Some(average) => Load::expected(average, now),
                None => Load::new(now),
            },
            breaker: maker.breaker(url, &health, outliers),
            counts: maker.counts(url),
            health,
        }
    }

    /// The one at this address.
    pub(super) fn at(&self, url: &str) -> Option<Arc<Target>> {
        self.targets().find(|target| *target.url == *url).cloned()
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = &Arc<Target>> + Clone {
        self.all.iter().map(|member| &member.target)
    }

    /// What is known of each endpoint, for whoever looks from outside.
    pub(super) fn views(&self) -> Vec<ServiceEndpoint> {
        let view = |target: &Arc<Target>| ServiceEndpoint {
            url: Arc::clone(&target.url),
            circuit: target.breaker.clone(),
            is_ejected: target.health.is_ejected(),
            is_down: target.checked.is_down(),
            in_flight: target.load.in_flight(),
        };
        self.targets().map(view).collect()
    }

    pub(super) fn urls(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|member| &*member.target.url)
    }

    /// Whether there is an endpoint that the call has not been to and that is not left alone.
    pub(super) fn has_other(&self, tried: &Tried, now: Instant) -> bool {
        let panicking = self.shared.outliers.is_panicking();
        let mut all = self.all.iter().map(|member| &*member.target);
        all.any(|target| !tried.contains(target.id) && target.is_awake(panicking, now))
    }

    /// Chooses an endpoint for one attempt: one that the call has not been to and that is not left alone,
    /// else one that is not left alone, else one that it has not been to, else any at all. `None` only
    /// where there is no endpoint.
    ///
    /// Those of a later priority get a call only where each of the earlier ones is out of the question:
    /// its circuit is open, its checks fail, or the call has been there.
    pub(super) fn pick(
        &self,
        tried: &mut Tried,
        wish: Wish<'_>,
        now: Instant,
    ) -> Option<Lease<'_>> {
        let context = self.context(wish, now);
        let place = self
            .awake_place(tried, &context)
            // Where all are left alone, one of them is still better than an outage of our own making:
            // how often they are bothered is for the breaker of the service.
            .or_else(|| self.place(&context, &|target| !tried.contains(target.id)))
            .or_else(|| self.place(&context, &|_| true))?;
        Some(self.lease(place, tried, now))
    }

    /// Chooses an endpoint for a second request beside a first one: as [`pick`](Self::pick), and never
    /// one that is left alone, where it would only wait as the first does.
    pub(super) fn pick_awake(
        &self,
        tried: &mut Tried,
        wish: Wish<'_>,
        now: Instant,
    ) -> Option<Lease<'_>> {
        let place = self.awake_place(tried, &self.context(wish, now))?;
        Some(self.lease(place, tried, now))
    }

    fn context<'w>(&self, wish: Wish<'w>, now: Instant) -> PickContext<'w> {
        PickContext {
            hash: wish.hash,
            zone: wish.zone,
            in_flight: self.shared.in_flight.load(Ordering::Relaxed),
            ..PickContext::at(now)
        }
    }

    /// One of those that are not left alone; one that the call has not been to where there is one.
    fn awake_place(&self, tried: &Tried, context: &PickContext<'_>) -> Option<usize> {
        let now = context.now;
        let panicking = self.shared.outliers.is_panicking();
        let new = |target: &Target| !tried.contains(target.id);
        let awake = |target: &Target| target.is_awake(panicking, now);
        // As long as others stand by, nobody has to be called whose circuit is open.
        let sound = |target: &Target| !target.checked.is_down() && !target.is_refusing(now);
        let (last, earlier) = self.tiers.split_last()?;
        let mut earlier = earlier.iter();
        earlier
            .find_map(|tier| self.place_in(tier, context, &|target| new(target) && sound(target)))
            .or_else(|| self.place_in(last, context, &|target| new(target) && awake(target)))
            .or_else(|| self.place(context, &|target| new(target) && awake(target)))
            // Where it has been, something answers; where nobody is called, it would only wait.
            .or_else(|| self.place(context, &awake))
    }

    fn place(&self, context: &PickContext<'_>, usable: &dyn Fn(&Target) -> bool) -> Option<usize> {
        let mut tiers = self.tiers.iter();
        tiers.find_map(|tier| self.place_in(tier, context, usable))
    }

    fn place_in(
        &self,
        tier: &Tier,
        context: &PickContext<'_>,
        usable: &dyn Fn(&Target) -> bool,
    ) -> Option<usize> {
        let members = &self.all[tier.begin..tier.end];
        let usable = |at: usize| usable(&members[at].target);
        let place = tier.picker.pick(members, context, usable);
        place.map(|at| tier.begin + at)
    }

    fn lease(&self, place: usize, tried: &mut Tried, now: Instant) -> Lease<'_> {
        let shared = &self.shared;
        let target = &self.all[place].target;
        tried.add(target.id);
        target.load.begin();
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        let permit = target.breaker.as_ref();
        Lease {
            permit: permit.and_then(|breaker| breaker.acquire(now).ok()),
            begun: now,
            recorded: false,
            shared,
            target,
        }
    }
}

/// Each priority with what chooses among its endpoints, which stand together.
fn tiers(all: &[Member], shared: &Shared) -> Box<[Tier]> {
    let mut begin = 0;
    let each = all.chunk_by(|one, next| one.priority == next.priority);
    each.map(|members| {
        let tier = Tier {
            begin,
            end: begin + members.len(),
            picker: Picker::new(shared.balancer, members, &shared.rng),
        };
        begin = tier.end;
        tier
    })
    .collect()
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
    pub(super) target: &'p Arc<Target>,
    /// `None` where the endpoint is tried although its breaker is open, and where it has none.
    permit: Option<CircuitPermit>,
    begun: Instant,
    recorded: bool,
    shared: &'p Arc<Shared>,
}

impl Lease<'_> {
    /// The attempt has ended, and this is what it told of the endpoint.
    pub(super) fn record(mut self, signal: Signal, left_alone: Option<Duration>, now: Instant) {
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
    pub(super) fn hold(mut self, now: Instant) -> Held {
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
pub(super) struct Held {
    target: Arc<Target>,
    shared: Arc<Shared>,
    permit: Option<CircuitPermit>,
}

impl Held {
    pub(super) fn url(&self) -> Arc<str> {
        Arc::clone(&self.target.url)
    }

    /// The answer broke off.
    pub(super) fn broke(&mut self, now: Instant) {
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

#[cfg(test)]
mod dropped;
#[cfg(test)]
mod tests;
