//! Deadline, trace and correlation of a request, for what is done to answer it.

use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use tokio::time::{Instant, timeout_at};
use tower_layer::Layer;
use tower_service::Service;
use tracing::Instrument;

use crate::clock::Rng;
use crate::message::headers::name;

use super::super::context::RequestContext;
use super::super::stack::TIMEOUT;
use super::Answering;
use super::answer::problem;

static CORRELATION_ID: HeaderName = HeaderName::from_static(name::CORRELATION_ID);

/// Takes deadline, trace and correlation from each request, and passes them on to the calls of other
/// services that are made to answer it; trace and correlation also to the messages that are published.
/// Calls for a request that is a repeat (`x-attempt` above 1) are tried once.
///
/// The deadline is what `x-timeout-ms` leaves, and at most [`timeout`](Self::timeout); when it is over
/// the answer is 504, and what was being done is dropped. A request that comes too late is not handled
/// at all. The answer has the `correlation-id`. Handlers find the [`RequestContext`] among the
/// extensions of the request, or by [`RequestContext::current`].
#[derive(Clone, Debug)]
pub struct ContextLayer {
    timeout: Duration,
    rng: Rng,
}

impl ContextLayer {
    /// With a limit of 30 s.
    #[must_use]
    pub fn new() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            rng: Rng::new(),
        }
    }

    /// With this limit for every request, whatever it says.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }
}

impl Default for ContextLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ContextLayer {
    type Service = ContextService<S>;

    fn layer(&self, inner: S) -> ContextService<S> {
        ContextService {
            inner,
            layer: self.clone(),
        }
    }
}

/// What [`ContextLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct ContextService<S> {
    inner: S,
    layer: ContextLayer,
}

impl<S, I, O> Service<Request<I>> for ContextService<S>
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

    fn call(&mut self, mut request: Request<I>) -> Self::Future {
        let asked = request.headers().get(&TIMEOUT);
        let asked = asked.and_then(|value| value.to_str().ok()?.parse().ok());
        let left = match asked.map(Duration::from_millis) {
            Some(asked) => asked.min(self.layer.timeout),
            None => self.layer.timeout,
        };
        // Longer than the clock goes is no limit.
        let deadline = Instant::now().checked_add(left);
        let context = RequestContext::read(request.headers(), deadline, &self.layer.rng);
        let id = HeaderValue::from_str(context.correlation_id());
        if left.is_zero() {
            return Box::pin(async move {
                let detail = "nobody waited for the answer any more when the request came";
                let mut response = problem(StatusCode::GATEWAY_TIMEOUT, detail);
                add_id(&mut response, id.ok());
                Ok(response)
            });
        }
        let span = tracing::info_span!(
            "request",
            otel.kind = "server",
            http.request.method = %request.method(),
            http.response.status_code = tracing::field::Empty,
            trace_id = tracing::field::Empty,
        );
        if !span.is_disabled() {
            span.record("trace_id", context.trace().trace_id());
        }
        request.extensions_mut().insert(context.clone());
        let handling = context.sync_scope(|| self.inner.call(request));
        let answering = async move {
            let handling = context.scope(handling);
            let handled = match deadline {
                Some(deadline) => timeout_at(deadline, handling).await.ok(),
                None => Some(handling.await),
            };
            let mut response = match handled {
                Some(result) => result?,
                None => {
                    let detail = format!("not done within {} ms", left.as_millis());
                    problem(StatusCode::GATEWAY_TIMEOUT, &detail)
                }
            };
            let status = response.status().as_u16();
            tracing::Span::current().record("http.response.status_code", status);
            add_id(&mut response, id.ok());
            Ok(response)
        };
        Box::pin(answering.instrument(span))
    }
}

/// Every answer says what it belongs to, unless the handler has.
fn add_id<O>(response: &mut Response<O>, id: Option<HeaderValue>) {
    if let Some(id) = id {
        let headers = response.headers_mut();
        headers.entry(&CORRELATION_ID).or_insert(id);
    }
}
