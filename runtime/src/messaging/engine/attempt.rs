//! One attempt: the handler under its time limit, with panics caught.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep_until};
use tracing::Span;

use crate::handling::{BatchFn, BoxFuture, Failed, Fate, Next, OneFn, Outcome, Reason, Scope};
use crate::message::{Incoming, headers::name};
use crate::messaging::Ack;
use crate::observability::TraceContext;

use super::subscription::{HandlerRuntime, Subscribed};

/// Runs a handler of single messages once. The span is there for what follows: the outputs belong to
/// the attempt too, and decide how it ended.
pub(super) async fn run_one(
    subscribed: &Subscribed,
    runtime: &HandlerRuntime,
    handler: &OneFn,
    incoming: &Arc<Incoming>,
    started: Instant,
) -> (Outcome, Span) {
    let deadline = started + runtime.timeout;
    let scope = Scope::of_attempt(Arc::clone(&runtime.context), Arc::clone(incoming), deadline);
    let manual = (subscribed.planned.ack == Ack::Manual).then(|| scope.expect_verdict());
    let middleware = &subscribed.environment.middleware;
    let begin = || {
        // In the common case there is one box: that of the handler.
        let attempt: BoxFuture<'_, Outcome> = if middleware.is_empty() {
            handler(Arc::clone(incoming), scope.clone())
        } else {
            Box::pin(async {
                let mut changed = Incoming::clone(incoming);
                Next::new(middleware, handler, &scope)
                    .run(&mut changed)
                    .await
            })
        };
        match manual {
            Some(verdict) => Box::pin(settled_by_hand(verdict, attempt)),
            None => attempt,
        }
    };
    let span = span(runtime, incoming, &scope, 1);
    let outcome = guarded(begin, &scope, &span, runtime).await;
    (outcome, span)
}

/// Runs a batch handler once; gives one outcome for each message.
pub(super) async fn run_batch(
    runtime: &HandlerRuntime,
    handler: &BatchFn,
    messages: &[Arc<Incoming>],
) -> (Vec<Outcome>, Span) {
    let Some(first) = messages.first() else {
        return (Vec::new(), Span::none());
    };
    let deadline = Instant::now() + runtime.timeout;
    let scope = Scope::of_attempt(Arc::clone(&runtime.context), Arc::clone(first), deadline);
    let span = span(runtime, first, &scope, messages.len());
    let mut outcomes = Vec::new();
    let (gathered, given) = (&mut outcomes, &scope);
    let begin = move || {
        Box::pin(async move {
            *gathered = handler(messages.to_vec(), given.clone()).await;
            Outcome::done()
        }) as BoxFuture<'_, _>
    };
    let whole = guarded(begin, &scope, &span, runtime).await;
    if whole.fate != Fate::Done {
        return (vec![whole; messages.len()], span);
    }
    outcomes.resize_with(messages.len(), || {
        Outcome::retry("the batch handler gave no outcome for this message")
    });
    (outcomes, span)
}

/// When the handler has returned, the message is settled when its `Settle` is used.
async fn settled_by_hand(
    verdict: oneshot::Receiver<Outcome>,
    handler: BoxFuture<'_, Outcome>,
) -> Outcome {
    let mut returned = handler.await;
    if returned.fate != Fate::Done {
        return returned;
    }
    match verdict.await {
        Ok(mut outcome) => {
            if outcome.fate == Fate::Done {
                returned.outgoing.append(&mut outcome.outgoing);
                outcome.outgoing = returned.outgoing;
            }
            outcome
        }
        Err(_) => {
            let text = "`Settle` was dropped without being used";
            let failed = Failed::new(Reason::Abandoned, "Settle", text);
            Outcome::failed(Fate::Retry { after: None }, failed)
        }
    }
}

