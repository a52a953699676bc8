//! Models of the circuit breaker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use loom::thread;
use tokio::time::Instant;

use crate::breaker::{CircuitBreaker, CircuitBreakerOptions, CircuitState, Signal, Transition};
use crate::clock::Rng;

/// A breaker that opens for a second after so many failures, with the number of times it did.
fn breaker(consecutive: u32, probes: u32) -> (CircuitBreaker, Arc<AtomicUsize>) {
    let mut options = CircuitBreakerOptions::DEFAULT;
    options.consecutive = consecutive;
    options.open = Duration::from_secs(1);
    options.probes = probes;
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    let observe = move |change: Transition| {
        if change.to == CircuitState::Open {
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    (
        CircuitBreaker::observed(options, Rng::with_seed(7), observe),
        opened,
    )
}

/// One that is open; gives when it lets probes through.
fn open(probes: u32) -> (CircuitBreaker, Instant) {
    let (breaker, _) = breaker(1, probes);
    let now = Instant::now();
    breaker.acquire(now).unwrap().record(Signal::Failure, now);
    assert!(breaker.acquire(now).is_err());
    (breaker, now + Duration::from_secs(5))
}

pub(crate) fn probes() {
    let (breaker, later) = open(1);
    let others: Vec<_> = (0..2)
        .map(|_| {
            let breaker = breaker.clone();
            thread::spawn(move || breaker.acquire(later).ok())
        })
        .collect();
    let mut permits = vec![breaker.acquire(later).ok()];
    permits.extend(others.into_iter().map(|other| other.join().unwrap()));
    assert_eq!(permits.iter().flatten().count(), 1);
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    for permit in permits.into_iter().flatten() {
        permit.record(Signal::Success, later);
    }
    assert_eq!(breaker.state(), CircuitState::Closed);
}

pub(crate) fn dropped() {
    let (breaker, later) = open(1);
    let other = breaker.clone();
    let other = thread::spawn(move || {
        let permit = other.acquire(later);
        permit.is_ok()
    });
    let mine = breaker.acquire(later).map(drop);
    // One of the two went out at least, and neither is under way any more.
    assert!(other.join().unwrap() || mine.is_ok());
    let next = breaker.acquire(later).expect("the probe came back");
    assert!(breaker.acquire(later).is_err());
    next.record(Signal::Success, later);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

pub(crate) fn opens_once() {
    let (breaker, opened) = breaker(2, 1);
    let now = Instant::now();
    let other = breaker.clone();
    let other = thread::spawn(move || {
        if let Ok(permit) = other.acquire(now) {
            permit.record(Signal::Failure, now);
        }
    });
    for _ in 0..2 {
        if let Ok(permit) = breaker.acquire(now) {
            permit.record(Signal::Failure, now);
        }
    }
    other.join().unwrap();
    assert_eq!(opened.load(Ordering::Relaxed), 1);
    assert_eq!(breaker.state(), CircuitState::Open);
    assert!(breaker.acquire(now).is_err(), "what is fast agrees");
}

pub(crate) fn late() {
    let (breaker, _) = breaker(2, 1);
    let now = Instant::now();
    let permit = breaker.acquire(now).unwrap();
    let other = thread::spawn(move || permit.record(Signal::Failure, now));
    breaker.reset();
    other.join().unwrap();
    // Of the time after the reset this is the first.
    breaker.acquire(now).unwrap().record(Signal::Failure, now);
    assert_eq!(breaker.state(), CircuitState::Closed);
    breaker.acquire(now).unwrap().record(Signal::Failure, now);
    assert_eq!(breaker.state(), CircuitState::Open);
}

pub(crate) fn forced() {
    let (breaker, _) = breaker(1, 1);
    let now = Instant::now();
    let permit = breaker.acquire(now).unwrap();
    let other = thread::spawn(move || permit.record(Signal::Failure, now));
    breaker.force_open();
    other.join().unwrap();
    assert_eq!(breaker.state(), CircuitState::ForcedOpen);
    let later = now + Duration::from_secs(3_600);
    assert!(breaker.acquire(later).is_err());
}
