//! Publishing: routes each message to its broker, within limits.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::error::{CommunicationError, CommunicationErrorKind};
use crate::handling::{
    Answer, BoxFuture, PublishError, PublishErrorKind, PublishMiddleware, PublishNext, PublishPort,
    Receipt, RequestError,
};
use crate::message::{CodecRef, Codecs, Outgoing, headers::name};
use crate::messaging::MessageBroker;
use crate::observability::TraceContext;
use crate::observability::metrics::{self, MetricsSink, Series};

use super::calls::Calls;
use super::routes::Routes;
use measured::{Measured, Measures};

mod asking;
mod measured;

/// The limits of publishing to one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerLimits {
    /// How long a publish may take, its confirmation included; 10 s unless set.
    pub publish_timeout: Duration,
    /// How many publishes may be under way; 1 024 unless set.
    pub publish_in_flight: u32,
    /// How long a request waits for its reply, unless the call says; 5 s unless set.
    pub request_timeout: Duration,
    /// How many requests may wait for their replies; 1 024 unless set.
    pub requests_in_flight: u32,
    /// Largest body, in bytes; 16 MiB unless set.
    pub message_bytes_max: usize,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            publish_timeout: Duration::from_secs(10),
            publish_in_flight: 1_024,
            request_timeout: Duration::from_secs(5),
            requests_in_flight: 1_024,
            message_bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// A broker that messages can be published to.
#[derive(Clone)]
#[non_exhaustive]
pub struct PublishTarget {
    /// The broker.
    pub broker: Arc<dyn MessageBroker>,
    /// Its limits.
    pub limits: BrokerLimits,
    /// The codec for messages whose contract names none.
    pub codec: CodecRef,
}

impl PublishTarget {
    /// A broker with its limits and default codec.
    #[must_use]
    pub fn new(broker: Arc<dyn MessageBroker>, limits: BrokerLimits, codec: CodecRef) -> Self {
        Self {
            broker,
            limits,
            codec,
        }
    }
}

impl fmt::Debug for PublishTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishTarget")
            .field("broker", self.broker.name())
            .finish_non_exhaustive()
    }
}

/// Publishes for a whole app.
pub struct Publishing {
    /// Few: they are found by looking at each.
    targets: Vec<Target>,
    routes: Routes,
    codecs: Arc<Codecs>,
    middleware: Arc<[Arc<dyn PublishMiddleware>]>,
    metrics: Option<Arc<dyn MetricsSink>>,
    closed: AtomicBool,
}

struct Target {
    target: PublishTarget,
    places: Semaphore,
    calls: Calls,
    measured: Measured,
}

