//! The parts of a client's stack that every call passes allocate nothing: the choice of an endpoint,
//! circuit breakers, budgets, and the rate limiter.
//!
//! The allocator counts by thread, so what other tests do beside does not show.

use std::hint::black_box;
use std::time::Duration;

use allocation_counter::measure;
use interline::clock::Rng;
use interline::prelude::*;
use interline::resilience::{
    Bulkhead, Candidate, CircuitBreaker, CircuitBreakerOptions, CircuitState, HedgeBudget, Load,
    LoadBalancer, PickContext, Picker, RateLimiter, RetryBudget, Signal,
};
use tokio::time::Instant;

const TIMES: u64 = 1_000;

/// How many allocations `repeated` makes, done again and again.
fn allocations(mut repeated: impl FnMut(u64)) -> u64 {
    measure(|| (0..TIMES).for_each(&mut repeated)).count_total
}

#[test]
fn the_counter_sees_what_is_allocated() {
    let boxed = allocations(|n| drop(black_box(Box::new(n))));
    assert_eq!(boxed, TIMES);
}

struct Member {
    name: String,
    load: Load,
    zone: Option<&'static str>,
}

impl Candidate for Member {
    fn name(&self) -> &str {
        &self.name
    }

    fn load(&self) -> &Load {
        &self.load
    }

    fn weight(&self) -> u32 {
        1 + self.name.len() as u32 % 3
    }

    fn zone(&self) -> Option<&str> {
        self.zone
    }

    fn warmth(&self, _: Instant) -> f64 {
        if self.name.ends_with('7') { 0.1 } else { 1.0 }
    }
}

#[test]
fn no_balancer_allocates_when_it_picks() {
    let now = Instant::now();
    for count in [1, 4, 100, 10_000] {
        let member = |number: usize| Member {
            name: format!("http://orders-{number}:8080"),
            load: Load::new(now),
            zone: [None, Some("a"), Some("b")][number % 3],
        };
        let members: Vec<_> = (0..count).map(member).collect();
        for name in LoadBalancer::NAMES {
            let balancer = LoadBalancer::named(name).expect("a name of the list");
            let picker = Picker::new(balancer, &members, &Rng::with_seed(1));
            let mut picked = 0;
            let made = allocations(|n| {
                let context = PickContext {
                    hash: (n % 4 != 0).then_some(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
                    zone: [None, Some("a"), Some("nowhere")][n as usize % 3],
                    in_flight: count,
                    ..PickContext::at(now)
                };
                // Every second one is not usable, now these and now those.
                let usable = |at: usize| count == 1 || !(at as u64 + n).is_multiple_of(2);
                if let Some(at) = picker.pick(&members, &context, usable) {
                    members[at].load.begin();
                    members[at]
                        .load
                        .succeeded(Duration::from_millis(n % 9), now);
                    members[at].load.end();
                    picked += 1;
                }
            });
            assert_eq!((made, picked), (0, TIMES), "{name} of {count}");
        }
    }
}

#[test]
fn no_circuit_breaker_allocates_in_any_state() {
    let now = Instant::now();
    let breaker = CircuitBreaker::new(CircuitBreakerOptions::DEFAULT);
    let signals = [
        Signal::Success,
        Signal::Failure,
        Signal::Refused,
        Signal::Ignored,
    ];
    let closed = allocations(|n| {
        let permit = breaker.acquire(now).expect("one in sixteen fails");
        let signal = if n % 16 == 0 {
            signals[n as usize / 16 % 4]
        } else {
            Signal::Success
        };
        permit.record(signal, now);
        drop(breaker.acquire(now));
    });
    assert_eq!((closed, breaker.state()), (0, CircuitState::Closed));
    let mut now = now;
    let around = allocations(|_| {
        while let Ok(permit) = breaker.acquire(now) {
            permit.record(Signal::Failure, now);
        }
        assert!(breaker.is_open(now) && breaker.acquire(now).is_err());
        now += CircuitBreakerOptions::DEFAULT.open_max * 2;
        while breaker.state() != CircuitState::Closed {
            let probe = breaker.acquire(now).expect("its time is over");
            probe.record(Signal::Success, now);
        }
    });
    assert_eq!(around, 0);
}

#[test]
fn no_budget_allocates() {
    let base = Instant::now();
    let (retries, hedges) = (RetryBudget::new(0.2, 3), HedgeBudget::new(0.05));
    let (mut granted, mut refused) = (0, 0);
    let made = allocations(|n| {
        // Over many turns of the window.
        let now = base + Duration::from_millis(n * 50);
        retries.deposit(now);
        for allowed in [retries.withdraw(now), hedges.withdraw()] {
            *(if allowed { &mut granted } else { &mut refused }) += 1;
        }
        hedges.succeeded();
    });
    assert_eq!(made, 0);
    assert!(granted > 0 && refused > 0, "{granted} {refused}");
}

#[test]
fn no_limit_allocates() {
    let base = Instant::now();
    let limiter = RateLimiter::new(10, Duration::from_secs(1));
    let (mut admitted, mut refused) = (0, 0);
    let made = allocations(
        |n| match limiter.admit(base + Duration::from_millis(n * 10)) {
            Ok(()) => admitted += 1,
            Err(_) => refused += 1,
        },
    );
    assert_eq!(made, 0);
    assert!(admitted > 0 && refused > 0, "{admitted} {refused}");

    let bulkhead = Bulkhead::new(2, 0);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime without threads");
    let made = allocations(|_| {
        runtime.block_on(async {
            let one = bulkhead.enter(base).await;
            let two = bulkhead.enter(base).await;
            assert!(one.is_ok() && two.is_ok() && bulkhead.enter(base).await.is_err());
        });
    });
    assert_eq!(made, 0);
}

/// The choice as calls make it: the snapshot of the endpoints, the balancer, the endpoint's circuit.
#[tokio::test]
async fn no_client_allocates_when_it_chooses_an_endpoint() {
    for count in [1, 4, 1_000] {
        let urls: Vec<_> = (0..count)
            .map(|number| format!("http://10.0.0.1:{}", 1 + number))
            .collect();
        for name in LoadBalancer::NAMES {
            let toml = format!("[services.orders]\nurls = {urls:?}\nbalance = \"{name}\"");
            let config = Config::from_toml("interline.toml", &toml).expect("TOML");
            let app = App::new(config.with("service.name", "till"));
            let running = app.named_only().publish_only().launch().await;
            let running = running.expect("a sound wiring");
            let orders = running
                .manager()
                .http_client("orders")
                .expect("it is configured");
            let made = allocations(|_| {
                black_box(orders.endpoint().expect("there is one"));
            });
            assert_eq!(made, 0, "{name} of {count}");
            running.stop_within(Duration::from_secs(30)).await;
        }
    }
}
