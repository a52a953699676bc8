//! One subscription at run time: its handlers, what they share, and its measurements.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::handling::{Handler, Outcome, Publisher, SubscriberContext};
use crate::message::{Contract, Incoming};
use crate::messaging::{CrashPoint, PlannedHandler, PlannedSubscription, RetryPolicy};
use crate::observability::metrics::{self, Series};
use crate::observability::{Correlation, TraceContext};

use super::Environment;
use super::breaker::Breaker;
use super::gate::Gate;
use super::held::Returns;

/// What all tasks of one subscription share.
pub(super) struct Subscribed {
    pub(super) planned: PlannedSubscription,
    pub(super) handlers: Vec<HandlerRuntime>,
    pub(super) environment: Arc<Environment>,
    pub(super) gate: Arc<Gate>,
    pub(super) breaker: Arc<Breaker>,
    /// Where settlements go whose task ended without using them.
    pub(super) returns: Returns,
    pub(super) in_flight: InFlight,
    pub(super) redelivered: Series,
    /// What the runner wants.
    phase: watch::Sender<Phase>,
    /// Whether that is to go on: asked before each message, by all workers at once, so without the
    /// lock of the above.
    running: AtomicBool,
}

/// What the runner wants of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// Start nothing new, finish what runs, at the latest then.
    Draining(Instant),
}

/// One handler at run time.
pub(super) struct HandlerRuntime {
    pub(super) name: Arc<str>,
    pub(super) service: Arc<str>,
    pub(super) handler: Handler,
    pub(super) context: Arc<SubscriberContext>,
    pub(super) timeout: Duration,
    pub(super) retry: RetryPolicy,
    /// Whether it answers the one who asked.
    pub(super) replies: bool,
    /// `process {topic}`, the name of its spans.
    pub(super) span_name: String,
    pub(super) measured: Measured,
    contracts: Vec<&'static Contract>,
}

/// The measurements of one handler.
pub(super) struct Measured {
    pub(super) consumed: Series,
    pub(super) discarded: Series,
    pub(super) expired_requests: Series,
    labels: [Arc<str>; 2],
    succeeded: Series,
    failed: Series,
    environment: Arc<Environment>,
}

impl Measured {
    fn new(environment: &Arc<Environment>, subscription: &Arc<str>, handler: &Arc<str>) -> Self {
        let labels = [Arc::clone(subscription), Arc::clone(handler)];
        let sink = environment.metrics.as_deref();
        let of = |instrument| Series::of(sink, instrument, labels.to_vec());
        let duration = |outcome: &str| {
            let labels = vec![
                Arc::clone(&labels[0]),
                Arc::clone(&labels[1]),
                outcome.into(),
            ];
            Series::of(sink, metrics::PROCESS_DURATION, labels)
        };
        Self {
            consumed: of(metrics::CONSUMED),
            discarded: of(metrics::DISCARDED),
            expired_requests: of(metrics::EXPIRED_REQUESTS),
            succeeded: duration("done"),
            failed: duration("failed"),
            environment: Arc::clone(environment),
            labels,
        }
    }

    pub(super) fn processed(&self, started: Instant, succeeded: bool) {
        let series = if succeeded {
            &self.succeeded
        } else {
            &self.failed
        };
        if series.is_enabled() {
            series.record(started.elapsed().as_secs_f64());
        }
    }

    pub(super) fn retried(&self, reason: &'static str) {
        self.rare(metrics::RETRIED, reason);
    }

    pub(super) fn dead_lettered(&self, reason: &'static str) {
        self.rare(metrics::DEAD_LETTERED, reason);
    }

    /// What is off the fast path looks its series up each time.
    fn rare(&self, instrument: &'static metrics::Instrument, reason: &'static str) {
        let labels = vec![
            Arc::clone(&self.labels[0]),
            Arc::clone(&self.labels[1]),
            reason.into(),
        ];
        Series::of(self.environment.metrics.as_deref(), instrument, labels).record(1.0);
    }
}

/// How many messages of the subscription are in the engine's hands.
pub(super) struct InFlight {
    count: AtomicUsize,
    gauge: Series,
}