/// How a message is handed to a broker.
type HandOver<'a> = &'a (
        dyn Fn(&'a Arc<dyn MessageBroker>, Outgoing) -> BoxFuture<'a, Result<(), PublishError>>
            + Sync
    );

/// The label of destinations that are known only at run time.
const DYNAMIC_DESTINATION: &str = "_dynamic";

impl Publishing {
    /// Publishes to `targets` by `routes`; `middleware` runs around each publish, outermost first.
    #[must_use]
    pub fn new(
        targets: Vec<PublishTarget>,
        routes: Routes,
        codecs: Arc<Codecs>,
        middleware: Arc<[Arc<dyn PublishMiddleware>]>,
        metrics: Option<Arc<dyn MetricsSink>>,
    ) -> Arc<Self> {
        let targets = targets
            .into_iter()
            .map(|target| {
                let (broker, limits) = (Arc::clone(&target.broker), target.limits);
                let late = Series::of(
                    metrics.as_deref(),
                    metrics::LATE_REPLIES,
                    vec![Arc::clone(broker.name())],
                );
                Target {
                    target,
                    places: Semaphore::new(limits.publish_in_flight.max(1) as usize),
                    calls: Calls::new(broker, limits.requests_in_flight, late),
                    measured: Measured::default(),
                }
            })
            .collect();
        Arc::new(Self {
            targets,
            routes,
            codecs,
            middleware,
            metrics,
            closed: AtomicBool::new(false),
        })
    }

    /// Refuses new publishes and waits for those under way, at the latest until `deadline`. Returns
    /// whether all of them ended.
    pub async fn close(&self, deadline: Instant) -> bool {
        self.closed.store(true, Ordering::Release);
        for target in &self.targets {
            target.calls.close(deadline).await;
        }
        for target in &self.targets {
            let all = target.target.limits.publish_in_flight.max(1);
            let ended = timeout_at(deadline, target.places.acquire_many(all)).await;
            if !matches!(ended, Ok(Ok(_))) {
                return false;
            }
        }
        true
    }

    /// The broker that a topic is routed to.
    #[must_use]
    pub fn broker_of(&self, topic: &str) -> &str {
        self.routes.broker(topic)
    }

    fn target(&self, topic: &str, broker: Option<&str>) -> Result<&Target, PublishError> {
        let name = broker.unwrap_or_else(|| self.routes.broker(topic));
        self.target_called(name).ok_or_else(|| {
            let targets = self.targets.iter();
            let mut known: Vec<_> = targets
                .map(|target| &**target.target.broker.name())
                .collect();
            known.sort_unstable();
            let text = format!(
                "broker `{name}` is not configured (configured: {})",
                known.join(", ")
            );
            PublishError::new(PublishErrorKind::UnknownBroker, topic, text)
        })
    }

    fn target_called(&self, name: &str) -> Option<&Target> {
        self.targets
            .iter()
            .find(|target| **target.target.broker.name() == *name)
    }

    /// The last step: within the limits, to the broker. Takes the message out.
    async fn send<'a>(
        &'a self,
        message: &mut Option<Outgoing>,
        begun: Instant,
        hand_over: HandOver<'a>,
    ) -> Result<Receipt, PublishError> {
        let outgoing = message.take().expect("a message is sent once");
        if self.closed.load(Ordering::Acquire) {
            let text = "the app is shutting down";
            return Err(PublishError::new(
                PublishErrorKind::Closed,
                outgoing.topic,
                text,
            ));
        }
        let Target { target, places, .. } =
            self.target(&outgoing.topic, outgoing.broker.as_deref())?;
        let limit = target.limits.message_bytes_max;
        if outgoing.body.len() > limit {
            let size = outgoing.body.len();
            let text = format!(
                "its body has {size} bytes, and `message_bytes_max` of broker `{}` is {limit}",
                target.broker.name()
            );
            let kind = PublishErrorKind::TooLarge;
            return Err(PublishError::new(kind, outgoing.topic, text));
        }
        let deadline = begun + target.limits.publish_timeout;
        let place = match places.try_acquire() {
            Ok(place) => Some(place),
            Err(_) => in_time(deadline, pin!(places.acquire()))
                .await
                .and_then(Result::ok),
        };
        let Some(_place) = place else {
            let text = format!(
                "{} publishes to broker `{}` are under way, and none ended within {:?}",
                target.limits.publish_in_flight,
                target.broker.name(),
                target.limits.publish_timeout
            );
            let kind = PublishErrorKind::QueueFull;
            let error = PublishError::new(kind, outgoing.topic.clone(), text);
            return Err(error.with_outgoing(outgoing));
        };
        let kept = outgoing.clone();
        let mut handed_over = hand_over(&target.broker, outgoing);
        match in_time(deadline, handed_over.as_mut()).await {
            Some(Ok(())) => Ok(Receipt::new(kept.id, Arc::clone(target.broker.name()))),
            Some(Err(error)) if error.is_retryable() => Err(error.with_outgoing(kept)),
            Some(Err(error)) => Err(error),
            None => {
                let text = format!(
                    "broker `{}` did not confirm within {:?}; it may have the message",
                    target.broker.name(),
                    target.limits.publish_timeout
                );
                let kind = PublishErrorKind::Timeout;
                let error = PublishError::new(kind, kept.topic.clone(), text);
                Err(error.with_outgoing(kept))
            }
        }
    }

    /// Publishes through the middleware.
    // The message stays where it is in the one box that there is until it is handed over: it is large,
    // and each layer that took it by value would copy it.
    fn publish_by<'a>(
        &'a self,
        outgoing: Outgoing,
        hand_over: HandOver<'a>,
    ) -> BoxFuture<'a, Result<Receipt, PublishError>> {
        let span = span(&outgoing);
        let mut message = Some(outgoing);
        let publishing = async move { self.publish_measured(&mut message, hand_over).await };
        if span.is_disabled() {
            Box::pin(publishing)
        } else {
            Box::pin(tracing::Instrument::instrument(publishing, span))
        }
    }

    async fn publish_measured<'a>(
        &'a self,
        message: &mut Option<Outgoing>,
        hand_over: HandOver<'a>,
    ) -> Result<Receipt, PublishError> {
        let started = Instant::now();
        let measures = self.metrics.is_some();
        let origin = message.as_ref().filter(|_| measures).map(Measures::of);
        let published = if self.middleware.is_empty() {
            self.send(message, started, hand_over).await
        } else {
            let last = |outgoing| {
                let mut message = Some(outgoing);
                let begun = Instant::now();
                Box::pin(async move { self.send(&mut message, begun, hand_over).await })
                    as BoxFuture<'_, _>
            };
            let outgoing = message.take().expect("a message is sent once");
            PublishNext::new(&self.middleware, &last)
                .run(outgoing)
                .await
        };
        if let Err(error) = &published {
            let span = tracing::Span::current();
            span.record("error.type", error.kind().as_str());
            span.record("otel.status_code", "ERROR");
        }
        if let Some(origin) = origin {
            let outcome = published
                .as_ref()
                .map_or_else(|error| error.kind().as_str(), |_| "confirmed");
            self.measure(&origin, started.elapsed(), outcome);
        }
        published
    }

    fn measure(&self, publish: &Measures, took: Duration, outcome: &'static str) {
        let Some(sink) = self.metrics.as_deref() else {
            return;
        };
        let broker = publish.broker.as_deref();
        let name = broker.unwrap_or_else(|| self.routes.broker(&publish.topic));
        match self.target_called(name) {
            Some(Target {
                target, measured, ..
            }) => measured.record(sink, target.broker.name(), publish, took, outcome),
            None => Measured::default().record(sink, &name.into(), publish, took, outcome),
        }
    }
}

