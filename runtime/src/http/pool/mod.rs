//! The endpoints of one service with what is known of each, and the choice among them.

mod lease;
mod target;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Rng;
use crate::discovery::{Endpoint, EndpointSet};
use crate::resilience::{Load, LoadBalancer, OutlierOptions, Outliers, PickContext, Picker};

use super::checks::Checked;
use super::endpoints::Maker;
use super::transport::{Address, Transport};
use super::views::ServiceEndpoint;
use target::Member;

pub(super) use lease::{Held, Lease};
pub(super) use target::Target;

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
            address: Address::new(url),
            door: maker.door(endpoint),
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

    /// The same, and never one that the call has been to.
    pub(super) fn pick_other(
        &self,
        tried: &mut Tried,
        wish: Wish<'_>,
        now: Instant,
    ) -> Option<Lease<'_>> {
        let place = self.new_awake_place(tried, &self.context(wish, now))?;
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
        self.new_awake_place(tried, context).or_else(|| {
            // Where it has been, something answers; where nobody is called, it would only wait.
            let panicking = self.shared.outliers.is_panicking();
            self.place(context, &|target| target.is_awake(panicking, context.now))
        })
    }

    /// One that the call has not been to and that is not left alone.
    fn new_awake_place(&self, tried: &Tried, context: &PickContext<'_>) -> Option<usize> {
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

#[cfg(test)]
mod dropped;
#[cfg(test)]
mod tests;
