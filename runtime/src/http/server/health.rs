//! Routes for whoever watches over the process.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Request, Response, StatusCode};
use serde_json::json;
use tower_layer::Layer;
use tower_service::Service;

use super::Answering;
use super::answer;

/// How an app is, for its health routes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthReport {
    /// Whether the process does its work or can still get to it.
    pub live: bool,
    /// Whether it should be sent requests.
    pub ready: bool,
    /// What is in the way, in words.
    pub obstacles: Vec<String>,
}

impl HealthReport {
    /// A report.
    #[must_use]
    pub fn new(live: bool, ready: bool, obstacles: Vec<String>) -> Self {
        Self {
            live,
            ready,
            obstacles,
        }
    }
}

type Source = dyn Fn() -> HealthReport + Send + Sync;

/// Answers GET and HEAD of `/health/live` and `/health/ready`: 200, or 503 with what is in the way.
/// Everything else goes on. `running.health_layer()` makes it of an app's health.
#[derive(Clone)]
pub struct HealthLayer(Arc<Source>);

impl HealthLayer {
    /// Of what this function says. It is called for each request and must not wait.
    #[must_use]
    pub fn new(report: impl Fn() -> HealthReport + Send + Sync + 'static) -> Self {
        Self(Arc::new(report))
    }
}

impl fmt::Debug for HealthLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HealthLayer")
    }
}

impl<S> Layer<S> for HealthLayer {
    type Service = HealthService<S>;

    fn layer(&self, inner: S) -> HealthService<S> {
        HealthService {
            inner,
            report: self.clone(),
        }
    }
}

/// What [`HealthLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct HealthService<S> {
    inner: S,
    report: HealthLayer,
}

impl<S, I, O> Service<Request<I>> for HealthService<S>
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
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let about = match request.uri().path() {
            "/health/live" if reads => |report: &HealthReport| report.live,
            "/health/ready" if reads => |report: &HealthReport| report.ready,
            _ => return Box::pin(self.inner.call(request)),
        };
        let report = (self.report.0)();
        let (status, word) = match about(&report) {
            true => (StatusCode::OK, "up"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "down"),
        };
        let body = json!({ "status": word, "obstacles": report.obstacles });
        let response = answer::json(status, "application/json", &body);
        Box::pin(async move { Ok(response) })
    }
}