impl InFlight {
    pub(super) fn get(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn enter(&self) {
        let now = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        self.measure(now);
    }

    pub(super) fn leave(&self) {
        let now = self.count.fetch_sub(1, Ordering::Relaxed) - 1;
        self.measure(now);
    }

    fn measure(&self, now: usize) {
        if self.gauge.is_enabled() {
            self.gauge
                .record(u32::try_from(now).map_or(f64::MAX, f64::from));
        }
    }
}

impl Subscribed {
    pub(super) fn new(
        planned: PlannedSubscription,
        environment: Arc<Environment>,
        returns: Returns,
    ) -> Self {
        let label = Arc::clone(&planned.subscription.label);
        let handlers = planned
            .handlers
            .iter()
            .map(|handler| HandlerRuntime::new(handler, &planned, &environment))
            .collect();
        let timeouts = planned.handlers.iter().map(|handler| handler.timeout);
        let slowest = timeouts.max().unwrap_or_default();
        let series = |instrument| {
            Series::of(
                environment.metrics.as_deref(),
                instrument,
                vec![Arc::clone(&label)],
            )
        };
        Self {
            in_flight: InFlight {
                count: AtomicUsize::new(0),
                gauge: series(metrics::IN_FLIGHT),
            },
            redelivered: series(metrics::REDELIVERED),
            phase: watch::Sender::new(Phase::Running),
            running: AtomicBool::new(true),
            gate: Arc::new(Gate::new()),
            breaker: Arc::new(Breaker::new(
                planned.breaker,
                slowest,
                environment.rng.clone(),
                series(metrics::BREAKER_OPEN),
            )),
            handlers,
            planned,
            environment,
            returns,
        }
    }

    pub(super) fn label(&self) -> &Arc<str> {
        &self.planned.subscription.label
    }

    /// The handler of a message: the one that takes its type, or the only one where the message does
    /// not say its type.
    pub(super) fn handler_of(&self, incoming: &Incoming) -> Option<&HandlerRuntime> {
        let by_type = match incoming.message_type() {
            Some(wire) => self.handlers.iter().find(|handler| {
                handler
                    .contracts
                    .iter()
                    .any(|contract| contract.name == wire)
            }),
            None => self
                .handlers
                .first()
                .filter(|only| self.handlers.len() == 1 && only.contracts.len() == 1),
        };
        by_type.or_else(|| {
            self.handlers
                .iter()
                .find(|handler| handler.contracts.is_empty())
        })
    }

    /// A point at which a test may let the process die: then this never returns.
    pub(super) async fn passes(&self, point: CrashPoint) {
        let dies = self
            .environment
            .crash_points
            .as_ref()
            .is_some_and(|points| points.reached(point));
        if dies {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire)
    }

    /// What the runner wants, and when that changes.
    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// From now on it drains, until `deadline`.
    pub(super) fn drain(&self, deadline: Instant) {
        self.phase.send_modify(|phase| {
            self.running.store(false, Ordering::Release);
            *phase = Phase::Draining(deadline);
        });
    }

    /// Waits while it is paused by hand; `false` once it is to drain.
    pub(super) async fn may_go_on(&self) -> bool {
        if !self.gate.is_open() {
            tokio::select! {
                biased;
                () = self.draining() => {}
                () = self.gate.open() => {}
            }
        }
        self.is_running()
    }

    /// Waits until the subscription is to drain.
    pub(super) async fn draining(&self) {
        let mut phase = self.phase();
        // The sender lives as long as `self`, so the wait cannot fail.
        let _ = phase.wait_for(|phase| *phase != Phase::Running).await;
    }

    /// The handler that answers for a message that nobody takes: in logs and metrics only.
    pub(super) fn first_handler(&self) -> Option<&HandlerRuntime> {
        self.handlers.first()
    }

    /// The outcome of a message that nobody takes.
    pub(super) fn unknown(&self, incoming: &Incoming) -> Outcome {
        crate::handling::unknown_type(incoming, self.planned.on_unknown)
    }
}

impl HandlerRuntime {
    /// Publishes because of a message that is not in an attempt.
    pub(super) fn publisher(&self, cause: &Incoming) -> Publisher {
        let rng = self.context.publisher.rng();
        let trace = TraceContext::read(&cause.headers)
            .map_or_else(|| TraceContext::root(rng), |parent| parent.child(rng));
        let correlation = Correlation::following(cause);
        self.context.publisher.caused_by(correlation, trace)
    }

    fn new(
        planned: &PlannedHandler,
        subscription: &PlannedSubscription,
        environment: &Arc<Environment>,
    ) -> Self {
        let publisher = Publisher::new(
            Arc::clone(&environment.publishing),
            Arc::clone(&planned.service),
            Arc::clone(&environment.clock),
            environment.rng.clone(),
        );
        let topic = subscription.subscription.topic.clone();
        let span_name = format!("process {topic}");
        let context = SubscriberContext::new(
            Arc::clone(&planned.name),
            topic,
            Arc::clone(&environment.codecs),
            planned.codec.clone(),
            publisher,
        )
        .with_on_unknown(planned.on_unknown);
        Self {
            name: Arc::clone(&planned.name),
            service: Arc::clone(&planned.service),
            handler: planned.handler.clone(),
            context: Arc::new(context),
            timeout: planned.timeout,
            retry: planned.retry,
            replies: planned.replies,
            span_name,
            measured: Measured::new(environment, &subscription.subscription.label, &planned.name),
            contracts: planned.contracts.clone(),
        }
    }
}
