use crate::clock::TokioClock;
use crate::config::{Config, Faults};
use crate::discovery::Backends;
use crate::resilience::{Candidate, Signal};

use super::super::settings::ServiceSettings;
use super::super::stack::Surroundings;
use super::*;

pub(super) const WISH: Wish<'_> = Wish {
    hash: None,
    zone: None,
};

pub(super) fn set(numbers: impl IntoIterator<Item = usize>) -> EndpointSet {
    let endpoint = |number| Endpoint::parse(&format!("http://orders-{number}:8080")).unwrap();
    numbers.into_iter().map(endpoint).collect()
}

pub(super) fn pool(endpoints: &EndpointSet, lines: &str, rng: &Rng) -> Pool {
    let toml = format!("[services.orders]\nurls = [\"http://a\"]\n{lines}");
    let config = Config::from_toml("interline.toml", &toml).unwrap();
    let mut faults = Faults::new();
    let (section, backends) = (config.section("services.orders"), Backends::default());
    let settings = ServiceSettings::read(&section, &[], None, &backends, None, &mut faults);
    faults.into_result().unwrap();
    let settings = settings.unwrap();
    let environment = Surroundings {
        caller: "till".into(),
        clock: Arc::new(TokioClock::starting_at(std::time::UNIX_EPOCH)),
        rng: rng.clone(),
        metrics: None,
        #[cfg(feature = "testing")]
        stand_ins: Default::default(),
    };
    let maker = Maker::new(&"orders".into(), &settings, &environment);
    let (ways, security) = (settings.ways, settings.security.clone());
    let transport = Transport::new(ways, security, None, 1, rng).unwrap();
    let (balance, outliers) = (settings.balance, settings.outliers);
    Pool::empty(maker, Arc::new(transport), balance, outliers, rng).with(endpoints)
}

pub(super) fn seeded() -> (u64, fastrand::Rng, Rng) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    (seed, fastrand::Rng::with_seed(seed), Rng::with_seed(seed))
}

fn ids(pool: &Pool) -> HashMap<Arc<str>, u64> {
    let all = pool.all.iter();
    all.map(|member| (Arc::clone(&member.target.url), member.target.id))
        .collect()
}

#[test]
fn who_stays_in_the_set_keeps_what_is_known_of_it() {
    let (_, mut rng, chance) = seeded();
    let mut pool = pool(&set(0..8), "", &chance);
    let mut known = ids(&pool);
    for _ in 0..500 {
        let wanted = set((0..8).filter(|_| rng.bool()));
        pool = pool.with(&wanted);
        let now = ids(&pool);
        let urls: Vec<_> = wanted.iter().map(Endpoint::url).collect();
        assert_eq!(pool.urls().collect::<Vec<_>>(), urls);
        for (url, id) in &now {
            match known.get(url) {
                Some(before) => assert_eq!(id, before),
                None => assert!(known.values().all(|before| before < id)),
            }
        }
        known = now;
    }
}

#[test]
fn an_attempt_outlives_its_endpoint() {
    let one = pool(&set(0..1), "", &Rng::with_seed(1));
    let now = Instant::now();
    let lease = one.pick(&mut Tried::default(), WISH, now).unwrap();
    let other = one.with(&set(1..2));
    assert_eq!(&*lease.target.url, "http://orders-0:8080");
    lease.record(Signal::Success, None, now);
    let lease = other.pick(&mut Tried::default(), WISH, now).unwrap();
    assert_eq!(&*lease.target.url, "http://orders-1:8080");
    let none = other.with(&set([]));
    assert!(none.pick(&mut Tried::default(), WISH, now).is_none());
    drop(lease);
    assert_eq!(one.shared.in_flight.load(Ordering::Relaxed), 0);
}

#[test]
fn ten_thousand_endpoints_are_swapped_under_load_without_a_failed_choice() {
    let (_, _, chance) = seeded();
    for balance in ["p2c_ewma", "round_robin"] {
        let lines = format!("balance = \"{balance}\"");
        let pool = arc_swap::ArcSwap::from_pointee(pool(&set(0..10_000), &lines, &chance));
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let now = Instant::now();
                        let mut tried = Tried::default();
                        for _ in 0..3 {
                            let pool = pool.load_full();
                            let lease = pool.pick(&mut tried, WISH, now);
                            let lease = lease.expect("there is always an endpoint");
                            lease.record(Signal::Success, None, now);
                        }
                    }
                });
            }
            for round in 0..6 {
                // Half of them stay.
                let begin = round % 2 * 5_000;
                let next = pool.load_full().with(&set(begin..begin + 10_000));
                pool.store(Arc::new(next));
            }
            done.store(true, Ordering::Relaxed);
        });
        let pool = pool.load_full();
        assert_eq!(pool.urls().count(), 10_000);
        assert_eq!(pool.shared.in_flight.load(Ordering::Relaxed), 0);
    }
}

