//! Which of several endpoints a call goes to.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::clock::Rng;

use super::load::Load;

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
    /// One after the other.
    RoundRobin,
}

impl LoadBalancer {
    /// The names in the configuration.
    pub const NAMES: &'static [&'static str] =
        &["p2c_ewma", "round_robin", "random", "least_request"];

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "least_request" => Some(Self::LeastRequest),
            "p2c_ewma" => Some(Self::P2cEwma),
            "random" => Some(Self::Random),
            "round_robin" => Some(Self::RoundRobin),
            _ => None,
        }
    }
}

/// Chooses among endpoints. Allocates nothing and waits for nobody.
#[derive(Debug)]
pub struct Picker {
    balancer: LoadBalancer,
    /// Counts draws; each number is scrambled into chance.
    draws: AtomicU64,
    turn: AtomicU64,
}

impl Picker {
    /// One that chooses in this way.
    #[must_use]
    pub fn new(balancer: LoadBalancer, rng: &Rng) -> Self {
        Self {
            balancer,
            draws: AtomicU64::new(rng.below(u64::MAX)),
            turn: AtomicU64::new(0),
        }
    }

    /// The place of the chosen one in `members`, of those that are `usable`; `None` if none is.
    pub fn pick<M: AsRef<Load>>(
        &self,
        members: &[M],
        usable: impl Fn(usize) -> bool,
        now: Instant,
    ) -> Option<usize> {
        let count = members.len() as u64;
        match count {
            0 => return None,
            1 => return usable(0).then_some(0),
            _ => {}
        }
        match self.balancer {
            LoadBalancer::RoundRobin => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % count;
                first_from(turn as usize, members.len(), usable)
            }
            LoadBalancer::Random => first_from(self.below(count), members.len(), usable),
            LoadBalancer::LeastRequest => self.better_of_two(members, usable, |member| {
                f64::from(member.as_ref().in_flight())
            }),
            LoadBalancer::P2cEwma => {
                self.better_of_two(members, usable, |member| member.as_ref().cost(now))
            }
        }
    }

    fn better_of_two<M>(
        &self,
        members: &[M],
        usable: impl Fn(usize) -> bool,
        cost: impl Fn(&M) -> f64,
    ) -> Option<usize> {
        let count = members.len();
        let one = self.below(count as u64);
        // Any but the first.
        let other = (one + 1 + self.below(count as u64 - 1)) % count;
        match (usable(one), usable(other)) {
            (true, true) if cost(&members[other]) < cost(&members[one]) => Some(other),
            (true, _) => Some(one),
            (false, true) => Some(other),
            (false, false) => first_from(one, count, usable),
        }
    }

    /// A number below `bound`.
    fn below(&self, bound: u64) -> usize {
        // SplitMix64: a counter, scrambled.
        let mut word = self
            .draws
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        ((u128::from(word) * u128::from(bound)) >> 64) as usize
    }
}

fn first_from(start: usize, count: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
    (0..count)
        .map(|step| (start + step) % count)
        .find(|at| usable(*at))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Member(Load);

    impl AsRef<Load> for Member {
        fn as_ref(&self) -> &Load {
            &self.0
        }
    }

    fn members(count: usize, now: Instant) -> Vec<Member> {
        (0..count).map(|_| Member(Load::new(now))).collect()
    }

    fn shares(balancer: LoadBalancer, members: &[Member], now: Instant) -> Vec<usize> {
        let picker = Picker::new(balancer, &Rng::with_seed(3));
        let mut shares = vec![0; members.len()];
        for _ in 0..10_000 {
            shares[picker.pick(members, |_| true, now).unwrap()] += 1;
        }
        shares
    }

    #[test]
    fn equals_get_equal_shares() {
        let now = Instant::now();
        let four = members(4, now);
        assert_eq!(shares(LoadBalancer::RoundRobin, &four, now), [2_500; 4]);
        for balancer in [
            LoadBalancer::Random,
            LoadBalancer::LeastRequest,
            LoadBalancer::P2cEwma,
        ] {
            let shares = shares(balancer, &four, now);
            assert!(
                shares.iter().all(|share| (2_300..2_700).contains(share)),
                "{balancer:?}: {shares:?}"
            );
        }
    }

    #[test]
    fn two_choices_leave_the_worst_alone() {
        let now = Instant::now();
        let four = members(4, now);
        for member in &four {
            member.0.succeeded(Duration::from_millis(1), now);
        }
        four[2].0.failed(Duration::from_micros(100), None, now);
        assert_eq!(shares(LoadBalancer::P2cEwma, &four, now)[2], 0);
        four[1].0.begin();
        assert_eq!(shares(LoadBalancer::LeastRequest, &four, now)[1], 0);
    }

    #[test]
    fn only_usable_ones_are_chosen_whatever_is_drawn() {
        let now = Instant::now();
        let five = members(5, now);
        for name in LoadBalancer::NAMES {
            let balancer = LoadBalancer::named(name).unwrap();
            let picker = Picker::new(balancer, &Rng::with_seed(9));
            for _ in 0..1_000 {
                assert_eq!(picker.pick(&five, |at| at == 3, now), Some(3));
                assert_eq!(picker.pick(&five, |_| false, now), None);
            }
            assert_eq!(picker.pick(&five[..0], |_| true, now), None);
            assert_eq!(picker.pick(&five[..1], |_| true, now), Some(0));
        }
        assert_eq!(LoadBalancer::named("best"), None);
    }
}
