//! `App`: what a program puts together, and `launch`, which runs it beside the program's own parts.

mod running;
mod topology;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Rng};
use crate::config::{Config, Faults, Section};
use crate::error::{CommunicationError, Report};
use crate::handling::{BoxFuture, Middleware, PublishMiddleware};
use crate::manager::CommunicationManager;
use crate::message::Codec;
use crate::messaging::{BrokerContext, MessageBroker};
use crate::observability::metrics::MetricsSink;
use crate::plan::{Assigned, KindReport, Plan, PlanReport, Wiring};
use crate::registry::{Registry, Service, Subscriber};

pub use running::Running;
pub use topology::{AppTopology, BrokerTopology};

/// Code of the user at a turn of the app's life.
pub(crate) type Hook = Box<dyn FnOnce(Running) -> BoxFuture<'static, ()> + Send>;

/// A program: configuration, states, the services it hosts, and hooks.
///
/// ```
/// # #[cfg(all(feature = "memory", feature = "json"))]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> interline::Result<()> {
/// use interline::{App, config::Config};
///
/// struct Bank;
///
/// let config = Config::new().with("service.name", "billing");
/// let app = App::new(config).state(Bank).publish_only();
/// let running = app.launch().await?;
/// running.ready(std::time::Duration::from_secs(5)).await?;
/// running.stop_within(std::time::Duration::from_secs(5)).await;
/// # Ok(())
/// # }
/// # #[cfg(not(all(feature = "memory", feature = "json")))]
/// # fn main() {}
/// ```
pub struct App {
    wiring: Wiring,
    on_ready: Vec<Hook>,
    on_drain: Vec<Hook>,
    handle_signals: bool,
}

