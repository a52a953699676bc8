//! What the parts of a call's stack cost by themselves. None of them allocates, which is a test of its
//! own (`tests/tests/allocations.rs`).

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use interline::clock::Rng;
use interline::resilience::{
    Candidate, CircuitBreaker, CircuitBreakerOptions, HedgeBudget, Load, LoadBalancer, PickContext,
    Picker, RateLimiter, RetryBudget, Signal,
};
use tokio::time::Instant as Time;

use crate::Result;
use crate::rounds::Spread;

/// Endpoints to choose among.
const COUNTS: &[usize] = &[4, 100, 10_000];
/// As many threads as use a part at once in the last column.
const THREADS: usize = 2;

pub(crate) const TITLE: &str = "Parts: nanoseconds each";

/// Something that is done again and again.
struct Part {
    name: String,
    /// Does it so often.
    repeat: Box<dyn Fn(u64) + Sync>,
}

impl Part {
    fn new(name: impl Into<String>, once: impl Fn(u64) + Sync + 'static) -> Self {
        Self {
            name: name.into(),
            // The loop is on this side, so that no call through a pointer counts.
            repeat: Box::new(move |times| (0..times).for_each(&once)),
        }
    }

    /// Nanoseconds each, on so many threads at once.
    fn measure(&self, threads: usize, times: u64) -> f64 {
        let start = Barrier::new(threads);
        let worker = || {
            start.wait();
            let begun = Instant::now();
            (self.repeat)(times);
            begun.elapsed()
        };
        let took: Duration = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            let took = workers
                .into_iter()
                .map(|worker| worker.join().expect("no part panics"));
            took.max().unwrap_or_default()
        });
        #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
        let times = times as f64;
        took.as_secs_f64() * 1e9 / times
    }
}

/// An endpoint, as a pool of one's own would have it.
struct Member {
    name: String,
    load: Load,
    weight: u32,
    zone: &'static str,
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
        Some(self.zone)
    }
}

fn members(count: usize, now: Time) -> Vec<Member> {
    let member = |number: usize| {
        let load = Load::new(now);
        load.succeeded(Duration::from_millis(1 + number as u64 % 7), now);
        Member {
            name: format!("http://10.0.{}.{}:8080", number / 250, number % 250),
            load,
            weight: 1 + u32::try_from(number % 3).unwrap_or_default(),
            zone: ["a", "b", "c"][number % 3],
        }
    };
    (0..count).map(member).collect()
}

fn pick(balancer: LoadBalancer, name: &str, count: usize, now: Time) -> Part {
    let members = members(count, now);
    let picker = Picker::new(balancer, &members, &Rng::with_seed(1));
    Part::new(format!("pick, `{name}`, of {count}"), move |n| {
        let context = PickContext {
            hash: Some(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            zone: Some("b"),
            ..PickContext::at(now)
        };
        black_box(picker.pick(&members, &context, |_| true));
    })
}

fn parts() -> Result<Vec<Part>> {
    let now = Time::now();
    let mut parts = vec![Part::new("the clock, to compare with", |_| {
        black_box(Instant::now());
    })];
    for name in LoadBalancer::NAMES {
        let balancer = LoadBalancer::named(name).ok_or("a name without a balancer")?;
        parts.extend(COUNTS.iter().map(|count| pick(balancer, name, *count, now)));
    }
    let breaker = CircuitBreaker::new(CircuitBreakerOptions::DEFAULT);
    parts.push(Part::new("circuit breaker: permit and result", move |_| {
        if let Ok(permit) = breaker.acquire(black_box(now)) {
            permit.record(Signal::Success, now);
        }
    }));
    let open = CircuitBreaker::new(CircuitBreakerOptions::DEFAULT);
    open.force_open();
    parts.push(Part::new("circuit breaker: refusal", move |_| {
        let _ = black_box(open.acquire(black_box(now)));
    }));
    let budget = RetryBudget::new(0.2, 3);
    parts.push(Part::new("retry budget: a call", move |_| {
        budget.deposit(black_box(now));
    }));
    let budget = RetryBudget::new(0.2, 3);
    parts.push(Part::new(
        "retry budget: a repeat is asked for",
        move |_| {
            let _ = black_box(budget.withdraw(black_box(now)));
        },
    ));
    let hedges = HedgeBudget::new(0.05);
    parts.push(Part::new("hedge budget: a success", move |_| {
        black_box(&hedges).succeeded();
    }));
    let limiter = RateLimiter::new(1_000_000_000, Duration::from_secs(1));
    parts.push(Part::new("rate limiter: admitted", move |_| {
        let _ = black_box(limiter.admit(black_box(now)));
    }));
    let limiter = RateLimiter::new(1, Duration::from_secs(3_600));
    parts.push(Part::new("rate limiter: refused", move |_| {
        let _ = black_box(limiter.admit(black_box(now)));
    }));
    Ok(parts)
}

/// Measures all parts in turn, so often in each of so many rounds, and prints the table.
pub(crate) fn run(rounds: usize, times: u64) -> Result<()> {
    let parts = parts()?;
    let mut alone = vec![Vec::new(); parts.len()];
    let mut beside = vec![Vec::new(); parts.len()];
    for _ in 0..rounds {
        for (at, part) in parts.iter().enumerate() {
            alone[at].push(part.measure(1, times));
            beside[at].push(part.measure(THREADS, times));
        }
    }
    println!("### {TITLE}, {times} times in each of {rounds} rounds\n");
    println!("| part | ns | min-max | on {THREADS} threads at once | min-max |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for ((part, alone), beside) in parts.iter().zip(alone).zip(beside) {
        let (alone, beside) = (
            Spread::of(alone.into_iter()),
            Spread::of(beside.into_iter()),
        );
        println!(
            "| {} | {:.1} | {:.1}-{:.1} | {:.1} | {:.1}-{:.1} |",
            part.name, alone.median, alone.min, alone.max, beside.median, beside.min, beside.max
        );
    }
    println!();
    Ok(())
}
