//! What a call takes over from the request, or the message, that it is made for.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use tokio::time::Instant;

use crate::clock::Rng;
use crate::handling::{Errand, Scope};
use crate::message::{Headers, headers::name};
use crate::observability::{Correlation, TraceContext, is_correlation_id};

use super::stack::ATTEMPT;

/// What a request brought with it: by when it has to be answered, and what it belongs to. Calls of
/// other services that are made in the same task take it over, and so do messages that are published in
/// it; [`carry`] takes it to another task.
///
/// The layers of [`server`](super::server) make it of the headers of a request.
#[derive(Clone)]
pub struct RequestContext(Arc<Errand>);

impl RequestContext {
    /// The context of a request with these headers, to be answered by `deadline`. What is not valid is
    /// as if it were not there, and what is not there is made up.
    #[must_use]
    pub fn read(headers: &HeaderMap, deadline: Option<Instant>, rng: &Rng) -> Self {
        let carried = [
            name::TRACEPARENT,
            name::TRACESTATE,
            name::BAGGAGE,
            name::CORRELATION_ID,
        ];
        let mut ours = Headers::new();
        for name in carried {
            if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
                ours.set(name, value.to_owned());
            }
        }
        let trace = match TraceContext::read(&ours) {
            Some(parent) => parent.child(rng),
            None => TraceContext::root(rng),
        };
        let correlation_id = ours
            .text(name::CORRELATION_ID)
            .filter(|id| is_correlation_id(id))
            .map_or_else(|| trace.trace_id(), |id| id.into_owned());
        Self(Arc::new(Errand {
            deadline,
            trace,
            correlation_id,
            is_repeat: attempt(headers).is_some_and(|attempt| attempt > 1),
        }))
    }

    /// That of the request in whose task this is called, if there is one.
    #[must_use]
    pub fn current() -> Option<Self> {
        Errand::current().map(Self)
    }

    /// By when the request has to be answered.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// Where the request stands in its trace.
    #[must_use]
    pub fn trace(&self) -> &TraceContext {
        &self.0.trace
    }

    /// What everything that one original request or message led to has in common.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        &self.0.correlation_id
    }

    /// Whether whoever sent it has tried before: `x-attempt` is above 1. Calls that are made for it are
    /// not repeated then, nor sent a second time beside: attempts would multiply from service to service,
    /// and whoever repeats already does it.
    ///
    /// ```
    /// use interline::{clock::Rng, http::RequestContext};
    ///
    /// let mut headers = http::HeaderMap::new();
    /// headers.insert("x-attempt", 2.into());
    /// let context = RequestContext::read(&headers, None, &Rng::new());
    /// assert!(context.is_repeat());
    /// ```
    #[must_use]
    pub fn is_repeat(&self) -> bool {
        self.0.is_repeat
    }

    /// Runs a future for which this is the [`current`](Self::current) context.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        self.0.enter(future).await
    }

    /// Runs a function for which this is the [`current`](Self::current) context.
    #[cfg(feature = "tower")]
    pub(super) fn sync_scope<T>(&self, run: impl FnOnce() -> T) -> T {
        Arc::clone(&self.0).sync_enter(run)
    }
}

fn attempt(headers: &HeaderMap) -> Option<u32> {
    headers.get(&ATTEMPT)?.to_str().ok()?.parse().ok()
}

impl fmt::Debug for RequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestContext")
            .field("correlation_id", &self.0.correlation_id)
            .field("trace_id", &self.0.trace.trace_id())
            .finish_non_exhaustive()
    }
}

/// Takes deadline, trace and correlation of the current request, or message, to wherever this future
/// runs. `tokio::join!` and `select!` need no help: they stay in the task.
///
/// ```no_run
/// # async fn example() {
/// # async fn write_audit() {}
/// tokio::spawn(interline::http::carry(write_audit()));
/// # }
/// ```
pub fn carry<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let ambient = Ambient::current();
    async move {
        match ambient {
            Some(Ambient::Request(context)) => context.scope(future).await,
            Some(Ambient::Message(scope)) => scope.enter(future).await,
            None => future.await,
        }
    }
}

/// What a call is made for.
pub(super) enum Ambient {
    Request(RequestContext),
    Message(Scope),
}

impl Ambient {
    pub(super) fn current() -> Option<Self> {
        let request = RequestContext::current().map(Self::Request);
        request.or_else(|| Scope::current().map(Self::Message))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Request(context) => context.deadline(),
            Self::Message(scope) => Some(scope.deadline()),
        }
    }

    pub(super) fn trace(&self) -> &TraceContext {
        match self {
            Self::Request(context) => context.trace(),
            Self::Message(scope) => scope.trace(),
        }
    }

    /// Whether somebody else repeats what this is done for, and at once: a message that is handled again
    /// has waited.
    pub(super) fn is_repeat(&self) -> bool {
        match self {
            Self::Request(context) => context.is_repeat(),
            Self::Message(_) => false,
        }
    }

    /// What it belongs to, and what caused it where that is a message.
    pub(super) fn correlation(&self) -> (String, Option<String>) {
        match self {
            Self::Request(context) => (context.correlation_id().to_owned(), None),
            Self::Message(scope) => {
                let correlation = Correlation::following(scope.input());
                let cause = correlation.causation_id.as_str().to_owned();
                (correlation.correlation_id, Some(cause))
            }
        }
    }
}
