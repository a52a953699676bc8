//! The layers of tower-resilience around reqwest.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tower::{Layer, Service, ServiceExt};
use tower_resilience::bulkhead::{Bulkhead, BulkheadLayer};
use tower_resilience::circuitbreaker::{CircuitBreaker, CircuitBreakerLayer, DefaultClassifier};
use tower_resilience::retry::{Retry, RetryLayer};
use tower_resilience::timelimiter::{FixedTimeout, TimeLimiter, TimeLimiterLayer};

use crate::Result;
use crate::rows::CALL_LIMIT;

/// A time limit around a bulkhead around a circuit breaker around repeats: what Interline has, in the
/// same order, with its numbers where there is a setting for them.
pub(crate) struct Layered(Limited);

type Repeated = Retry<Fetch, String, Bytes, Failed>;
type Limited = TimeLimiter<Bulkhead<CircuitBreaker<Repeated, DefaultClassifier>>, FixedTimeout>;

impl Layered {
    pub(crate) fn new(client: reqwest::Client) -> Result<Self> {
        let repeats = RetryLayer::<String, Bytes, Failed>::builder()
            .max_attempts(3)
            .exponential_backoff(Duration::from_millis(50))
            .build();
        let breaker = CircuitBreakerLayer::builder()
            .failure_rate_threshold(0.5)
            .sliding_window_size(100)
            .build()?;
        let bulkhead = BulkheadLayer::builder()
            .max_concurrent_calls(256)
            .max_wait_duration(CALL_LIMIT)
            .build()?;
        let limit = TimeLimiterLayer::builder()
            .timeout_duration(CALL_LIMIT)
            .build();
        let service = breaker.layer(repeats.layer(Fetch(client)));
        Ok(Self(limit.layer(bulkhead.layer(service))))
    }

    /// The body of a success.
    pub(crate) async fn get(&self, url: String) -> Result<Bytes> {
        let mut service = self.0.clone();
        Ok(service.ready().await?.call(url).await?)
    }
}

/// reqwest as a service. The request is an address and not one of reqwest's, because repeats need one
/// that can be copied.
#[derive(Clone)]
struct Fetch(reqwest::Client);

/// Why an attempt failed; repeats need one that can be copied.
#[derive(Clone, Debug)]
struct Failed(Arc<reqwest::Error>);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failed {}

impl From<reqwest::Error> for Failed {
    fn from(error: reqwest::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl Service<String> for Fetch {
    type Response = Bytes;
    type Error = Failed;
    type Future = BoxFuture<'static, Result<Bytes, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: String) -> Self::Future {
        let sending = self.0.get(url).send();
        Box::pin(async move { Ok(sending.await?.error_for_status()?.bytes().await?) })
    }
}
