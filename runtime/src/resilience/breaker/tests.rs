use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn options() -> CircuitBreakerOptions {
    CircuitBreakerOptions {
        consecutive: 3,
        failure_rate: 0.5,
        slow_call: Some(100 * MS),
        slow_rate: 0.8,
        minimum_calls: 10,
        window: Duration::from_secs(1),
        open: 1_000 * MS,
        open_max: 4_000 * MS,
        probes: 2,
        probe_wait: 3_000 * MS,
    }
}

/// A breaker with the states that it went to.
fn observed(options: CircuitBreakerOptions) -> (CircuitBreaker, Arc<Mutex<Vec<CircuitState>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let breaker = CircuitBreaker::observed(options, Rng::with_seed(1), move |change| {
        assert_ne!(change.from, change.to);
        sink.lock().unwrap().push(change.to);
    });
    (breaker, seen)
}

fn run(breaker: &CircuitBreaker, signal: Signal, now: Instant) -> bool {
    match breaker.acquire(now) {
        Ok(permit) => {
            permit.record(signal, now);
            true
        }
        Err(_) => false,
    }
}

#[test]
fn failures_in_a_row_open_it_and_probes_close_it() {
    let (breaker, seen) = observed(options());
    let now = Instant::now();
    assert!(run(&breaker, Signal::Failure, now));
    assert!(run(&breaker, Signal::Failure, now));
    assert!(run(&breaker, Signal::Success, now));
    for _ in 0..3 {
        assert_eq!(breaker.state(), CircuitState::Closed);
        assert!(run(&breaker, Signal::Failure, now));
    }
    assert_eq!(breaker.state(), CircuitState::Open);
    let refused = breaker.acquire(now).unwrap_err();
    let wait = refused.retry_after.unwrap();
    assert!((1_000 * MS..=1_100 * MS).contains(&wait), "{wait:?}");
    assert!(breaker.is_open(now));
    assert!(!run(&breaker, Signal::Success, now + wait - MS));

    let now = now + wait;
    assert!(!breaker.is_open(now));
    let one = breaker.acquire(now).unwrap();
    let two = breaker.acquire(now).unwrap();
    assert!(breaker.acquire(now).is_err(), "no more probes than two");
    one.record(Signal::Success, now);
    assert!(
        breaker.acquire(now).is_err(),
        "one has passed, one is on its way"
    );
    two.record(Signal::Success, now);
    assert_eq!(breaker.state(), CircuitState::Closed);
    assert_eq!(
        *seen.lock().unwrap(),
        [
            CircuitState::Open,
            CircuitState::HalfOpen,
            CircuitState::Closed
        ]
    );
}