impl PublishPort for Publishing {
    fn codec(
        &self,
        topic: &str,
        broker: Option<&str>,
        named: Option<&str>,
    ) -> Result<CodecRef, PublishError> {
        let Some(name) = named else {
            return Ok(self.target(topic, broker)?.target.codec.clone());
        };
        self.codecs.by_name(name).cloned().ok_or_else(|| {
            let known: Vec<_> = self.codecs.names().collect();
            let text = format!("there is no codec `{name}` (codecs: {})", known.join(", "));
            PublishError::new(PublishErrorKind::Encode, topic, text)
        })
    }

    fn publish(&self, outgoing: Outgoing) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        self.publish_by(outgoing, &to_broker)
    }

    fn request(
        &self,
        outgoing: Outgoing,
        limit: Option<Duration>,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Answer, RequestError>> {
        Box::pin(self.ask(outgoing, limit, now))
    }

    fn cancel<'a>(
        &'a self,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<bool, CommunicationError>> {
        Box::pin(async move {
            let Target { target, .. } = self.target(receipt.id.as_str(), Some(&*receipt.broker))?;
            let limit = target.limits.publish_timeout;
            match tokio::time::timeout(limit, target.broker.unschedule(&receipt.id)).await {
                Ok(cancelled) => Ok(cancelled?),
                Err(_) => {
                    let text = format!("broker `{}` did not answer in time", receipt.broker);
                    Err(CommunicationError::new(
                        CommunicationErrorKind::Timeout,
                        text,
                    ))
                }
            }
        })
    }
}

/// Hands a message over as it says itself: to an address, for a later time, or to its topic.
fn to_broker(
    broker: &Arc<dyn MessageBroker>,
    mut outgoing: Outgoing,
) -> BoxFuture<'_, Result<(), PublishError>> {
    match (outgoing.address.take(), outgoing.due) {
        (Some(address), _) => broker.reply(address, outgoing),
        (None, Some(due)) => broker.schedule(outgoing, due),
        (None, None) => broker.publish(outgoing),
    }
}

/// The span of a publish. What is looked up or formatted for it is so only if somebody listens.
fn span(outgoing: &Outgoing) -> tracing::Span {
    let span = tracing::info_span!(
        "publish",
        otel.name = tracing::field::Empty,
        otel.kind = "producer",
        otel.status_code = tracing::field::Empty,
        messaging.operation.name = "publish",
        messaging.operation.r#type = "send",
        messaging.destination.name = &*outgoing.topic,
        messaging.message.id = %outgoing.id,
        messaging.message.conversation_id = tracing::field::Empty,
        error.r#type = tracing::field::Empty,
        trace_id = tracing::field::Empty,
    );
    if !span.is_disabled() {
        let destination = outgoing.template.unwrap_or(DYNAMIC_DESTINATION);
        span.record("otel.name", format!("publish {destination}"));
        if let Some(trace) = TraceContext::read(&outgoing.headers) {
            span.record("trace_id", trace.trace_id());
        }
        if let Some(correlation) = outgoing.headers.text(name::CORRELATION_ID) {
            span.record("messaging.message.conversation_id", &*correlation);
        }
    }
    span
}

/// What the future gives by `deadline`. A timer is started only if it does not give it at once.
async fn in_time<F: Future + ?Sized>(
    deadline: Instant,
    mut future: Pin<&mut F>,
) -> Option<F::Output> {
    let mut timer = pin!(None);
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        if timer.is_none() {
            // A future that never leaves the scheduler its turn is ended all the same.
            timer.set(Some(unconstrained(sleep_until(deadline))));
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(context).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

impl fmt::Debug for Publishing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publishing")
            .field("routes", &self.routes)
            .finish_non_exhaustive()
    }
}
