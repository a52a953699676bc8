//! Calls that are given up at any point on their way.

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::resilience::{
    Bulkhead, CircuitBreaker, CircuitBreakerOptions, RateLimiter, RetryBudget, Signal,
};

use super::tests::{WISH, pool, seeded, set};
use super::*;

const CALLS: usize = 100_000;
const TASKS: usize = 20;

/// What a call holds on its way, in the order of the stack.
struct Way {
    bulkhead: Bulkhead,
    breaker: CircuitBreaker,
    limiter: RateLimiter,
    budget: RetryBudget,
    pool: Pool,
}

impl Way {
    /// A call with up to three attempts, each of which waits at every point where one can.
    async fn call(&self, rng: &mut fastrand::Rng) {
        let deadline = Instant::now() + Duration::from_millis(200);
        let Ok(_place) = self.bulkhead.enter(deadline).await else {
            return;
        };
        let Ok(permit) = self.breaker.acquire(Instant::now()) else {
            sleep(micros(rng, 2_000)).await;
            return;
        };
        let mut tried = Tried::default();
        let mut signal = Signal::Ignored;
        self.budget.deposit(Instant::now());
        for _ in 0..3 {
            if self.limiter.ready_by(deadline).await.is_err() {
                break;
            }
            let lease = self.pool.pick(&mut tried, WISH, Instant::now());
            let lease = lease.expect("there is an endpoint");
            sleep(micros(rng, 5_000)).await;
            signal = match rng.u8(..10) {
                0..4 => Signal::Failure,
                4 => Signal::Refused,
                5 => Signal::Ignored,
                _ => Signal::Success,
            };
            lease.record(signal, None, Instant::now());
            if signal == Signal::Success || !self.budget.withdraw(Instant::now()) {
                break;
            }
            sleep(micros(rng, 3_000)).await;
        }
        permit.record(signal, Instant::now());
    }
}

fn micros(rng: &mut fastrand::Rng, most: u64) -> Duration {
    Duration::from_micros(rng.u64(..most))
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_dropped_calls_leave_nothing_taken() {
    let (seed, _, chance) = seeded();
    let mut options = CircuitBreakerOptions::DEFAULT;
    // So that it is half-open, where a permit is one of few, most of the time.
    options.consecutive = 3;
    options.open = Duration::from_millis(2);
    options.open_max = Duration::from_millis(10);
    options.probes = 3;
    // Longer than the test: no probe comes back because it was given up for lost.
    options.probe_wait = Duration::from_secs(1_000_000);
    let lines = "breaker.consecutive = 2\nbreaker.open = \"3ms\"\nbreaker.open_max = \"9ms\"\n\
                 breaker.probe_wait = \"300000h\"\nslow_start = \"5ms\"";
    let way = Arc::new(Way {
        bulkhead: Bulkhead::new(8, 8),
        breaker: CircuitBreaker::observed(options, chance.clone(), |_| {}),
        limiter: RateLimiter::new(4_000, Duration::from_secs(1)).with_burst(20),
        budget: RetryBudget::new(0.5, 100),
        pool: pool(&set(0..6), lines, &chance),
    });
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let way = Arc::clone(&way);
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_add(task as u64));
        tasks.spawn(async move {
            let mut dropped = 0;
            for _ in 0..CALLS / TASKS {
                let patience = micros(&mut rng, 9_000);
                dropped += usize::from(timeout(patience, way.call(&mut rng)).await.is_err());
            }
            dropped
        });
    }
    let dropped: usize = tasks.join_all().await.into_iter().sum();
    println!("{dropped} of {CALLS} calls were given up");
    assert!(dropped > CALLS / 10, "{dropped}");

    // Every place of the bulkhead is there, and the line before it is empty.
    let soon = Instant::now() + Duration::from_secs(1);
    let mut places = Vec::new();
    for _ in 0..8 {
        places.push(way.bulkhead.enter(soon).await.expect("a place"));
    }
    let mut line = JoinSet::new();
    for _ in 0..8 {
        let way = Arc::clone(&way);
        line.spawn(async move { way.bulkhead.enter(soon).await.is_ok() });
    }
    drop(places);
    let entered = line.join_all().await;
    assert_eq!(entered, [true; 8]);
    // No attempt is counted as being on its way.
    let Pool { all, shared, .. } = &way.pool;
    assert_eq!(shared.in_flight.load(Ordering::Relaxed), 0);
    for member in all {
        assert_eq!(member.target.load.in_flight(), 0);
    }
    // Every circuit, however it stands, can be probed as often as it may and closes by that.
    let breakers = all
        .iter()
        .filter_map(|member| member.target.breaker.as_ref());
    for breaker in breakers.chain([&way.breaker]) {
        let later = Instant::now() + Duration::from_secs(100);
        for _ in 0..4 {
            let permit = breaker.acquire(later).expect("a probe that is free");
            permit.record(Signal::Success, later);
        }
        assert_eq!(breaker.state(), crate::resilience::CircuitState::Closed);
    }
    assert_eq!(shared.outliers.ejected(), 0);
    assert!(!shared.outliers.is_panicking());
}
