//! Which of several endpoints a call goes to.

mod draws;
mod ring;
#[cfg(test)]
mod tests;
mod turns;
mod zones;

use tokio::time::Instant;

use crate::clock::Rng;

use super::load::Load;
use draws::Draws;
use ring::Ring;
use turns::Turns;
use zones::Zones;

pub use ring::hash_key;

/// How one of several endpoints is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadBalancer {
    /// The one with fewer calls in flight of two drawn by chance.
    LeastRequest,
    /// The cheaper of two drawn by chance: what it costs is the time that calls took lately, with
    /// failures counted as slow, times the calls in flight.
    #[default]
    P2cEwma,
    /// Any, by chance.
    Random,
    /// The same one for the same key, as long as it has at most a quarter more in flight than its
    /// share; then the next on the ring. Few keys move when endpoints come and go.
    RingHash,
    /// One after the other.
    RoundRobin,
    /// In turn, each as often as its weight says, and never many times in a row.
    Weighted,
    /// As [`P2cEwma`](Self::P2cEwma) within the caller's own zone; elsewhere where nothing of the zone
    /// is usable, or where it is far more loaded.
    ZoneAware,
}

impl LoadBalancer {
    /// The names in the configuration.
    pub const NAMES: &'static [&'static str] = &[
        "p2c_ewma",
        "round_robin",
        "weighted",
        "random",
        "least_request",
        "ring_hash",
        "zone_aware",
    ];

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "least_request" => Some(Self::LeastRequest),
            "p2c_ewma" => Some(Self::P2cEwma),
            "random" => Some(Self::Random),
            "ring_hash" => Some(Self::RingHash),
            "round_robin" => Some(Self::RoundRobin),
            "weighted" => Some(Self::Weighted),
            "zone_aware" => Some(Self::ZoneAware),
            _ => None,
        }
    }
}

/// What a [`Picker`] asks of an endpoint.
pub trait Candidate {
    /// What stays the same in every process and after every restart: its address.
    fn name(&self) -> &str;

    /// How busy it is.
    fn load(&self) -> &Load;

    /// How many calls it takes compared with others, from 1 to [`WEIGHT_MAX`]; 1 unless said.
    fn weight(&self) -> u32 {
        1
    }

    /// Where it is, if that is known.
    fn zone(&self) -> Option<&str> {
        None
    }

    /// How much of its share it may get at `now`, above 0 and up to 1: less than 1 while it starts.
    fn warmth(&self, now: Instant) -> f64 {
        let _ = now;
        1.0
    }

    /// What one more call is expected to cost at `now`, for comparison with others: what its load says,
    /// and more while it starts.
    fn cost(&self, now: Instant) -> f64 {
        self.load().cost(now) / self.warmth(now)
    }
}

/// The largest weight of an endpoint.
pub const WEIGHT_MAX: u32 = 100;

/// What a [`Picker`] has to know of a call.
#[derive(Clone, Copy, Debug)]
pub struct PickContext<'a> {
    /// When it is chosen.
    pub now: Instant,
    /// Calls with the same hash go to the same endpoint, where the balancer hashes; see [`hash_key`].
    pub hash: Option<u64>,
    /// Where the caller is.
    pub zone: Option<&'a str>,
    /// How many calls are in flight at all endpoints together.
    pub in_flight: usize,
}

impl PickContext<'_> {
    /// Nothing is known but the time.
    #[must_use]
    pub const fn at(now: Instant) -> Self {
        Self {
            now,
            hash: None,
            zone: None,
            in_flight: 0,
        }
    }
}

/// Chooses among a fixed set of endpoints. Allocates nothing and waits for nobody; made anew whenever
/// the set changes.
#[derive(Debug)]
pub struct Picker {
    draws: Draws,
    way: Way,
}

/// A balancer with what it has prepared for its set.
#[derive(Debug)]
enum Way {
    LeastRequest,
    P2cEwma,
    Random,
    RingHash(Ring),
    /// Of every place once, or as often as its weight says.
    Turns(Turns),
    ZoneAware(Zones),
}

impl Picker {
    /// One that chooses among `members` in this way.
    #[must_use]
    pub fn new<C: Candidate>(balancer: LoadBalancer, members: &[C], rng: &Rng) -> Self {
        let way = match balancer {
            LoadBalancer::LeastRequest => Way::LeastRequest,
            LoadBalancer::P2cEwma => Way::P2cEwma,
            LoadBalancer::Random => Way::Random,
            LoadBalancer::RingHash => Way::RingHash(Ring::new(members)),
            LoadBalancer::RoundRobin => Way::Turns(Turns::equal(members.len(), rng)),
            LoadBalancer::Weighted => Way::Turns(Turns::weighted(members, rng)),
            LoadBalancer::ZoneAware => Way::ZoneAware(Zones::new(members)),
        };
        Self {
            draws: Draws::new(rng),
            way,
        }
    }

    /// The place of the chosen one in `members`, of those that are `usable`; `None` if none is. They
    /// must be those that the picker was made for.
    pub fn pick<C: Candidate>(
        &self,
        members: &[C],
        context: &PickContext<'_>,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let count = members.len();
        match count {
            0 => return None,
            1 => return usable(0).then_some(0),
            _ => {}
        }
        let now = context.now;
        // One that starts is passed over now and then, as long as there is another.
        let ready = |at: usize| {
            let warmth = members[at].warmth(now);
            usable(at) && (warmth >= 1.0 || self.draws.unit() < warmth)
        };
        let in_flight = |at: usize| {
            let member = &members[at];
            f64::from(member.load().in_flight() + 1) / member.warmth(now)
        };
        let cost = |at: usize| members[at].cost(now);
        match &self.way {
            Way::LeastRequest => self.draws.cheaper(count, &usable, in_flight),
            Way::P2cEwma => self.draws.cheaper(count, &usable, cost),
            Way::Random => {
                let start = self.draws.below(count);
                let ready = || first_from(start, count, ready);
                ready().or_else(|| first_from(start, count, &usable))
            }
            Way::RingHash(ring) => match context.hash {
                Some(hash) => ring.pick(hash, members, context.in_flight, &usable),
                None => first_from(self.draws.below(count), count, &usable),
            },
            Way::Turns(turns) => turns.pick(ready).or_else(|| turns.pick(&usable)),
            Way::ZoneAware(zones) => zones
                .pick(context.zone, &self.draws, &usable, cost, |at| {
                    members[at].load().in_flight()
                })
                .or_else(|| self.draws.cheaper(count, &usable, cost)),
        }
    }
}

/// The first usable place from `start` on, going round.
fn first_from(start: usize, count: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
    (0..count)
        .map(|step| (start + step) % count)
        .find(|at| usable(*at))
}