/// Picks until the endpoint with this number is chosen.
fn pick_number(pool: &Pool, number: usize, now: Instant) -> Lease<'_> {
    let url = format!("http://orders-{number}:8080");
    let picked = std::iter::repeat_with(|| pool.pick(&mut Tried::default(), WISH, now).unwrap());
    let mut few = picked.take(10_000);
    few.find(|lease| *lease.target.url == *url)
        .expect("it is chosen now and then")
}

fn shares(pool: &Pool, now: Instant) -> HashMap<String, usize> {
    let mut shares = HashMap::new();
    for _ in 0..1_000 {
        let lease = pool.pick(&mut Tried::default(), WISH, now).unwrap();
        *shares.entry(lease.target.url.to_string()).or_default() += 1;
    }
    shares
}

#[test]
fn the_worst_are_left_alone_but_never_too_many() {
    let lines = "balance = \"round_robin\"\nbreaker.consecutive = 1\nbreaker.open = \"5s\"";
    let pool = pool(&set(0..4), lines, &Rng::with_seed(1));
    let now = Instant::now();
    let fail = |number| pick_number(&pool, number, now).record(Signal::Failure, None, now);
    fail(0);
    assert_eq!(shares(&pool, now).len(), 3);
    fail(1);
    assert_eq!(shares(&pool, now).len(), 2);
    assert_eq!(pool.shared.outliers.ejected(), 2);
    // Now fewer than half are healthy: it is hardly the endpoints.
    fail(2);
    assert_eq!(pool.shared.outliers.ejected(), 2);
    assert!(pool.shared.outliers.is_panicking());
    assert_eq!(shares(&pool, now).len(), 4);
    // One recovers, and the two that were left alone are again.
    let later = now + Duration::from_secs(6);
    pick_number(&pool, 2, later).record(Signal::Success, None, later);
    assert!(!pool.shared.outliers.is_panicking());
    assert_eq!(pool.shared.outliers.ejected(), 2);
}

#[test]
fn a_repeat_goes_back_rather_than_to_one_that_is_left_alone() {
    for balance in [
        "p2c_ewma",
        "round_robin",
        "weighted",
        "random",
        "least_request",
        "ring_hash",
        "zone_aware",
    ] {
        let lines = format!("balance = \"{balance}\"\nbreaker.consecutive = 1");
        let pool = pool(&set(0..3), &lines, &Rng::with_seed(1));
        let now = Instant::now();
        let mut tried = Tried::default();
        pool.pick(&mut tried, WISH, now)
            .expect("all are healthy")
            .record(Signal::Failure, None, now);
        // That one is left alone now, and two are not.
        let ill = tried.ids[0];
        let mut tried = Tried::default();
        assert!(pool.has_other(&tried, now), "{balance}");
        for attempt in 0..6 {
            let lease = match attempt {
                0 | 2 | 4 => pool.pick(&mut tried, WISH, now),
                1 => pool.pick_other(&mut tried, WISH, now),
                _ => pool.pick_awake(&mut tried, WISH, now),
            };
            let lease = lease.expect("two are healthy");
            assert_ne!(Some(lease.target.id), ill, "{balance}, attempt {attempt}");
            assert_eq!(pool.has_other(&tried, now), attempt == 0, "{balance}");
        }
        assert_ne!(tried.ids[0], tried.ids[1], "{balance}");
        // It has been to both.
        assert!(pool.pick_other(&mut tried, WISH, now).is_none());
    }
}

#[test]
fn where_all_are_left_alone_a_call_goes_to_one_and_a_second_request_to_none() {
    let lines = "balance = \"round_robin\"\nbreaker.consecutive = 1\n\
                 ejection = { max_share = 1.0, panic = 0.0 }";
    let pool = pool(&set(0..2), lines, &Rng::with_seed(1));
    let now = Instant::now();
    for number in 0..2 {
        pick_number(&pool, number, now).record(Signal::Failure, None, now);
    }
    assert_eq!(pool.shared.outliers.ejected(), 2);
    let mut tried = Tried::default();
    assert!(pool.pick_awake(&mut tried, WISH, now).is_none());
    assert!(!pool.has_other(&tried, now));
    let one = pool.pick(&mut tried, WISH, now).unwrap().target.id;
    assert_ne!(pool.pick(&mut tried, WISH, now).unwrap().target.id, one);
    assert!(pool.pick(&mut tried, WISH, now).is_some());
}

