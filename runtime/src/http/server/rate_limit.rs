//! How many requests are taken.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{HeaderValue, RETRY_AFTER};
use http::{HeaderName, Request, Response, StatusCode};
use tower_layer::Layer;
use tower_service::Service;

use crate::resilience::RateLimiter;

use super::Answering;
use super::answer::problem;

/// Most values of a header that are counted apart.
const KEYS_MAX: u64 = 100_000;

/// Takes so many requests in a span of time, evenly spaced after a first burst, and answers 429 with
/// `Retry-After` to the others. Clones count together.
///
/// The limit is that of this process.
#[derive(Clone, Debug)]
pub struct RateLimitLayer(Arc<Limits>);

#[derive(Debug)]
struct Limits {
    count: u32,
    per: Duration,
    all: RateLimiter,
    by: Option<Keyed>,
}

#[derive(Debug)]
struct Keyed {
    header: HeaderName,
    limiters: moka::sync::Cache<HeaderValue, Arc<RateLimiter>>,
}

impl RateLimitLayer {
    /// At most `count` (at least 1) in each `per`.
    #[must_use]
    pub fn new(count: u32, per: Duration) -> Self {
        Self(Arc::new(Limits {
            count,
            per,
            all: RateLimiter::new(count, per),
            by: None,
        }))
    }

    /// At most `count` in each `per` for each value of this header: a tenant, or whoever the caller is.
    /// Requests without it count together. The values of the 100 000 that were seen last are told
    /// apart, so put it behind what checks the header.
    #[must_use]
    pub fn by_header(count: u32, per: Duration, header: HeaderName) -> Self {
        let limiters = moka::sync::Cache::builder()
            .max_capacity(KEYS_MAX)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            // Who has not come for so long starts afresh anyway.
            .time_to_idle(per.max(Duration::from_secs(1)))
            .build();
        Self(Arc::new(Limits {
            count,
            per,
            all: RateLimiter::new(count, per),
            by: Some(Keyed { header, limiters }),
        }))
    }
}

impl Limits {
    /// How long until it would be taken, if it is not now.
    fn take<I>(&self, request: &Request<I>) -> Result<(), Duration> {
        let keyed = self.by.as_ref().and_then(|keyed| {
            let value = request.headers().get(&keyed.header)?;
            let fresh = || Arc::new(RateLimiter::new(self.count, self.per));
            Some(keyed.limiters.get_with_by_ref(value, fresh))
        });
        match keyed {
            Some(limiter) => limiter.try_ready(),
            None => self.all.try_ready(),
        }
    }
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimitService<S>;

    fn layer(&self, inner: S) -> RateLimitService<S> {
        RateLimitService {
            inner,
            limits: Arc::clone(&self.0),
        }
    }
}

/// What [`RateLimitLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct RateLimitService<S> {
    inner: S,
    limits: Arc<Limits>,
}

impl<S, I, O> Service<Request<I>> for RateLimitService<S>
where
    S: Service<Request<I>, Response = Response<O>>,
    S::Future: Send + 'static,
    O: From<String> + Send + 'static,
{
    type Response = Response<O>;
    type Error = S::Error;
    type Future = Answering<Self::Response, Self::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<I>) -> Self::Future {
        let Err(wait) = self.limits.take(&request) else {
            return Box::pin(self.inner.call(request));
        };
        // The header has whole seconds; earlier would be in vain.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let detail = "more requests came than are taken";
        let mut response = problem(StatusCode::TOO_MANY_REQUESTS, detail);
        let after = HeaderValue::from(seconds.max(1));
        response.headers_mut().insert(RETRY_AFTER, after);
        Box::pin(async move { Ok(response) })
    }
}
