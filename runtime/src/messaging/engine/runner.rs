//! The runner: owns one subscription from its first delivery to its drain.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout_at};

use crate::messaging::{
    BrokerError, Consumer, ConsumerState, MessageBroker, PlannedSubscription, Settlement,
};
use crate::observability::metrics::{self, Series};
use crate::resilience::CircuitState;

use super::Environment;
use super::dispatcher::Dispatcher;
use super::process::report;
use super::subscription::Subscribed;

/// Runs one subscription.
pub struct Runner {
    subscribed: Arc<Subscribed>,
    consumer: Arc<dyn Consumer>,
    dispatcher: Mutex<Option<JoinHandle<()>>>,
    returned: Mutex<Option<(oneshot::Sender<()>, JoinHandle<usize>)>>,
    running: Series,
    watch: Mutex<Option<JoinHandle<()>>>,
    breaker: AbortHandle,
}

/// How a subscription is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionHealth {
    /// Its label: `{group}.{topic}`.
    pub label: Arc<str>,
    /// The broker.
    pub broker: Arc<str>,
    /// Whether it consumes.
    pub state: ConsumerState,
    /// Whether its breaker lets messages through.
    pub breaker: CircuitState,
    /// Messages in the engine's hands.
    pub in_flight: usize,
    /// The names of its handlers.
    pub handlers: Vec<Arc<str>>,
}

/// What became of the messages that were in the engine's hands when a subscription was stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Given back to the broker untouched or unfinished.
    pub returned: usize,
}

/// How long giving messages back may take beyond the deadline of the handlers.
const GIVE_BACK_MAX: Duration = Duration::from_secs(5);

impl Runner {
    /// Starts to consume a subscription. Does not wait for the broker to be reachable.
    ///
    /// # Errors
    /// [`BrokerError`] if the broker can never serve it.
    pub async fn start(
        planned: PlannedSubscription,
        broker: Arc<dyn MessageBroker>,
        environment: Arc<Environment>,
    ) -> Result<Self, BrokerError> {
        let prefetch = usize::from(planned.subscription.prefetch).max(1);
        // Both channels hold as many as can be out at the same time, before and after a reconnect.
        let room = prefetch.saturating_mul(2);
        let (deliver, deliveries) = mpsc::channel(room);
        let (give_back, returns) = mpsc::channel(room.saturating_mul(2));
        let running = Series::of(
            environment.metrics.as_deref(),
            metrics::CONSUMER_RUNNING,
            vec![Arc::clone(&planned.subscription.label)],
        );
        let subscribed = Arc::new(Subscribed::new(planned, environment, Arc::new(give_back)));
        let subscription = Arc::clone(&subscribed.planned.subscription);
        let consumer = broker.subscribe(subscription, deliver).await?;
        subscribed.gate.attach(Arc::clone(&consumer));
        let dispatcher = Dispatcher::new(Arc::clone(&subscribed), deliveries).run();
        let (end, done) = oneshot::channel();
        let returned = tokio::spawn(give_all_back(Arc::clone(&subscribed), returns, done));
        let watch = tokio::spawn(watch(Arc::clone(&consumer), running.clone()));
        let breaker = Arc::clone(&subscribed.breaker)
            .drive(Arc::clone(&subscribed.gate), Arc::clone(subscribed.label()));
        let breaker = tokio::spawn(breaker).abort_handle();
        Ok(Self {
            subscribed,
            consumer,
            dispatcher: Mutex::new(Some(tokio::spawn(dispatcher))),
            returned: Mutex::new(Some((end, returned))),
            running,
            watch: Mutex::new(Some(watch)),
            breaker,
        })
    }

    /// Stops fetching and starting; what runs goes on.
    pub async fn pause(&self) {
        self.subscribed.gate.pause().await;
    }

    /// Fetches again; what the breaker knows is forgotten.
    pub async fn resume(&self) {
        self.subscribed.breaker.reset();
        self.subscribed.gate.resume().await;
    }

    /// How it is.
    #[must_use]
    pub fn health(&self) -> SubscriptionHealth {
        SubscriptionHealth {
            label: Arc::clone(self.subscribed.label()),
            broker: Arc::clone(&self.subscribed.planned.broker),
            state: self.consumer.state(),
            breaker: self.subscribed.breaker.state(),
            in_flight: self.subscribed.in_flight.get(),
            handlers: self
                .subscribed
                .handlers
                .iter()
                .map(|handler| Arc::clone(&handler.name))
                .collect(),
        }
    }

    /// Stops for good: fetches nothing more, finishes what runs, and gives back what was not started
    /// or does not end by `deadline`. Further calls do nothing.
    pub async fn stop(&self, deadline: Instant) -> Drained {
        self.breaker.abort();
        // First, or what is given back would be handed out here again, behind what comes after it.
        if timeout_at(deadline, self.consumer.stop()).await.is_err() {
            tracing::warn!(
                subscription = &**self.subscribed.label(),
                "the consumer did not stop in time"
            );
        }
        if let Some(watch) = self.watch.lock().await.take() {
            watch.abort();
            let _ = watch.await;
            self.running.record(0.0);
        }
        self.subscribed.drain(deadline);
        if let Some(dispatcher) = self.dispatcher.lock().await.take() {
            // It ends by itself at the deadline; a panic in it has given everything back.
            let _ = dispatcher.await;
        }
        let returned = match self.returned.lock().await.take() {
            Some((end, returned)) => {
                drop(end);
                timeout_at(deadline + GIVE_BACK_MAX, returned)
                    .await
                    .map_or(0, Result::unwrap_or_default)
            }
            None => 0,
        };
        Drained { returned }
    }
}

/// Measures whether the consumer runs, for as long as it can.
async fn watch(consumer: Arc<dyn Consumer>, running: Series) {
    let mut state = consumer.state();
    while running.is_enabled() && state != ConsumerState::Stopped {
        running.record(f64::from(u8::from(state == ConsumerState::Running)));
        state = consumer.changed(state).await;
    }
    running.record(0.0);
}

/// Gives messages back whose task ended without settling them, until `done`.
async fn give_all_back(
    subscribed: Arc<Subscribed>,
    mut returns: mpsc::Receiver<Settlement>,
    mut done: oneshot::Receiver<()>,
) -> usize {
    let mut count = 0;
    loop {
        let settlement = tokio::select! {
            biased;
            Some(settlement) = returns.recv() => settlement,
            _ = &mut done => match returns.try_recv() {
                Ok(settlement) => settlement,
                Err(_) => return count,
            },
        };
        report(&subscribed, "giving back", settlement.release().await);
        count += 1;
    }
}

impl Runner {
    /// Ends it as a crash would: nothing is finished, settled or given back. For tests.
    #[doc(hidden)]
    pub async fn abandon(&self) {
        if let Some((_, returned)) = self.returned.lock().await.take() {
            returned.abort();
        }
        if let Some(watch) = self.watch.lock().await.take() {
            watch.abort();
        }
        if let Some(dispatcher) = self.dispatcher.lock().await.take() {
            dispatcher.abort();
            // Its tasks end with it.
            let _ = dispatcher.await;
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.breaker.abort();
        if let Some(watch) = self.watch.get_mut().take() {
            watch.abort();
        }
        // Stopped before, it has its deadline.
        if self.subscribed.is_running() {
            self.subscribed.drain(Instant::now());
        }
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("health", &self.health())
            .finish()
    }
}
