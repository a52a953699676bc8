//! Resilience: what keeps a fault small. Knows nothing of brokers or HTTP.

mod backoff;
mod balance;
mod breaker;
mod budget;
mod bulkhead;
mod hedging;
mod limiter;
mod load;
mod outliers;
#[cfg(all(feature = "http", feature = "redis"))]
mod redis;
mod sync;
mod usual;
mod window;

#[cfg(all(feature = "http", feature = "redis"))]
pub(crate) use self::redis::{Granted, NoTurn, SharedRateLimiter, SharedRateSettings, SharedTurn};
pub use backoff::{Backoff, Jitter};
pub use balance::{Candidate, LoadBalancer, PickContext, Picker, WEIGHT_MAX, hash_key};
pub use breaker::{
    Broken, CircuitBreaker, CircuitBreakerOpen, CircuitBreakerOptions, CircuitChanges,
    CircuitPermit, CircuitState, Signal, Transition,
};
pub use budget::RetryBudget;
pub use bulkhead::{Bulkhead, BulkheadFull, BulkheadPermit};
pub use hedging::HedgeBudget;
#[cfg(feature = "http")]
pub(crate) use limiter::Turn;
pub use limiter::{RateLimited, RateLimiter};
pub use load::Load;
pub use outliers::{EndpointHealth, OutlierOptions, Outliers};
pub use usual::UsualTime;
