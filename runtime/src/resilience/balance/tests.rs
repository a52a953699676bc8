use std::collections::HashMap;
use std::time::Duration;

use super::*;

struct Member {
    name: String,
    load: Load,
    weight: u32,
    zone: Option<&'static str>,
    warmth: f64,
}

impl Candidate for Member {
    fn name(&self) -> &str {
        &self.name
    }

    fn load(&self) -> &Load {
        &self.load
    }

    fn weight(&self) -> u32 {
        self.weight
    }

    fn zone(&self) -> Option<&str> {
        self.zone
    }

    fn warmth(&self, _: Instant) -> f64 {
        self.warmth
    }
}

fn member(number: usize, now: Instant) -> Member {
    Member {
        name: format!("http://orders-{number}:8080"),
        load: Load::new(now),
        weight: 1,
        zone: None,
        warmth: 1.0,
    }
}

fn members(count: usize, now: Instant) -> Vec<Member> {
    (0..count).map(|number| member(number, now)).collect()
}

fn rng() -> (Rng, fastrand::Rng) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    (Rng::with_seed(seed), fastrand::Rng::with_seed(seed))
}

fn shares(balancer: LoadBalancer, members: &[Member], now: Instant) -> Vec<usize> {
    let picker = Picker::new(balancer, members, &Rng::with_seed(3));
    let mut shares = vec![0; members.len()];
    for _ in 0..10_000 {
        let picked = picker.pick(members, &PickContext::at(now), |_| true);
        shares[picked.unwrap()] += 1;
    }
    shares
}

#[test]
fn equals_get_equal_shares() {
    let now = Instant::now();
    let four = members(4, now);
    assert_eq!(shares(LoadBalancer::RoundRobin, &four, now), [2_500; 4]);
    assert_eq!(shares(LoadBalancer::Weighted, &four, now), [2_500; 4]);
    for balancer in [
        LoadBalancer::Random,
        LoadBalancer::LeastRequest,
        LoadBalancer::P2cEwma,
        LoadBalancer::RingHash,
        LoadBalancer::ZoneAware,
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
        member.load.succeeded(Duration::from_millis(1), now);
    }
    four[2].load.failed(Duration::from_micros(100), None, now);
    assert_eq!(shares(LoadBalancer::P2cEwma, &four, now)[2], 0);
    four[1].load.begin();
    assert_eq!(shares(LoadBalancer::LeastRequest, &four, now)[1], 0);
}

#[test]
fn only_usable_ones_are_chosen_whatever_is_drawn() {
    let now = Instant::now();
    let mut five = members(5, now);
    for (at, member) in five.iter_mut().enumerate() {
        member.zone = [Some("a"), Some("b"), None][at % 3];
        member.weight = [1, 7][at % 2];
        member.warmth = [1.0, 0.1][at / 3];
    }
    for name in LoadBalancer::NAMES {
        let balancer = LoadBalancer::named(name).unwrap();
        let picker = Picker::new(balancer, &five, &Rng::with_seed(9));
        let mut context = PickContext::at(now);
        for round in 0..1_000 {
            context.hash = (round % 2 == 0).then_some(hash_key(round.to_string()));
            context.zone = [Some("a"), Some("b"), Some("c"), None][round % 4];
            assert_eq!(picker.pick(&five, &context, |at| at == 3), Some(3));
            assert_eq!(picker.pick(&five, &context, |_| false), None, "{name}");
        }
        for few in [0, 1] {
            let picker = Picker::new(balancer, &five[..few], &Rng::with_seed(9));
            let picked = picker.pick(&five[..few], &context, |_| true);
            assert_eq!(picked, (few == 1).then_some(0));
        }
    }
    assert_eq!(LoadBalancer::named("best"), None);
}

#[test]
fn turns_go_round_as_a_finger_on_a_list_does() {
    let now = Instant::now();
    let (chance, mut rng) = rng();
    for _ in 0..100 {
        let some = members(rng.usize(2..9), now);
        let picker = Picker::new(LoadBalancer::RoundRobin, &some, &chance);
        let pick = |usable: &[bool]| picker.pick(&some, &PickContext::at(now), |at| usable[at]);
        let all = vec![true; some.len()];
        let mut finger = pick(&all).unwrap();
        for _ in 0..100 {
            let usable: Vec<bool> = some.iter().map(|_| rng.bool()).collect();
            // Where there is none a turn passes, or two.
            if usable == vec![false; some.len()] {
                continue;
            }
            finger = (finger + 1) % some.len();
            let mut expected = (0..some.len()).map(|step| (finger + step) % some.len());
            assert_eq!(pick(&usable), expected.find(|at| usable[*at]));
        }
    }
}

