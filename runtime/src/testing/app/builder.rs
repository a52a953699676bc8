//! How a test app is put together.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::clock::{Rng, TokioClock};
use crate::config::{Config, Faults};
use crate::error::{CommunicationError, Report};
use crate::handling::{Middleware, PublishMiddleware, Publisher};
use crate::launch::App;
use crate::message::Codec;
use crate::messaging::memory::{MemoryBroker, MemoryOptions, MemoryStore};
use crate::messaging::{BrokerContext, MAIN_BROKER, MessageBroker, PublishTarget, Publishing};
use crate::observability::metrics::InMemoryMetrics;
use crate::plan::{Plan, PlanReport, Wiring};
use crate::registry::{Registry, Service, Subscriber};

use super::process::{Process, naming_prefix};
use super::{TestApp, instance, seed};

/// How long `settle` may take in real time unless the test says otherwise.
const SETTLE_LIMIT_DEFAULT: Duration = Duration::from_secs(30);
/// What the wall clock reads when a test begins: 2026-01-01T00:00:00Z, always the same.
const BEGINNING: Duration = Duration::from_secs(1_767_225_600);
/// The instance as which the test itself publishes.
const OUTSIDE: &str = "test";

/// Puts a [`TestApp`] together; made by [`TestApp::new`] or [`TestApp::of`].
#[must_use = "a test app does nothing until it is started"]
pub struct TestAppBuilder {
    app: App,
    config: Option<Config>,
    seed: Option<u64>,
    settle_limit: Duration,
    #[cfg(feature = "http")]
    script: Option<super::super::ScriptedDiscovery>,
    #[cfg(feature = "http")]
    upstreams: Vec<super::super::Upstream>,
}

impl TestAppBuilder {
    pub(super) fn new(app: App) -> Self {
        Self {
            app,
            config: None,
            seed: None,
            settle_limit: SETTLE_LIMIT_DEFAULT,
            #[cfg(feature = "http")]
            script: None,
            #[cfg(feature = "http")]
            upstreams: Vec::new(),
        }
    }

    /// Runs this subscriber: `.register::<charge>()`.
    pub fn register<S: Subscriber>(self) -> Self {
        self.map(App::register::<S>)
    }

    /// Runs this subscriber on a topic that is known only at run time; see [`App::subscribe`].
    #[track_caller]
    pub fn subscribe<S: Subscriber>(mut self, topic: impl Into<String>, subscriber: S) -> Self {
        self.app = self.app.subscribe(topic, subscriber);
        self
    }

    /// Runs what a library crate holds, and with it whatever else would run in this program; see
    /// [`discovered`](Self::discovered).
    pub fn with(self, service: Service) -> Self {
        self.discovered().map(|app| app.with(service))
    }

    /// Runs what the app would run by itself: the handlers of the program's own crate and of the
    /// services that are named. For a test of the wiring.
    pub fn discovered(self) -> Self {
        self.map(|app| app.with_registry(Registry::linked()))
    }

    /// It has no subscribers and that is meant.
    pub fn publish_only(self) -> Self {
        self.map(App::publish_only)
    }

