//! Resilience: what keeps a fault small. Knows nothing of brokers or HTTP.

mod limiter;

pub use limiter::RateLimiter;