#[test]
fn of_two_the_cheaper_one_is_chosen_whatever_they_cost() {
    let now = Instant::now();
    let (chance, mut rng) = rng();
    for balancer in [
        LoadBalancer::P2cEwma,
        LoadBalancer::LeastRequest,
        LoadBalancer::ZoneAware,
    ] {
        for _ in 0..200 {
            let some = members(rng.usize(2..7), now);
            for member in &some {
                let took = Duration::from_micros(rng.u64(1..5_000));
                member.load.succeeded(took, now);
                (0..rng.u32(..5)).for_each(|_| member.load.begin());
            }
            let cost = |at: usize| match balancer {
                LoadBalancer::LeastRequest => f64::from(some[at].load.in_flight()),
                _ => some[at].load.cost(now),
            };
            let costs: Vec<f64> = (0..some.len()).map(cost).collect();
            let most = costs.iter().copied().fold(0.0, f64::max);
            let worst: Vec<usize> = (0..some.len()).filter(|at| costs[*at] >= most).collect();
            let picker = Picker::new(balancer, &some, &chance);
            for _ in 0..50 {
                let picked = picker.pick(&some, &PickContext::at(now), |_| true).unwrap();
                // Another was drawn beside it, and only one that costs as much loses against it.
                assert!(
                    worst.len() > 1 || worst[0] != picked,
                    "{balancer:?}: {costs:?}"
                );
            }
            // With two there is nothing to draw.
            if some.len() == 2 && costs[0] != costs[1] {
                let cheaper = usize::from(costs[1] < costs[0]);
                let picked = picker.pick(&some, &PickContext::at(now), |_| true);
                assert_eq!(picked, Some(cheaper), "{balancer:?}: {costs:?}");
            }
        }
    }
}

#[test]
fn weights_are_kept_exactly_and_evenly_spread() {
    let now = Instant::now();
    let (chance, mut rng) = rng();
    for _ in 0..200 {
        let mut some = members(rng.usize(1..9), now);
        some.iter_mut()
            .for_each(|member| member.weight = rng.u32(1..=20));
        let total: u32 = some.iter().map(|member| member.weight).sum();
        let picker = Picker::new(LoadBalancer::Weighted, &some, &chance);
        let picked: Vec<usize> = (0..total * 3)
            .map(|_| {
                let picked = picker.pick(&some, &PickContext::at(now), |_| true);
                picked.unwrap()
            })
            .collect();
        for (at, member) in some.iter().enumerate() {
            let turns: Vec<usize> = (0..picked.len())
                .filter(|turn| picked[*turn] == at)
                .collect();
            assert_eq!(turns.len(), 3 * member.weight as usize);
            // In the time between two turns of one, another has its share and one more.
            let longest = total.div_ceil(member.weight) as usize + some.len();
            let gaps = turns.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(gaps.max().unwrap_or_default() <= longest, "{turns:?}");
        }
    }
}

#[test]
fn a_key_stays_and_few_keys_move() {
    let now = Instant::now();
    let ten = members(10, now);
    let (chance, _) = rng();
    let place = |members: &[Member], key: usize| {
        let picker = Picker::new(LoadBalancer::RingHash, members, &chance);
        let mut context = PickContext::at(now);
        context.hash = Some(hash_key(format!("customer-{key}")));
        context.in_flight = 1_000;
        let picked = picker.pick(members, &context, |_| true).unwrap();
        members[picked].name.clone()
    };
    let before: HashMap<usize, String> = (0..1_000).map(|key| (key, place(&ten, key))).collect();
    let mut without = members(10, now);
    let gone = without.remove(4).name;
    without.reverse();
    for (key, name) in &before {
        assert_eq!(place(&ten, *key), *name);
        let after = place(&without, *key);
        // Only those of the one that left move.
        assert_eq!(after == *name, *name != gone, "{key}: {name} -> {after}");
    }
    let moved = before.values().filter(|name| **name == gone).count();
    assert!((50..200).contains(&moved), "{moved}");
}