impl App {
    /// An app with this configuration.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            wiring: Wiring::new(config),
            on_ready: Vec::new(),
            on_drain: Vec::new(),
            handle_signals: true,
        }
    }

    /// Adds a value that handlers take as `State<S>`; one of each type.
    #[must_use]
    #[track_caller]
    pub fn state<S: Send + Sync + 'static>(mut self, value: S) -> Self {
        self.wiring.add_state(value, std::panic::Location::caller());
        self
    }

    /// Hosts the handlers of a library crate: `.with(orders::service())`. The program's own crate
    /// needs none.
    #[must_use]
    pub fn with(mut self, service: Service) -> Self {
        if !self.wiring.hosted.contains(&service) {
            self.wiring.hosted.push(service);
        }
        self
    }

    /// Runs one subscriber by name, whichever crate it stands in: `.register::<charge>()`.
    #[must_use]
    pub fn register<S: Subscriber>(mut self) -> Self {
        self.wiring.registered.push(S::DESCRIPTOR);
        self
    }

    /// Runs a subscriber on a topic (or template) that is known only now, beside its own:
    /// `.subscribe(topic, charge {})`.
    #[must_use]
    #[track_caller]
    pub fn subscribe<S: Subscriber>(mut self, topic: impl Into<String>, _: S) -> Self {
        self.wiring.assigned.push(Assigned {
            topic: topic.into(),
            descriptor: S::DESCRIPTOR,
            written: std::panic::Location::caller(),
        });
        self
    }

    /// Runs only what [`register`](Self::register) and [`subscribe`](Self::subscribe) name, whatever
    /// is linked: for tests, which share a process with each other's handlers. Clients of other
    /// services do not run by themselves, and are there.
    #[must_use]
    pub fn named_only(self) -> Self {
        self.with_registry(Registry::descriptors())
    }

    /// Reads this registry in place of what is linked.
    #[doc(hidden)]
    #[must_use]
    pub fn with_registry(mut self, registry: Registry) -> Self {
        self.wiring.registry = Some(registry);
        self
    }

    /// It has no subscribers and that is meant; otherwise an app with nothing to run is a mistake.
    #[must_use]
    pub fn publish_only(mut self) -> Self {
        self.wiring.publish_only = true;
        self
    }

    /// Adds a codec of the program's own, above a built-in one of the same name.
    #[must_use]
    pub fn codec(mut self, codec: impl Codec) -> Self {
        self.wiring.codecs.add(codec);
        self
    }

    /// Puts code around each attempt at a message; the first added is the outermost.
    #[must_use]
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.wiring.middleware.push(Arc::new(middleware));
        self
    }

    /// Puts code around each publish; the first added is the outermost.
    #[must_use]
    pub fn publish_middleware(mut self, middleware: impl PublishMiddleware) -> Self {
        self.wiring.publish_middleware.push(Arc::new(middleware));
        self
    }

    /// Sends measurements there.
    #[must_use]
    pub fn metrics(mut self, sink: Arc<dyn MetricsSink>) -> Self {
        self.wiring.metrics = Some(sink);
        self
    }

    /// Adds a kind of broker: sections of the configuration with `kind = name`, or with a URL of that
    /// scheme, are made by `factory`, without connecting. A built-in kind of that name is replaced.
    #[must_use]
    pub fn broker_kind<F>(mut self, name: impl Into<Arc<str>>, factory: F) -> Self
    where
        F: Fn(&BrokerContext, &Section<'_>, &mut Faults) -> Option<Arc<dyn MessageBroker>>
            + Send
            + Sync
            + 'static,
    {
        self.wiring.kinds.push((name.into(), Arc::new(factory)));
        self
    }

    /// Adds a backend of discovery, above one of the configuration of the same name:
    /// `[services.orders.discovery] backends = ["name"]` asks it.
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    #[must_use]
    pub fn discovery(
        mut self,
        name: impl Into<Arc<str>>,
        backend: Arc<dyn crate::discovery::Discovery>,
    ) -> Self {
        let name = name.into();
        self.wiring.discoveries.retain(|(known, _)| *known != name);
        self.wiring.discoveries.push((name, backend));
        self
    }

    /// Judges the answers of a service in place of `breaker.failures`: what says that an instance, or the
    /// whole service, does not work, for its circuits and for the choice among its instances. What the
    /// caller gets stays the same. Where nothing is answered, that is a failure without a question, and an
    /// answer that is read while it comes is judged by how it ends.
    ///
    /// ```
    /// use interline::prelude::*;
    /// use interline::resilience::Signal;
    ///
    /// # fn app(config: Config) -> App {
    /// // This one says that it cannot go on in a header, under a status of success.
    /// App::new(config).judge("orders", |answer| {
    ///     match answer.headers.contains_key("x-degraded") || answer.status.is_server_error() {
    ///         true => Signal::Failure,
    ///         false => Signal::Success,
    ///     }
    /// })
    /// # }
    /// ```
    #[cfg(feature = "http")]
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    #[must_use]
    #[track_caller]
    pub fn judge<F>(mut self, service: impl Into<Arc<str>>, judgment: F) -> Self
    where
        F: Fn(&crate::http::Judged<'_>) -> crate::resilience::Signal + Send + Sync + 'static,
    {
        let service = service.into();
        self.wiring
            .judgments
            .retain(|known| known.service != service);
        self.wiring.judgments.push(crate::http::Judging {
            service,
            judgment: Arc::new(judgment),
            written: std::panic::Location::caller(),
        });
        self
    }

    /// Uses this broker under its own name, in place of what the configuration says about that name:
    /// for tests.
    #[must_use]
    pub fn broker(mut self, broker: Arc<dyn MessageBroker>) -> Self {
        let name = Arc::clone(broker.name());
        self.wiring.brokers.retain(|(known, _)| *known != name);
        self.wiring.brokers.push((name, broker));
        self
    }

    /// Reads wall time from `clock`.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.wiring.clock = clock;
        self
    }

    /// Makes chance repeatable: jitter, identifiers, the instance's name.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.wiring.rng = Rng::with_seed(seed);
        self
    }

    /// Names this run of the service; host, process and chance unless given. It has to be unique:
    /// two instances of one name share what `each_instance` keeps apart.
    #[must_use]
    pub fn instance(mut self, name: impl Into<Arc<str>>) -> Self {
        self.wiring.instance = Some(name.into());
        self
    }

    /// How long going down may take; above `[drain] timeout`, 25 s unless set.
    #[must_use]
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.wiring.drain_timeout = Some(limit);
        self
    }

    /// Whether [`start`](crate::runtime::start) goes down on SIGTERM and SIGINT (Windows: Ctrl-C);
    /// it does unless told otherwise.
    #[must_use]
    pub fn handle_signals(mut self, handle: bool) -> Self {
        self.handle_signals = handle;
        self
    }

    /// Runs when the app has become ready for the first time.
    #[must_use]
    pub fn on_ready<F, R>(mut self, hook: F) -> Self
    where
        F: FnOnce(Running) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.on_ready.push(boxed(hook));
        self
    }

    /// Runs when the app begins to go down: it is not ready any more and still fetches. The time it
    /// takes counts.
    #[must_use]
    pub fn on_drain<F, R>(mut self, hook: F) -> Self
    where
        F: FnOnce(Running) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.on_drain.push(boxed(hook));
        self
    }

    /// Makes the plan and stops: for a unit test of the wiring, and for `--check` in a pipeline. It
    /// needs no server.
    ///
    /// # Errors
    /// A report of every mistake.
    pub fn check(&self) -> Result<PlanReport, Report> {
        let plan = Plan::build(&self.wiring)?;
        Ok(PlanReport::new(&plan))
    }

    /// What changes if its brokers are of another kind; see
    /// [`runtime::check_as`](crate::runtime::check_as).
    ///
    /// # Errors
    /// A report of every mistake that the app has as it is configured, or of what is wrong with `kind`.
    pub fn check_as(&self, kind: &str) -> Result<KindReport, Report> {
        Ok(KindReport::of(&self.wiring, kind)?)
    }

    /// What the app needs on its brokers; see [`runtime::topology`](crate::runtime::topology).
    ///
    /// # Errors
    /// A report of every mistake.
    pub fn topology(&self) -> Result<AppTopology, Report> {
        let mut wiring = self.wiring.clone();
        wiring.read_only = true;
        Ok(AppTopology::of(&Plan::build(&wiring)?))
    }

    /// Starts everything and returns while it runs. A broker that cannot be reached is tried again
    /// until it can.
    ///
    /// # Errors
    /// Every mistake in the wiring at once; or what a broker refused for good.
    pub async fn launch(self) -> Result<Running, CommunicationError> {
        self.planned()?.launch().await
    }

    /// Makes the plan.
    pub(crate) fn planned(self) -> Result<Planned, CommunicationError> {
        Ok(Planned {
            manager: Arc::new(CommunicationManager::new(self.wiring)?),
            on_ready: self.on_ready,
            on_drain: self.on_drain,
        })
    }

    pub(crate) fn handles_signals(&self) -> bool {
        self.handle_signals
    }
}

/// An app whose plan is made.
pub(crate) struct Planned {
    pub(crate) manager: Arc<CommunicationManager>,
    on_ready: Vec<Hook>,
    on_drain: Vec<Hook>,
}

impl Planned {
    pub(crate) async fn launch(self) -> Result<Running, CommunicationError> {
        self.manager.initialize().await?;
        let running = Running::new(self.manager, self.on_drain);
        running.when_ready(self.on_ready);
        #[cfg(feature = "http")]
        running.register_when_ready();
        Ok(running)
    }
}

fn boxed<F, R>(hook: F) -> Hook
where
    F: FnOnce(Running) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    Box::new(move |running| Box::pin(hook(running)))
}

impl From<Config> for App {
    fn from(config: Config) -> Self {
        Self::new(config)
    }
}

impl From<App> for Wiring {
    fn from(app: App) -> Self {
        app.wiring
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("wiring", &self.wiring)
            .field("handle_signals", &self.handle_signals)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(all(feature = "memory", feature = "json"))]
mod tests;
