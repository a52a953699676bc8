//! Models of the rate limiter.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;
use tokio::time::Instant;

use crate::limiter::RateLimiter;

pub(crate) fn starts() {
    let limiter = Arc::new(RateLimiter::new(2, Duration::from_secs(1)));
    let now = Instant::now();
    let others: Vec<_> = (0..2)
        .map(|_| {
            let limiter = Arc::clone(&limiter);
            thread::spawn(move || limiter.admit(now).is_ok())
        })
        .collect();
    let mut admitted = usize::from(limiter.admit(now).is_ok());
    for other in others {
        admitted += usize::from(other.join().unwrap());
    }
    assert_eq!(admitted, 2);
}