#[test]
fn the_ring_is_the_same_in_every_version() {
    assert_eq!(hash_key(""), 0xf52a_15e9_a9b5_e89b);
    assert_eq!(hash_key("customer-7"), 0x9749_585e_a136_30d6);
}

#[test]
fn a_key_that_everybody_wants_spreads_over_the_ring() {
    let now = Instant::now();
    let ten = members(10, now);
    let picker = Picker::new(LoadBalancer::RingHash, &ten, &Rng::with_seed(1));
    let mut context = PickContext::at(now);
    context.hash = Some(hash_key("the one customer"));
    for in_flight in 0..1_000 {
        context.in_flight = in_flight;
        let picked = picker.pick(&ten, &context, |_| true).unwrap();
        ten[picked].load.begin();
        let bound = ((in_flight as f64 + 1.0) / 10.0 * 1.25).ceil() as u32;
        assert!(ten[picked].load.in_flight() <= bound);
    }
    let most = ten.iter().map(|member| member.load.in_flight()).max();
    assert_eq!(most, Some(125));
}

fn zoned(now: Instant) -> Vec<Member> {
    let mut six = members(6, now);
    for (at, member) in six.iter_mut().enumerate() {
        member.zone = Some(["a", "b", "c"][at % 3]);
        member.load.succeeded(Duration::from_millis(2), now);
    }
    six
}

/// How often each of them was chosen of 10 000 times by a caller in zone `a`.
fn from_zone_a(members: &[Member], now: Instant, usable: impl Fn(usize) -> bool) -> Vec<usize> {
    let picker = Picker::new(LoadBalancer::ZoneAware, members, &Rng::with_seed(3));
    let mut context = PickContext::at(now);
    context.zone = Some("a");
    let mut shares = vec![0; members.len()];
    for _ in 0..10_000 {
        shares[picker.pick(members, &context, &usable).unwrap()] += 1;
    }
    shares
}

#[test]
fn a_zone_keeps_its_calls_until_it_cannot() {
    let now = Instant::now();
    let six = zoned(now);
    let even = from_zone_a(&six, now, |_| true);
    assert_eq!(even[0] + even[3], 10_000, "{even:?}");
    assert!(even[0].abs_diff(5_000) < 300, "{even:?}");
    let one_left = from_zone_a(&six, now, |at| at != 0);
    assert_eq!(one_left[3], 10_000);
    let none_left = from_zone_a(&six, now, |at| at % 3 != 0);
    for at in [1, 2, 4, 5] {
        assert!(none_left[at].abs_diff(2_500) < 300, "{none_left:?}");
    }
    // A little slower than elsewhere is no reason to go there; very much slower is.
    for at in [0, 3] {
        six[at].load.succeeded(Duration::from_millis(6), now);
    }
    let slower = from_zone_a(&six, now, |_| true);
    assert_eq!(slower[0] + slower[3], 10_000, "{slower:?}");
    for at in [0, 3] {
        six[at].load.succeeded(Duration::from_millis(9), now);
    }
    let far_slower = from_zone_a(&six, now, |_| true);
    assert_eq!(far_slower[0] + far_slower[3], 0, "{far_slower:?}");
}

#[test]
fn one_that_starts_gets_its_part_of_a_share() {
    let now = Instant::now();
    for name in LoadBalancer::NAMES {
        let balancer = LoadBalancer::named(name).unwrap();
        let mut four = members(4, now);
        for member in &four {
            member.load.succeeded(Duration::from_millis(1), now);
        }
        four[2].warmth = 0.2;
        let shares = shares(balancer, &four, now);
        match balancer {
            // A key belongs where it belongs.
            LoadBalancer::RingHash => continue,
            LoadBalancer::RoundRobin | LoadBalancer::Weighted | LoadBalancer::Random => {
                assert!(shares[2].abs_diff(500) < 150, "{name}: {shares:?}");
            }
            // Of two it is the more expensive one.
            _ => assert_eq!(shares[2], 0, "{name}"),
        }
    }
}