    /// Adds a value that handlers take as `State<S>`. It outlives crashes and restarts, as if it
    /// stood beside the process.
    #[track_caller]
    pub fn state<S: Send + Sync + 'static>(mut self, value: S) -> Self {
        self.app = self.app.state(value);
        self
    }

    /// With this configuration. Brokers keep their names and settings of topology and publishing;
    /// each of them is an embedded one.
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// Services are where this one says, whatever the configuration names: it stands in for each backend
    /// of discovery there, and services of which it has said something need no configuration.
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn discovery(mut self, script: &super::super::ScriptedDiscovery) -> Self {
        self.script = Some(script.clone());
        self
    }

    /// Calls of this service go to the instances of the upstream and to nobody else. Its configuration
    /// counts, if there is one, but for where the service is.
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn upstream(mut self, upstream: &super::super::Upstream) -> Self {
        self.upstreams.push(upstream.clone());
        self
    }

    /// Fixes the seed of jitter, identifiers and random faults. The variable `INTERLINE_TEST_SEED`
    /// stands above it; without either it is a new one each time.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Adds a codec.
    pub fn codec(self, codec: impl Codec) -> Self {
        self.map(|app| app.codec(codec))
    }

    /// Puts code around each attempt at a message.
    pub fn middleware(self, middleware: impl Middleware) -> Self {
        self.map(|app| app.middleware(middleware))
    }

    /// Puts code around each publish of the app.
    pub fn publish_middleware(self, middleware: impl PublishMiddleware) -> Self {
        self.map(|app| app.publish_middleware(middleware))
    }

    /// How long one `settle` may take in real time, 30 s unless set.
    pub fn settle_limit(mut self, limit: Duration) -> Self {
        self.settle_limit = limit;
        self
    }

    /// Makes the plan and stops, as [`App::check`] does, but with embedded brokers.
    ///
    /// # Errors
    /// A report of every mistake in the wiring.
    pub fn check(self) -> Result<PlanReport, Report> {
        let seed = seed::choose(self.seed);
        let (mut wiring, stores) = self.wiring(seed, &InMemoryMetrics::default());
        wiring.brokers = outside(&wiring, &stores);
        Ok(PlanReport::new(&Plan::build(&wiring)?))
    }

    /// Starts the app and waits until it is ready.
    ///
    /// # Panics
    /// If the wiring has mistakes, with all of them.
    pub async fn start(self) -> TestApp {
        match self.try_start().await {
            Ok(app) => app,
            Err(error) => panic!("the app does not start: {error}"),
        }
    }

    /// Starts the app and waits until it is ready.
    ///
    /// # Errors
    /// Every mistake in the wiring at once.
    pub async fn try_start(self) -> Result<TestApp, CommunicationError> {
        let seed = seed::choose(self.seed);
        let settle_limit = self.settle_limit;
        #[cfg(feature = "http")]
        let upstreams = self.upstreams.clone();
        let metrics = InMemoryMetrics::default();
        let (wiring, stores) = self.wiring(seed, &metrics);
        let outside = outside_publisher(&wiring, &stores).await?;
        let process = Process::start(wiring.clone(), &stores, instance(1)).await?;
        Ok(TestApp {
            wiring,
            stores,
            metrics,
            outside,
            process: Mutex::new(Arc::new(process)),
            runs: Mutex::new(1),
            sent: Mutex::new(BTreeSet::new()),
            seed,
            settle_limit,
            #[cfg(feature = "http")]
            upstreams,
            told: AtomicBool::new(false),
        })
    }

    /// What the app is made from, and a store for each of its brokers, the main one first.
    fn wiring(self, seed: u64, metrics: &InMemoryMetrics) -> (Wiring, Stores) {
        let mut wiring = Wiring::from(self.app);
        if let Some(config) = self.config {
            wiring.config = config;
        }
        #[cfg(feature = "http")]
        if let Some(script) = &self.script {
            script.stand_in(&mut wiring);
        }
        wiring.rng = Rng::with_seed(seed);
        wiring.clock = Arc::new(TokioClock::starting_at(SystemTime::UNIX_EPOCH + BEGINNING));
        wiring.metrics = Some(Arc::new(metrics.clone()));
        let section = wiring.config.section("brokers");
        let entries = section.entries(&mut Faults::new());
        let mut names: Vec<Arc<str>> = vec![MAIN_BROKER.into()];
        let configured = entries.iter().map(|(name, _)| *name);
        names.extend(
            configured
                .filter(|name| *name != MAIN_BROKER)
                .map(Arc::from),
        );
        let store = |name: Arc<str>| (name, MemoryStore::new(MemoryOptions::for_tests(seed)));
        let stores: Stores = names.into_iter().map(store).collect();
        #[cfg(feature = "http")]
        for upstream in &self.upstreams {
            upstream.stand_in(&mut wiring, &stores[0].1);
        }
        (wiring, stores)
    }

    fn map(mut self, change: impl FnOnce(App) -> App) -> Self {
        self.app = change(self.app);
        self
    }
}

impl fmt::Debug for TestAppBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestAppBuilder")
            .field("app", &self.app)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

type Stores = Vec<(Arc<str>, MemoryStore)>;

/// Connections of the test itself, so that it can publish while the app is down.
fn outside(wiring: &Wiring, stores: &Stores) -> Vec<(Arc<str>, Arc<dyn MessageBroker>)> {
    let prefix = naming_prefix(wiring);
    let connect = |(name, store): &(Arc<str>, MemoryStore)| {
        let mut context = BrokerContext::new(Arc::clone(name), OUTSIDE, OUTSIDE);
        context.prefix.clone_from(&prefix);
        context.clock = Arc::clone(&wiring.clock);
        let broker = MemoryBroker::new(store, &context);
        (Arc::clone(name), Arc::new(broker) as Arc<dyn MessageBroker>)
    };
    stores.iter().map(connect).collect()
}

/// A publisher that reaches the brokers as another service would, with the app's routes and limits.
async fn outside_publisher(
    wiring: &Wiring,
    stores: &Stores,
) -> Result<Publisher, CommunicationError> {
    let mut wiring = wiring.clone();
    wiring.brokers = outside(&wiring, stores);
    let plan = Plan::build(&wiring)?;
    for planned in &plan.brokers {
        planned.broker.connect().await?;
    }
    let targets = plan.brokers.iter().map(|planned| {
        let broker = Arc::clone(&planned.broker);
        PublishTarget::new(broker, planned.limits, planned.codec.clone())
    });
    let codecs = Arc::new(wiring.codecs.clone());
    let publishing = Publishing::new(targets.collect(), plan.routes, codecs, Arc::new([]), None);
    Ok(Publisher::new(
        publishing,
        OUTSIDE.into(),
        wiring.clock,
        wiring.rng,
    ))
}