#[test]
fn one_that_was_left_alone_is_tried_again_and_starts_slowly() {
    for balance in ["p2c_ewma", "round_robin", "least_request"] {
        let lines = format!("balance = \"{balance}\"\nbreaker.consecutive = 1");
        let pool = pool(&set(0..4), &lines, &Rng::with_seed(1));
        let now = Instant::now();
        for number in 0..4 {
            let lease = pick_number(&pool, number, now);
            lease.record(Signal::Success, None, now + Duration::from_millis(1));
        }
        pick_number(&pool, 3, now).record(Signal::Failure, None, now);
        assert_eq!(shares(&pool, now).get("http://orders-3:8080"), None);
        let later = now + Duration::from_secs(6);
        let probe = pick_number(&pool, 3, later);
        assert_eq!(
            shares(&pool, later).get("http://orders-3:8080"),
            None,
            "one probe"
        );
        probe.record(Signal::Success, None, later + Duration::from_millis(1));
        assert_eq!(pool.shared.outliers.ejected(), 0);
        let warmth = |now| pool.all[3].warmth(now);
        // The recovery is at the time of the clock, not of the test.
        assert!(warmth(Instant::now()) < 0.2, "{balance}");
        assert_eq!(warmth(Instant::now() + Duration::from_secs(11)), 1.0);
    }
}

#[test]
fn a_new_one_beside_others_starts_slowly_and_no_faster_than_they_are() {
    let pool = pool(&set(0..3), "", &Rng::with_seed(1));
    let now = Instant::now();
    for number in 0..3 {
        let lease = pick_number(&pool, number, now);
        lease.record(Signal::Success, None, now + Duration::from_millis(10));
    }
    let pool = pool.with(&set(0..4));
    let now = Instant::now();
    let costs: Vec<f64> = pool.all.iter().map(|member| member.cost(now)).collect();
    assert!(costs[..3].iter().all(|cost| *cost < 0.011), "{costs:?}");
    assert!(costs[3] > 0.05, "{costs:?}");
    assert!(pool.all[3].warmth(now) < 0.2);
    assert_eq!(pool.all[0].warmth(now), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_later_priority_stands_by_for_the_time_without_the_earlier() {
    let (_, _, chance) = seeded();
    let endpoint = |number: u16, priority| {
        let url = format!("http://orders-{number}:8080");
        Endpoint::parse(&url).unwrap().with_priority(priority)
    };
    // The addresses are in no order of priorities.
    let endpoints = [(0, 7), (1, 0), (2, 7), (3, 0), (4, 9)].map(|(n, p)| endpoint(n, p));
    let lines = "breaker.consecutive = 1\nbreaker.open = \"1h\"\nbreaker.open_max = \"1h\"";
    let pool = pool(&endpoints.into_iter().collect(), lines, &chance);
    let of = |signal: &dyn Fn(&str) -> Signal| {
        let mut asked = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let lease = pool.pick(&mut Tried::default(), WISH, Instant::now());
            let lease = lease.unwrap();
            let name = lease.target.url[14..15].to_owned();
            lease.record(signal(&name), None, Instant::now());
            asked.insert(name);
        }
        asked.into_iter().collect::<String>()
    };
    assert_eq!(of(&|_| Signal::Success), "13");
    // One of the two is enough.
    let fails = |name: &'static str| {
        move |one: &str| match one == name {
            true => Signal::Failure,
            false => Signal::Success,
        }
    };
    of(&fails("1"));
    assert_eq!(of(&|_| Signal::Success), "3");
    // A call that has been to it may go further, and so may all where there is none any more.
    let mut tried = Tried::default();
    let mut way = String::new();
    for _ in 0..2 {
        let lease = pool.pick(&mut tried, WISH, Instant::now()).unwrap();
        way.push_str(&lease.target.url[14..15]);
    }
    assert!(matches!(&*way, "30" | "32"), "{way}");
    of(&fails("3"));
    assert_eq!(of(&|_| Signal::Success), "02");
    of(&fails("0"));
    of(&fails("2"));
    assert_eq!(of(&|_| Signal::Success), "4");
    // When their circuits may be closed again, the first are asked first.
    tokio::time::advance(Duration::from_secs(3 * 3_600)).await;
    assert_eq!(of(&|_| Signal::Success), "13");
}