#[test]
fn a_share_of_failures_opens_it_though_never_in_a_row() {
    let mut options = options();
    options.slow_call = None;
    let breaker = CircuitBreaker::new(options);
    let now = Instant::now();
    for call in 0..10 {
        assert_eq!(breaker.state(), CircuitState::Closed, "{call}");
        let signal = if call % 2 == 1 {
            Signal::Failure
        } else {
            Signal::Success
        };
        assert!(run(&breaker, signal, now));
    }
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[test]
fn refusals_count_for_the_share_and_not_in_a_row() {
    let mut options = options();
    options.minimum_calls = 10;
    let breaker = CircuitBreaker::new(options);
    let now = Instant::now();
    for _ in 0..9 {
        assert!(run(&breaker, Signal::Refused, now));
    }
    assert_eq!(breaker.state(), CircuitState::Closed);
    assert!(run(&breaker, Signal::Refused, now));
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[test]
fn slow_calls_open_it_though_they_succeed() {
    let breaker = CircuitBreaker::new(options());
    let now = Instant::now();
    for call in 0..10 {
        let permit = breaker.acquire(now).unwrap();
        let took = if call < 2 { 99 * MS } else { 100 * MS };
        permit.record(Signal::Success, now + took);
    }
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[test]
fn each_failed_probe_doubles_the_wait_up_to_a_limit() {
    let breaker = CircuitBreaker::new(options());
    let mut now = Instant::now();
    (0..3).for_each(|_| assert!(run(&breaker, Signal::Failure, now)));
    for least in [1_000, 2_000, 4_000, 4_000] {
        let wait = breaker.acquire(now).unwrap_err().retry_after.unwrap();
        assert!(
            (least * MS..=least * MS + least * MS / 10).contains(&wait),
            "{wait:?}"
        );
        now += wait;
        assert!(run(&breaker, Signal::Failure, now));
    }
    // A long good time begins anew.
    let wait = breaker.acquire(now).unwrap_err().retry_after.unwrap();
    now += wait;
    (0..2).for_each(|_| assert!(run(&breaker, Signal::Success, now)));
    now += 4_000 * MS;
    (0..3).for_each(|_| assert!(run(&breaker, Signal::Failure, now)));
    let wait = breaker.acquire(now).unwrap_err().retry_after.unwrap();
    assert!(wait <= 1_100 * MS, "{wait:?}");
}

#[test]
fn a_dropped_or_ignored_probe_gives_its_place_back() {
    let breaker = CircuitBreaker::new(options());
    let now = Instant::now();
    (0..3).for_each(|_| assert!(run(&breaker, Signal::Failure, now)));
    let now = now + 1_100 * MS;
    for round in 0..1_000 {
        let one = breaker.acquire(now).unwrap();
        let two = breaker.acquire(now).unwrap();
        assert!(breaker.acquire(now).is_err());
        if round % 2 == 0 {
            drop(one);
        } else {
            one.record(Signal::Ignored, now);
        }
        drop(two);
    }
    (0..2).for_each(|_| assert!(run(&breaker, Signal::Success, now)));
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[test]
fn probes_that_nobody_answers_are_given_up() {
    let breaker = CircuitBreaker::new(options());
    let now = Instant::now();
    (0..3).for_each(|_| assert!(run(&breaker, Signal::Failure, now)));
    let now = now + 1_100 * MS;
    let lost = [breaker.acquire(now).unwrap(), breaker.acquire(now).unwrap()];
    assert!(breaker.acquire(now + 2_999 * MS).is_err());
    let now = now + 3_000 * MS;
    (0..2).for_each(|_| assert!(run(&breaker, Signal::Success, now)));
    assert_eq!(breaker.state(), CircuitState::Closed);
    // What comes back from them at last is of no interest.
    for permit in lost {
        permit.record(Signal::Failure, now);
    }
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[test]
fn results_of_before_a_change_are_not_counted() {
    let breaker = CircuitBreaker::new(options());
    let now = Instant::now();
    let late: Vec<_> = (0..50).map(|_| breaker.acquire(now).unwrap()).collect();
    (0..3).for_each(|_| assert!(run(&breaker, Signal::Failure, now)));
    let now = now + 1_100 * MS;
    (0..2).for_each(|_| assert!(run(&breaker, Signal::Success, now)));
    for permit in late {
        permit.record(Signal::Failure, now);
    }
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[test]
fn somebody_can_open_and_close_it_by_hand() {
    let (breaker, seen) = observed(options());
    let now = Instant::now();
    breaker.force_open();
    assert_eq!(breaker.acquire(now).unwrap_err().retry_after, None);
    breaker.force_closed();
    (0..100).for_each(|_| assert!(run(&breaker, Signal::Failure, now)));
    assert_eq!(breaker.state(), CircuitState::ForcedClosed);
    breaker.reset();
    (0..3).for_each(|_| assert!(run(&breaker, Signal::Failure, now)));
    assert_eq!(breaker.state(), CircuitState::Open);
    assert_eq!(
        *seen.lock().unwrap(),
        [
            CircuitState::ForcedOpen,
            CircuitState::ForcedClosed,
            CircuitState::Closed,
            CircuitState::Open
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_says_nothing() {
    let mut options = options();
    options.consecutive = 1;
    let breaker = CircuitBreaker::new(options);
    for _ in 0..100 {
        let hangs = breaker.call(std::future::pending::<Result<(), ()>>());
        assert!(tokio::time::timeout(MS, hangs).await.is_err());
    }
    let judged = breaker.call_judged(async { Err::<(), _>(404) }, |result| match result {
        Err(404) => Signal::Ignored,
        _ => Signal::Failure,
    });
    assert_eq!(judged.await, Err(Broken::Failed(404)));
    assert_eq!(breaker.state(), CircuitState::Closed);
    assert_eq!(
        breaker.call(async { Err::<(), _>(1) }).await,
        Err(Broken::Failed(1))
    );
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[test]
fn a_probe_whose_failure_another_call_finds_out_opens_the_circuit_again() {
    let (breaker, seen) = observed(CircuitBreakerOptions {
        probes: 1,
        ..options()
    });
    let mut now = Instant::now();
    for _ in 0..3 {
        assert!(run(&breaker, Signal::Failure, now));
    }
    now += 10_000 * MS;
    let probe = breaker.acquire(now).expect("a probe");
    now += 100 * MS;
    breaker.found_failing(now);
    assert_eq!(breaker.state(), CircuitState::Open);
    // What was given up says nothing about the circuit that it opened.
    drop(probe);
    assert!(breaker.is_open(now));
    let states = [
        CircuitState::Open,
        CircuitState::HalfOpen,
        CircuitState::Open,
    ];
    assert_eq!(*seen.lock().unwrap(), states);
}

#[test]
fn a_stampede_at_the_instant_of_half_open_gets_two_probes() {
    let breaker = CircuitBreaker::new(options());
    let now = Instant::now();
    (0..3).for_each(|_| assert!(run(&breaker, Signal::Failure, now)));
    let now = now + 1_100 * MS;
    let through = AtomicUsize::new(0);
    let permits = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..125 {
                    if let Ok(permit) = breaker.acquire(now) {
                        through.fetch_add(1, Ordering::Relaxed);
                        permits.lock().unwrap().push(permit);
                    }
                }
            });
        }
    });
    assert_eq!(through.into_inner(), 2);
}

/// The breaker as one would write it without regard to cost: all results in a list.
struct Model {
    options: CircuitBreakerOptions,
    state: CircuitState,
    calls: VecDeque<(u64, bool)>,
    in_a_row: u32,
    until: u64,
    passed: u32,
}

impl Model {
    fn call(&mut self, at: u64, failed: bool) -> bool {
        match self.state {
            CircuitState::Open if at < self.until => return false,
            CircuitState::Open => {
                self.state = CircuitState::HalfOpen;
                self.passed = 0;
            }
            _ => {}
        }
        if self.state == CircuitState::HalfOpen {
            if failed {
                self.state = CircuitState::Open;
            } else {
                self.passed += 1;
                if self.passed == self.options.probes {
                    self.state = CircuitState::Closed;
                    self.calls.clear();
                    self.in_a_row = 0;
                }
            }
            return true;
        }
        self.calls.push_back((at, failed));
        self.in_a_row = if failed { self.in_a_row + 1 } else { 0 };
        let recent = self
            .calls
            .iter()
            .filter(|(then, _)| at / 100 - then / 100 < 10);
        let (count, bad) = recent.fold((0, 0), |(count, bad), (_, failed)| {
            (count + 1, bad + u32::from(*failed))
        });
        let share = f64::from(bad) / f64::from(count) >= self.options.failure_rate;
        if failed
            && (self.in_a_row >= self.options.consecutive
                || count >= self.options.minimum_calls && share)
        {
            self.state = CircuitState::Open;
        }
        true
    }
}

#[test]
fn it_does_what_a_plain_model_does() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..200 {
        let mut options = options();
        options.slow_call = None;
        options.consecutive = rng.u32(2..6);
        options.minimum_calls = rng.u32(3..15);
        options.probes = rng.u32(1..4);
        options.probe_wait = Duration::from_secs(1 << 30);
        let breaker = CircuitBreaker::new(options);
        let base = Instant::now();
        // The breaker was made a moment before, and its pieces of time count from then.
        let base = base + Duration::from_micros(1);
        let mut model = Model {
            options,
            state: CircuitState::Closed,
            calls: VecDeque::new(),
            in_a_row: 0,
            until: 0,
            passed: 0,
        };
        let failing = rng.f64() * 0.8;
        let mut at = 50;
        for step in 0..500 {
            // In the middle of a tenth of a second, so that the moment between does not matter.
            at += if rng.u8(..) < 20 {
                rng.u64(..30) * 100
            } else {
                100 * rng.u64(..2)
            };
            let now = base + Duration::from_millis(at);
            let failed = rng.f64() < failing;
            let signal = if failed {
                Signal::Failure
            } else {
                Signal::Success
            };
            let was_open = breaker.state() == CircuitState::Open;
            if was_open && model.state == CircuitState::Open {
                let wait = breaker.acquire(now).err().and_then(|open| open.retry_after);
                // The wait has chance in it, which the model takes over.
                model.until = wait.map_or(0, |wait| at + wait.as_millis() as u64 + 1);
            }
            let (ours, models) = (run(&breaker, signal, now), model.call(at, failed));
            assert_eq!(ours, models, "step {step} at {at}");
            assert_eq!(breaker.state(), model.state, "step {step} at {at}");
        }
    }
}

#[test]
fn a_time_may_be_longer_than_the_clock_goes() {
    let options = CircuitBreakerOptions {
        consecutive: 1,
        open: Duration::MAX,
        open_max: Duration::MAX,
        ..CircuitBreakerOptions::DEFAULT
    };
    let now = Instant::now();
    let breaker = CircuitBreaker::new(options);
    breaker.acquire(now).unwrap().record(Signal::Failure, now);
    let day = now + Duration::from_secs(86_400);
    assert!(breaker.is_open(day));
    let breaker = CircuitBreaker::new(CircuitBreakerOptions::DEFAULT);
    breaker.open_for(Duration::MAX, now);
    assert!(breaker.is_open(day));
    let options = CircuitBreakerOptions {
        consecutive: 1,
        probe_wait: Duration::MAX,
        ..CircuitBreakerOptions::DEFAULT
    };
    let breaker = CircuitBreaker::new(options);
    breaker.acquire(now).unwrap().record(Signal::Failure, now);
    let probe = breaker.acquire(day).unwrap();
    assert!(breaker.is_open(day), "one probe at a time");
    probe.record(Signal::Success, day);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test]
async fn whoever_listens_hears_every_change_and_the_end() {
    let breaker = CircuitBreaker::new(CircuitBreakerOptions {
        consecutive: 1,
        ..CircuitBreakerOptions::DEFAULT
    });
    let now = Instant::now();
    breaker.force_open();
    breaker.reset();
    // From now on, and each of them all.
    let (mut one, mut other) = (breaker.subscribe(), breaker.subscribe());
    breaker.acquire(now).unwrap().record(Signal::Failure, now);
    let later = now + Duration::from_secs(60);
    breaker
        .acquire(later)
        .unwrap()
        .record(Signal::Success, later);
    use CircuitState::{Closed, HalfOpen, Open};
    for changes in [&mut one, &mut other] {
        for (from, to) in [(Closed, Open), (Open, HalfOpen), (HalfOpen, Closed)] {
            assert_eq!(changes.next().await, Some(Transition { from, to }));
        }
    }
    for _ in 0..20 {
        breaker.force_open();
        breaker.reset();
    }
    drop(breaker);
    let mut heard = 0;
    while one.next().await.is_some() {
        heard += 1;
    }
    assert_eq!(heard, 16, "who is slow loses the oldest");
}
