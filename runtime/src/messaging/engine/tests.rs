//! The engine on the embedded broker, in virtual time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::*;
use crate::clock::TokioClock;
use crate::handling::{
    Handler, Outcome, PublishErrorKind, PublishPort, Publisher, Reason, Scope, run_batch,
};
use crate::message::{Contract, Headers, Incoming, Location, TopicPattern, headers::name};
use crate::messaging::memory::{MemoryBroker, MemoryOptions, MemoryStore};
use crate::messaging::{
    Ack, BatchOptions, BreakerPolicy, BrokerContext, CrashPoint, CrashPoints, DeadLetterStore,
    DeadLetters, Group, MessageBroker, OrderedBy, PlannedHandler, PlannedSubscription, Rate,
    Redrive, RetryPolicy, Subscription,
};
use crate::observability::metrics::{self, InMemoryMetrics};

mod attempts;
mod crew;
mod flow;
mod interruptions;
mod losses;
mod outputs;

const HERE: Location = Location {
    file: "tests.rs",
    line: 1,
    column: 1,
};
const HOUR: Duration = Duration::from_secs(3_600);

/// One process on a store.
struct World {
    store: MemoryStore,
    broker: Arc<MemoryBroker>,
    environment: Arc<Environment>,
    publishing: Arc<Publishing>,
    publisher: Publisher,
    metrics: InMemoryMetrics,
}

impl World {
    async fn new() -> Self {
        Self::on(
            &MemoryStore::new(MemoryOptions::for_tests(1)),
            "one",
            |_| {},
        )
        .await
    }

    async fn on(
        store: &MemoryStore,
        instance: &str,
        change: impl FnOnce(&mut Environment),
    ) -> Self {
        let broker = MemoryBroker::new(store, &BrokerContext::new("main", "billing", instance));
        let broker = Arc::new(broker);
        broker.connect().await.unwrap();
        let codecs = Arc::new(Codecs::built_in());
        let metrics = InMemoryMetrics::default();
        let codec = codecs.default_codec().unwrap().clone();
        let target = PublishTarget::new(Arc::clone(&broker) as _, BrokerLimits::default(), codec);
        let sink: Arc<dyn MetricsSink> = Arc::new(metrics.clone());
        let publishing = Publishing::new(
            vec![target],
            Routes::default(),
            Arc::clone(&codecs),
            Arc::new([]),
            Some(Arc::clone(&sink)),
        );
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(std::time::UNIX_EPOCH + HOUR));
        let rng = Rng::with_seed(1);
        let mut environment = Environment::new(
            codecs,
            Arc::clone(&clock),
            rng.clone(),
            Arc::clone(&publishing) as _,
        );
        environment.metrics = Some(sink);
        change(&mut environment);
        let port = Arc::clone(&publishing) as Arc<dyn PublishPort>;
        let publisher = Publisher::new(port, "billing".into(), clock, rng);
        let environment = Arc::new(environment);
        Self {
            store: store.clone(),
            broker,
            environment,
            publishing,
            publisher,
            metrics,
        }
    }

    async fn run(&self, planned: PlannedSubscription) -> Runner {
        let runner = Runner::start(
            planned,
            Arc::clone(&self.broker) as _,
            Arc::clone(&self.environment),
        );
        let runner = runner.await.unwrap();
        self.settled().await;
        runner
    }

    async fn publish(&self, topic: &str, body: &str, headers: &[(&'static str, &'static str)]) {
        let headers: Headers = headers.iter().copied().collect();
        self.publisher
            .publish_raw(topic, Bytes::copy_from_slice(body.as_bytes()), headers)
            .await
            .unwrap();
    }

    /// Waits until nothing more happens by itself within an hour.
    async fn settled(&self) {
        self.store.idle(Instant::now() + HOUR).await;
    }

    async fn dead_letters(&self, planned: &PlannedSubscription) -> Vec<Incoming> {
        let store: &dyn DeadLetterStore = self.broker.dead_letters().unwrap();
        store.list(&planned.subscription, 100).await.unwrap()
    }
}

fn planned(topic: &'static str, handler: Handler) -> PlannedSubscription {
    planned_with(topic, handler, |_| {})
}

fn planned_with(
    topic: &'static str,
    handler: Handler,
    change: impl FnOnce(&mut PlannedSubscription),
) -> PlannedSubscription {
    let subscription = Subscription::new(TopicPattern::new(topic), Group::Named("billing".into()));
    let mut planned = PlannedSubscription::new(Arc::new(subscription), "main".into());
    let codec = Codecs::built_in().default_codec().unwrap().clone();
    planned.handlers.push(PlannedHandler::new(
        "charge".into(),
        "billing".into(),
        handler,
        codec,
        HERE,
    ));
    change(&mut planned);
    planned
}

/// What handlers saw, in order: `body#attempt@milliseconds`.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, incoming: &Incoming) {
        let body = String::from_utf8_lossy(&incoming.body).into_owned();
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(format!("{body}#{}", incoming.attempt));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn handler<F, R>(seen: &Seen, run: F) -> Handler
where
    F: Fn(Arc<Incoming>, Scope) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Outcome> + Send + 'static,
{
    let seen = seen.clone();
    Handler::one(move |incoming, scope| {
        seen.note(&incoming);
        run(incoming, scope)
    })
}

fn answering(seen: &Seen, outcome: fn() -> Outcome) -> Handler {
    handler(seen, move |_, _| async move { outcome() })
}
