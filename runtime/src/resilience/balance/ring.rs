//! The same endpoint for the same key, unless it has too much to do.

use super::draws::scramble;
use super::{Candidate, WEIGHT_MAX};

/// How many points of the ring an endpoint of weight 1 has: with fewer, shares differ too much.
const POINTS: u32 = 64;
/// About the most points of a ring, 16 bytes each; beyond that there are fewer for each endpoint.
const POINTS_MAX: u32 = 1 << 20;
/// How much more than its share an endpoint may have in flight.
const BOUND: f64 = 1.25;

/// The hash of a key, the same in every process and in every version: FNV-1a, scrambled.
///
/// ```
/// use interline::resilience::hash_key;
///
/// assert_eq!(hash_key("customer-7"), hash_key(b"customer-7"));
/// assert_ne!(hash_key("customer-7"), hash_key("customer-8"));
/// ```
#[must_use]
pub fn hash_key(key: impl AsRef<[u8]>) -> u64 {
    scramble(fnv(0xcbf2_9ce4_8422_2325, key.as_ref()))
}

fn fnv(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Points with the place that each belongs to, in order.
#[derive(Debug)]
pub(super) struct Ring {
    points: Box<[(u64, u32)]>,
    weights: u32,
}

impl Ring {
    pub(super) fn new<C: Candidate>(members: &[C]) -> Self {
        let mut points = Vec::new();
        let weights = members.iter().map(weight).fold(0, u32::saturating_add);
        // The first of those that there would be otherwise, so that few keys move.
        let each = (POINTS_MAX / weights.max(1)).clamp(1, POINTS);
        for (at, member) in members.iter().enumerate() {
            let weight = weight(member);
            let at = u32::try_from(at).unwrap_or(u32::MAX);
            let name = hash_key(member.name());
            // A point depends on nothing but the name and its number, so that the points of others
            // stay where they are when one comes or goes.
            points.extend((0..each * weight).map(|number| {
                let point = scramble(fnv(name, &number.to_le_bytes()));
                (point, at)
            }));
        }
        points.sort_unstable();
        Self {
            points: points.into(),
            weights,
        }
    }

    /// The usable one that `hash` belongs to, or the next on the ring that is not over its bound.
    pub(super) fn pick<C: Candidate>(
        &self,
        hash: u64,
        members: &[C],
        in_flight: usize,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let start = self.points.partition_point(|(point, _)| *point < hash);
        let (before, after) = self.points.split_at(start);
        let places = || after.iter().chain(before).map(|(_, at)| *at as usize);
        // The call that is placed counts too.
        let fair = (in_flight as f64 + 1.0) / f64::from(self.weights.max(1)) * BOUND;
        let has_room = |at: usize| {
            let bound = (fair * f64::from(weight(&members[at]))).ceil();
            f64::from(members[at].load().in_flight()) < bound
        };
        let roomy = places().find(|at| usable(*at) && has_room(*at));
        roomy.or_else(|| places().find(|at| usable(*at)))
    }
}

fn weight(member: &impl Candidate) -> u32 {
    member.weight().clamp(1, WEIGHT_MAX)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::super::Load;
    use super::*;

    struct Member(String, u32, Load);

    impl Candidate for Member {
        fn name(&self) -> &str {
            &self.0
        }

        fn load(&self) -> &Load {
            &self.2
        }

        fn weight(&self) -> u32 {
            self.1
        }
    }

    /// The ring as one would write it without regard to cost: of all points of those that could take it,
    /// the one that comes first.
    fn model(hash: u64, members: &[Member], flying: usize, usable: &[bool]) -> Option<usize> {
        let weights: u32 = members.iter().map(|member| member.1).sum();
        let first = |may: &dyn Fn(usize) -> bool| {
            let points = (0..members.len()).filter(|at| may(*at)).flat_map(|at| {
                let name = hash_key(&members[at].0);
                let points = 0..POINTS * members[at].1;
                points.map(move |number| {
                    let point = scramble(fnv(name, &number.to_le_bytes()));
                    (point.wrapping_sub(hash), at)
                })
            });
            points.min().map(|(_, at)| at)
        };
        let has_room = |at: usize| {
            let share = (flying + 1) as f64 * f64::from(members[at].1) / f64::from(weights);
            f64::from(members[at].2.in_flight()) < (share * 1.25).ceil()
        };
        first(&|at| usable[at] && has_room(at)).or_else(|| first(&|at| usable[at]))
    }

    #[test]
    fn it_chooses_what_a_plain_search_finds() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let now = Instant::now();
        for _ in 0..20 {
            // Weights by which shares can be divided exactly, so that both round alike.
            let members: Vec<_> = (0..1 << rng.u32(1..4))
                .map(|number| Member(format!("http://a-{number}"), 2, Load::new(now)))
                .collect();
            let ring = Ring::new(&members);
            let mut flying = 0;
            for _ in 0..100 {
                let usable: Vec<bool> = members.iter().map(|_| rng.u8(..4) > 0).collect();
                let hash = rng.u64(..);
                let found = ring.pick(hash, &members, flying, |at| usable[at]);
                assert_eq!(found, model(hash, &members, flying, &usable));
                if let Some(at) = found {
                    members[at].2.begin();
                    flying += 1;
                }
            }
        }
    }
}
