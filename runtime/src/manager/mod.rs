//! The manager: builds everything from the plan, runs it, and takes it down again.

mod dead_letters;
mod durability;
mod found;
mod health;
mod positions;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::config::suggest::suggest;
use crate::error::{CommunicationError, CommunicationErrorKind};
use crate::handling::{Publisher, describe};
use crate::message::Codecs;
use crate::messaging::{
    BrokerError, Drained, Environment, MessageBroker, PlannedSubscription, PublishTarget,
    Publishing, Runner,
};
use crate::plan::{Plan, PlanReport, PlannedBroker, Wiring};

pub use health::{BrokerStatus, Health};

use durability::{Durability, Refusals};

/// How often readiness is looked at while somebody waits for it.
const READY_POLL: Duration = Duration::from_millis(20);
/// How long connections may take to close when the start failed.
const ABORT_MAX: Duration = Duration::from_secs(5);
/// What is kept of a drain's time for publishes and connections, at most.
const CLOSING_MAX: Duration = Duration::from_secs(5);

/// Connects brokers, runs subscriptions, publishes, and goes down in order.
///
/// [`App::launch`](crate::App::launch) makes one and starts it; by itself it is for programs that
/// want the steps one by one.
///
/// ```
/// # #[cfg(all(feature = "memory", feature = "json"))]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> interline::Result<()> {
/// use interline::{App, CommunicationManager, config::Config};
///
/// let config = Config::new().with("service.name", "billing");
/// let manager = CommunicationManager::new(App::new(config).publish_only())?;
/// manager.initialize().await?;
/// assert!(manager.message_broker("main").is_some());
/// assert!(manager.health().ready);
/// manager.shutdown(tokio::time::Instant::now() + std::time::Duration::from_secs(5)).await;
/// # Ok(())
/// # }
/// # #[cfg(not(all(feature = "memory", feature = "json")))]
/// # fn main() {}
/// ```
pub struct CommunicationManager {
    service: Arc<str>,
    report: PlanReport,
    brokers: Vec<PlannedBroker>,
    subscriptions: Vec<PlannedSubscription>,
    environment: Arc<Environment>,
    publishing: Arc<Publishing>,
    publisher: Publisher,
    runners: Mutex<Vec<Arc<Runner>>>,
    phase: watch::Sender<Phase>,
    refusals: Refusals,
    drain_timeout: Duration,
    #[cfg(feature = "http")]
    services: crate::http::Services,
    #[cfg(feature = "http")]
    discovery: crate::discovery::ServiceDiscoveryManager,
    /// What follows the services.
    #[cfg(feature = "http")]
    following: Mutex<Vec<tokio::task::AbortHandle>>,
}

/// How far an app has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Planned,
    Starting,
    Running,
    Draining,
    Closing,
    Stopped,
}

impl CommunicationManager {
    /// Makes the plan of an app. Connects to nothing.
    ///
    /// # Errors
    /// Of kind [`Plan`](CommunicationErrorKind::Plan), with every mistake in the wiring.
    pub fn new(app: impl Into<Wiring>) -> Result<Self, CommunicationError> {
        let wiring = app.into();
        let plan = Plan::build(&wiring)?;
        Ok(Self::from_plan(plan, &wiring))
    }

    fn from_plan(plan: Plan, wiring: &Wiring) -> Self {
        let report = PlanReport::new(&plan);
        let codecs: Arc<Codecs> = Arc::new(wiring.codecs.clone());
        let targets = plan.brokers.iter().map(|planned| {
            let broker = Arc::clone(&planned.broker);
            PublishTarget::new(broker, planned.limits, planned.codec.clone())
        });
        let publishing = Publishing::new(
            targets.collect(),
            plan.routes,
            Arc::clone(&codecs),
            wiring.publish_middleware.clone().into(),
            wiring.metrics.clone(),
        );
        let mut environment = Environment::new(
            codecs,
            Arc::clone(&wiring.clock),
            wiring.rng.clone(),
            publishing.clone(),
        );
        environment.metrics.clone_from(&wiring.metrics);
        environment.middleware = wiring.middleware.clone().into();
        environment.crash_points.clone_from(&wiring.crash_points);
        let publisher = Publisher::new(
            publishing.clone(),
            Arc::clone(&plan.service),
            Arc::clone(&wiring.clock),
            wiring.rng.clone(),
        );
        Self {
            service: plan.service,
            report,
            brokers: plan.brokers,
            subscriptions: plan.subscriptions,
            environment: Arc::new(environment),
            publishing,
            publisher,
            runners: Mutex::default(),
            phase: watch::Sender::new(Phase::Planned),
            refusals: Refusals::default(),
            drain_timeout: plan.drain_timeout,
            #[cfg(feature = "http")]
            services: plan.services,
            #[cfg(feature = "http")]
            discovery: plan.discovery,
            #[cfg(feature = "http")]
            following: Mutex::default(),
        }
    }