/// An attempt that ends at its deadline, and whose panic is a failure like any other.
async fn guarded<'a>(
    begin: impl FnOnce() -> BoxFuture<'a, Outcome>,
    scope: &Scope,
    span: &Span,
    runtime: &HandlerRuntime,
) -> Outcome {
    let mut attempt = Attempt {
        begin: Some(begin),
        handling: None,
        scope,
        span,
    };
    // A handler that is done at once needs no timer. One that never leaves the scheduler its turn
    // is ended all the same, hence the second wrapping.
    let mut timer = None;
    let ended = poll_fn(|context| {
        if let Poll::Ready(ended) = attempt.poll(context) {
            return Poll::Ready(Some(ended));
        }
        let timer =
            timer.get_or_insert_with(|| Box::pin(unconstrained(sleep_until(scope.deadline()))));
        timer.as_mut().poll(context).map(|()| None)
    });
    let failed = match ended.await {
        Some(Ok(outcome)) => return outcome,
        Some(Err(panic)) => Failed::new(Reason::Panic, "panic", panic_text(&*panic)),
        None => {
            let text = format!("`{}` took longer than {:?}", runtime.name, runtime.timeout);
            Failed::new(Reason::Timeout, "timeout", text)
        }
    };
    // What the handler spawned may still run, and listens to this.
    scope.cancel().cancel();
    Outcome::failed(Fate::Retry { after: None }, failed)
}

/// The span of an attempt. What is looked up or formatted for it is so only if somebody listens.
fn span(runtime: &HandlerRuntime, incoming: &Incoming, scope: &Scope, count: usize) -> Span {
    let span = tracing::info_span!(
        "process",
        otel.name = %runtime.span_name,
        otel.kind = "consumer",
        otel.status_code = tracing::field::Empty,
        messaging.operation.name = "process",
        messaging.operation.r#type = "process",
        messaging.destination.template = runtime.context.pattern.as_str(),
        messaging.message.id = %incoming.id,
        messaging.message.conversation_id = tracing::field::Empty,
        messaging.batch.message_count = tracing::field::Empty,
        error.r#type = tracing::field::Empty,
        trace_id = tracing::field::Empty,
        span_id = tracing::field::Empty,
        parent_span_id = tracing::field::Empty,
        subscriber = &*runtime.name,
        attempt = incoming.attempt,
    );
    if !span.is_disabled() {
        span.record("trace_id", scope.trace().trace_id());
        span.record("span_id", scope.trace().span_id());
        if let Some(parent) = TraceContext::read(&incoming.headers) {
            span.record("parent_span_id", parent.span_id());
        }
        if let Some(correlation) = incoming.headers.text(name::CORRELATION_ID) {
            span.record("messaging.message.conversation_id", &*correlation);
        }
        if count > 1 {
            span.record("messaging.batch.message_count", count);
        }
    }
    span
}

/// Notes on the span how the attempt failed, by the error's type: its text may hold anything.
pub(super) fn ended(span: &Span, outcome: &Outcome) {
    if let Some(failed) = &outcome.failed
        && !span.is_disabled()
    {
        span.record("error.type", &*failed.error_type);
        span.record("otel.status_code", "ERROR");
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("the handler panicked").to_owned()
}

/// What a handler panicked with.
type Panic = Box<dyn Any + Send>;

/// The handler's future, which is made, polled and dropped within its scope and its span.
struct Attempt<'a, 's, B> {
    /// Makes the future, when it is first polled.
    begin: Option<B>,
    handling: Option<BoxFuture<'a, Outcome>>,
    scope: &'s Scope,
    span: &'s Span,
}

impl<'a, B: FnOnce() -> BoxFuture<'a, Outcome>> Attempt<'a, '_, B> {
    /// Goes on with it; its panic becomes the result.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Outcome, Panic>> {
        let (begin, handling) = (self.begin.take(), self.handling.take());
        let _entered = self.span.enter();
        self.scope.within(|| {
            let goes_on = || {
                let Some(mut handling) = handling.or_else(|| Some(begin?())) else {
                    return Poll::Pending;
                };
                let polled = handling.as_mut().poll(context);
                if polled.is_pending() {
                    self.handling = Some(handling);
                }
                polled
            };
            // A future that has panicked is never polled again, so nobody sees what it left half done.
            match catch_unwind(AssertUnwindSafe(goes_on)) {
                Ok(polled) => polled.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            }
        })
    }
}

impl<B> Drop for Attempt<'_, '_, B> {
    fn drop(&mut self) {
        if let Some(handling) = self.handling.take() {
            let _entered = self.span.enter();
            self.scope.drop_within(handling);
        }
    }
}