    /// What was decided, in words.
    #[must_use]
    pub fn report(&self) -> &PlanReport {
        &self.report
    }

    /// How long going down may take, as configured.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        self.drain_timeout
    }

    /// Connects to every broker and starts every subscription. A broker that cannot be reached is no
    /// error: it is tried again until it can, and the app is not ready meanwhile.
    ///
    /// # Errors
    /// Of kind [`MessageBroker`](CommunicationErrorKind::MessageBroker) if trying again cannot help:
    /// wrong credentials, a missing permission, a queue that differs, settings that can lose
    /// acknowledged messages where `require_durable` is set. All brokers' errors are in it, and everything that was started is taken down. Of kind
    /// [`Shutdown`](CommunicationErrorKind::Shutdown) if it was called before.
    pub async fn initialize(&self) -> Result<(), CommunicationError> {
        let begun = self.phase.send_if_modified(|phase| {
            let planned = *phase == Phase::Planned;
            if planned {
                *phase = Phase::Starting;
            }
            planned
        });
        if !begun {
            return Err(CommunicationError::new(
                CommunicationErrorKind::Shutdown,
                "`initialize` was called before; an app is started once",
            ));
        }
        #[cfg(feature = "http")]
        self.following
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(self.services.follow());
        let mut errors = self.connect_all().await;
        if errors.is_empty() {
            errors = self.start_all().await;
        }
        if errors.is_empty() {
            if self.advance(Phase::Running) {
                return Ok(());
            }
            // Taken down meanwhile: what was started after that is stopped here.
            let runners = self.runners().clone();
            for runner in runners {
                runner.stop(Instant::now()).await;
            }
            let text = "the app was taken down while it started";
            return Err(CommunicationError::new(
                CommunicationErrorKind::Shutdown,
                text,
            ));
        }
        self.shutdown(Instant::now() + ABORT_MAX).await;
        Err(all_of(errors))
    }

    async fn connect_all(&self) -> Vec<BrokerError> {
        let mut attempts = JoinSet::new();
        for planned in &self.brokers {
            let broker = Arc::clone(&planned.broker);
            let subscriptions = self
                .subscriptions
                .iter()
                .filter(|subscription| subscription.broker == *broker.name())
                .map(|planned| Arc::clone(&planned.subscription));
            let durability = Durability {
                broker: Arc::clone(&broker),
                subscriptions: subscriptions.collect(),
                required: planned.require_durable,
            };
            let (phase, refusals) = (self.phase.subscribe(), self.refusals.clone());
            attempts.spawn(async move {
                broker.connect().await?;
                durability.check(phase, refusals).await
            });
        }
        let results = attempts.join_all().await;
        results.into_iter().filter_map(Result::err).collect()
    }

    async fn start_all(&self) -> Vec<BrokerError> {
        let mut errors = Vec::new();
        for planned in &self.subscriptions {
            let Some(broker) = self.message_broker(&planned.broker) else {
                continue;
            };
            let environment = Arc::clone(&self.environment);
            match Runner::start(planned.clone(), broker, environment).await {
                Ok(runner) => self.runners().push(Arc::new(runner)),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// The broker of this name.
    #[must_use]
    pub fn message_broker(&self, name: &str) -> Option<Arc<dyn MessageBroker>> {
        let mut brokers = self.brokers.iter().map(|planned| &planned.broker);
        brokers.find(|broker| &**broker.name() == name).cloned()
    }

    /// Publishes for the service.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// The client of this type: `manager.client::<OrdersClient>()`.
    ///
    /// # Errors
    /// Of kind [`ServiceDiscovery`](CommunicationErrorKind::ServiceDiscovery) if its service is not
    /// configured, with what to write.
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn client<C: crate::http::ServiceClient>(&self) -> Result<C, CommunicationError> {
        self.services.client().map_err(not_configured)
    }

    /// A client without a trait of the service of this name.
    ///
    /// # Errors
    /// Of kind [`ServiceDiscovery`](CommunicationErrorKind::ServiceDiscovery) if the service is not
    /// configured, with what to write.
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn http_client(&self, name: &str) -> Result<crate::http::HttpClient, CommunicationError> {
        self.services.http_client(name).map_err(not_configured)
    }

    /// Where services are, and where instances are registered.
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    #[must_use]
    pub fn discovery(&self) -> &crate::discovery::ServiceDiscoveryManager {
        &self.discovery
    }

    /// How everything is. Answers at once.
    #[must_use]
    pub fn health(&self) -> Health {
        let phase = *self.phase.borrow();
        let brokers = self.brokers.iter().map(|planned| BrokerStatus {
            name: Arc::clone(planned.broker.name()),
            kind: planned.broker.kind(),
            health: planned.broker.health_check(),
            refused: self.refusals.of(planned.broker.name()),
        });
        let mut health = Health {
            service: Arc::clone(&self.service),
            live: phase != Phase::Stopped,
            ready: false,
            draining: phase >= Phase::Draining,
            declared: self.subscriptions.len(),
            brokers: brokers.collect(),
            subscriptions: self
                .runners()
                .iter()
                .map(|runner| runner.health())
                .collect(),
            #[cfg(feature = "http")]
            services: self.services.discovery(),
            #[cfg(feature = "http")]
            registrations: self.discovery.registrations(),
        };
        health.ready = phase == Phase::Running && health.obstacles().is_empty();
        health
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// Of kind [`Timeout`](CommunicationErrorKind::Timeout) after `limit`, with what is in the way;
    /// of kind [`Shutdown`](CommunicationErrorKind::Shutdown) if it goes down.
    pub async fn ready(&self, limit: Duration) -> Result<(), CommunicationError> {
        let deadline = Instant::now() + limit;
        loop {
            let health = self.health();
            if health.ready {
                return Ok(());
            }
            if health.draining {
                let text = "the app is going down, it will not become ready";
                return Err(CommunicationError::new(
                    CommunicationErrorKind::Shutdown,
                    text,
                ));
            }
            let next = Instant::now() + READY_POLL;
            if next > deadline {
                let obstacles = health.obstacles();
                let why = if obstacles.is_empty() {
                    "it is still starting".to_owned()
                } else {
                    obstacles.join("; ")
                };
                let text = format!("not ready: {why}");
                return Err(CommunicationError::new(
                    CommunicationErrorKind::Timeout,
                    text,
                ));
            }
            tokio::time::sleep_until(next).await;
        }
    }

    /// Stops fetching for this subscriber, and for those that share its subscription. What runs goes
    /// on. If this instance is the one that reads what is ordered by key, no other one takes over while
    /// it is paused.
    ///
    /// # Errors
    /// If there is no such subscriber.
    pub async fn pause(&self, subscriber: &str) -> Result<(), CommunicationError> {
        for runner in self.runners_of(subscriber)? {
            runner.pause().await;
        }
        Ok(())
    }

    /// Fetches again after [`pause`](Self::pause).
    ///
    /// # Errors
    /// If there is no such subscriber.
    pub async fn resume(&self, subscriber: &str) -> Result<(), CommunicationError> {
        for runner in self.runners_of(subscriber)? {
            runner.resume().await;
        }
        Ok(())
    }

    fn runners_of(&self, subscriber: &str) -> Result<Vec<Arc<Runner>>, CommunicationError> {
        let runners = self.runners();
        let names = runners.iter().flat_map(|runner| runner.health().handlers);
        let names: Vec<Arc<str>> = names.collect();
        let found = runners.iter().filter(|runner| {
            let handlers = runner.health().handlers;
            handlers.iter().any(|name| &**name == subscriber)
        });
        let found: Vec<_> = found.cloned().collect();
        if found.is_empty() {
            let meant = suggest(subscriber, names.iter().map(|name| &**name));
            let meant = meant.map_or(String::new(), |meant| format!("; did you mean `{meant}`?"));
            let text = format!("no subscriber `{subscriber}` is running{meant}");
            return Err(CommunicationError::new(CommunicationErrorKind::Plan, text));
        }
        Ok(found)
    }

    /// Not ready any more: the first step of going down, so that nobody sends new work here.
    pub(crate) fn begin_draining(&self) {
        self.advance(Phase::Draining);
    }

    /// Nobody finds it any more: the second step of going down, while everything still works.
    pub(crate) async fn leave(&self, deadline: Instant) {
        #[cfg(feature = "http")]
        self.discovery.leave(deadline).await;
        #[cfg(not(feature = "http"))]
        let _ = deadline;
    }

    /// Waits until it is down.
    pub(crate) async fn stopped(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as `self`.
        let _ = phase.wait_for(|phase| *phase == Phase::Stopped).await;
    }

    /// Goes down in order: handles what an embedded broker still holds, stops fetching, finishes or gives back what is in flight, waits for
    /// publishes, closes the connections. Handlers have until shortly before `deadline`. A second
    /// call waits for the first.
    pub async fn shutdown(&self, deadline: Instant) -> Drained {
        if !self.advance(Phase::Closing) {
            // The first call ends by its own deadline.
            let _ = timeout_at(deadline, self.stopped()).await;
            return Drained::default();
        }
        self.leave(deadline).await;
        let left = deadline.saturating_duration_since(Instant::now());
        let handlers_until = deadline - CLOSING_MAX.min(left / 4);
        // What only this process holds would be gone with it: it is handled first.
        for planned in &self.brokers {
            let _ = timeout_at(handlers_until, planned.broker.quiet()).await;
        }
        let mut stopping = JoinSet::new();
        for runner in self.runners().clone() {
            stopping.spawn(async move { runner.stop(handlers_until).await });
        }
        let mut drained = Drained::default();
        for one in stopping.join_all().await {
            drained.returned += one.returned;
        }
        if !self.publishing.close(deadline).await {
            tracing::warn!("some publishes did not end in time; their outcome is unknown");
        }
        let mut closing = JoinSet::new();
        for planned in &self.brokers {
            let broker = Arc::clone(&planned.broker);
            closing.spawn(async move { broker.disconnect(deadline).await });
        }
        closing.join_all().await;
        // Last, because handlers call services until they have ended.
        self.follow_no_more();
        self.advance(Phase::Stopped);
        drained
    }

    /// Ends as a crash does: nothing is finished, settled or given back. Its connections are for the
    /// caller to cut.
    #[cfg(feature = "testing")]
    pub(crate) async fn abandon(&self) {
        #[cfg(feature = "http")]
        self.discovery.abandon();
        let mut ending = JoinSet::new();
        for runner in std::mem::take(&mut *self.runners()) {
            ending.spawn(async move { runner.abandon().await });
        }
        ending.join_all().await;
        self.follow_no_more();
        self.advance(Phase::Stopped);
    }

    fn follow_no_more(&self) {
        #[cfg(feature = "http")]
        for task in &*self
            .following
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        {
            task.abort();
        }
    }

    /// Goes on to a later phase. Returns whether it was not there yet.
    fn advance(&self, to: Phase) -> bool {
        self.phase.send_if_modified(|phase| {
            let later = *phase < to;
            if later {
                *phase = to;
            }
            later
        })
    }

    fn runners(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Runner>>> {
        self.runners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CommunicationManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommunicationManager")
            .field("service", &self.service)
            .field("phase", &*self.phase.borrow())
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "http")]
fn not_configured((message, help): (String, String)) -> CommunicationError {
    let text = format!("{message}; {help}");
    CommunicationError::new(CommunicationErrorKind::ServiceDiscovery, text)
}

/// One error for all that went wrong.
fn all_of(mut errors: Vec<BrokerError>) -> CommunicationError {
    if errors.len() == 1 {
        return errors.remove(0).into();
    }
    let mut texts: Vec<String> = errors.iter().map(|error| describe(error)).collect();
    texts.sort();
    texts.dedup();
    let text = format!(
        "{} errors of brokers\n  {}",
        texts.len(),
        texts.join("\n  ")
    );
    CommunicationError::new(CommunicationErrorKind::MessageBroker, text)
}
