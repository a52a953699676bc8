//! Another service as its callers see it, by a script and without a network.

mod answer;
#[doc(hidden)]
pub mod assertions;
mod body;
mod carrier;
mod flight;
mod instance;
mod request;
mod route;
mod script;

use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::discovery::{Discovery, Endpoint, EndpointSet, Feed, Following, Query};
use crate::messaging::memory::MemoryStore;
use crate::plan::Wiring;

use super::app::lock;
use super::discovery::{Said, follow};
use carrier::Carrier;
use flight::Flights;
use instance::Instance;
use route::Route;
use script::{Respond, Script};

pub use answer::Answer;
pub use instance::UpstreamInstance;
pub use request::UpstreamRequest;

/// Another service, for tests of those that call it: its instances answer by a script, and what goes wrong
/// with them, the test decides. Cheap to clone; every clone is the same one.
///
/// There is no server and no network, but everything else is there: the choice among the instances, deadlines,
/// repeats, circuits, limits, the cache. All of it goes by virtual time where the test does, so that a
/// time-out of 30 s takes none.
///
/// ```
/// # #[cfg(feature = "macros")]
/// # mod example {
/// use interline::prelude::*;
/// use interline::testing::{Answer, TestApp, Upstream};
/// use interline::assert_called;
///
/// #[service_client(service = "stock")]
/// trait Stock {
///     #[get("/items/{id}")]
///     async fn count(&self, id: u32) -> Result<u64, CallError>;
/// }
///
/// # pub async fn example() -> Result<(), CallError> {
/// let stock = Upstream::new("stock");
/// stock.answer("GET /items/{id}", Answer::json(&12));
/// stock.next("GET /items/{id}", [Answer::status(503), Answer::reset()]); // and then as above
/// let config = Config::new().with("service.name", "billing");
/// let app = TestApp::new().config(config).upstream(&stock).publish_only().start().await;
///
/// let client: StockClient = app.client();
/// assert_eq!(client.count(7).await?, 12);
/// let asked = assert_called!(app, stock, "GET /items/7", times = 3);
/// assert_eq!(asked[2].attempt(), Some(3));
/// # Ok(())
/// # }
/// # }
/// # #[cfg(feature = "macros")]
/// # fn main() {
/// #     let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
/// #     runtime.unwrap().block_on(example::example()).unwrap();
/// # }
/// # #[cfg(not(feature = "macros"))]
/// # fn main() {}
/// ```
///
/// A service needs no configuration for this; one that is configured keeps its settings, and its addresses
/// are those of the instances unless the test [names others](Self::instance). A request that the script has
/// no answer to gets a 501 that says so. Active checks are answered by themselves wherever they ask, and so
/// is `/health/ready`.
#[derive(Clone)]
pub struct Upstream(Arc<Shared>);

pub(in crate::testing) struct Shared {
    service: Arc<str>,
    /// What every instance answers that has nothing of its own to say.
    script: Mutex<Script>,
    instances: Mutex<Vec<Arc<Instance>>>,
    requests: Mutex<Vec<UpstreamRequest>>,
    flights: Arc<Flights>,
    /// Why discovery fails, for as long as it does.
    failing: Mutex<Option<String>>,
    said: watch::Sender<Said>,
}

impl Shared {
    /// The instance at this address.
    fn at(&self, authority: &str) -> Option<Arc<Instance>> {
        let instances = lock(&self.instances);
        let mut instances = instances.iter();
        instances.find(|one| one.authority == authority).cloned()
    }

    /// The instance of this endpoint, which is there from now on.
    fn instance(&self, endpoint: Endpoint) -> Arc<Instance> {
        let mut instances = lock(&self.instances);
        let known = instances
            .iter()
            .find(|one| one.endpoint.url() == endpoint.url());
        if let Some(known) = known {
            return Arc::clone(known);
        }
        let new = Arc::new(Instance::new(endpoint));
        instances.push(Arc::clone(&new));
        drop(instances);
        self.tell();
        new
    }

    /// Where the test has not said which instances there are, there are those of the configuration, or one.
    fn adopt(&self, configured: Option<&EndpointSet>) {
        let named = !lock(&self.instances).is_empty();
        if named {
            return;
        }
        for endpoint in configured.into_iter().flat_map(EndpointSet::iter) {
            self.instance(endpoint.clone());
        }
        if configured.is_none_or(|configured| configured.iter().next().is_none()) {
            let url = format!("http://{}", self.service);
            match Endpoint::parse(&url) {
                Ok(endpoint) => drop(self.instance(endpoint)),
                Err(why) => panic!("`{url}` {why}; name the instances of the upstream"),
            }
        }
    }

    /// Tells discovery of the instances of now, or that it fails: what changes meanwhile is not heard.
    fn tell(&self) {
        let instances = lock(&self.instances);
        if let Some(why) = &*lock(&self.failing) {
            self.said.send_replace(Said::Failure(why.clone()));
            return;
        }
        let listed = instances.iter().filter(|one| lock(&one.state).is_listed);
        let endpoints = listed.map(|one| one.endpoint.clone()).collect();
        self.said.send_replace(Said::Endpoints(endpoints));
    }
}

impl Upstream {
    /// The service of this name, as clients say it.
    #[must_use]
    pub fn new(service: &str) -> Self {
        Self(Arc::new(Shared {
            service: service.into(),
            script: Mutex::default(),
            instances: Mutex::default(),
            requests: Mutex::default(),
            flights: Arc::default(),
            failing: Mutex::default(),
            said: watch::Sender::default(),
        }))
    }

    /// The name of the service.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.0.service
    }

    /// Answers every request of this route so, unless something else is said later or of an instance.
    ///
    /// A route is a method and the template of a path, the base of the client included:
    /// `GET /items/{id}`; `/items/{id}` is for every method, `*` for everything.
    ///
    /// # Panics
    /// If it is no route.
    #[track_caller]
    pub fn answer(&self, route: &str, answer: Answer) -> &Self {
        let route = Route::parse(route);
        lock(&self.0.script).stand(route, Respond::Always(answer));
        self
    }

    /// Answers every request of this route as `respond` says; the whole request is read before that.
    ///
    /// ```
    /// # use interline::testing::{Answer, Upstream};
    /// # let stock = Upstream::new("stock");
    /// stock.answer_with("GET /items/{id}", |request| match request.segment("id") {
    ///     Some("7") => Answer::json(&12),
    ///     _ => Answer::status(404),
    /// });
    /// ```
    ///
    /// # Panics
    /// As [`answer`](Self::answer).
    #[track_caller]
    pub fn answer_with(
        &self,
        route: &str,
        respond: impl Fn(&UpstreamRequest) -> Answer + Send + Sync + 'static,
    ) -> &Self {
        let route = Route::parse(route);
        lock(&self.0.script).stand(route, Respond::By(Arc::new(respond)));
        self
    }

    /// Gives each of these answers once, in their order, to the next requests of this route, and after
    /// those that were said before.
    ///
    /// # Panics
    /// As [`answer`](Self::answer).
    #[track_caller]
    pub fn next(&self, route: &str, answers: impl IntoIterator<Item = Answer>) -> &Self {
        let route = Route::parse(route);
        lock(&self.0.script).add_next(&route, answers);
        self
    }

    /// The instance at this address (`stock-2`, `http://stock-2:8080`), which is there from now on and which
    /// discovery names. Named before the app starts, it stands in the place of those that the
    /// configuration names.
    ///
    /// # Panics
    /// If it is no address.
    #[track_caller]
    pub fn instance(&self, url: &str) -> UpstreamInstance {
        let whole = match url.contains("://") {
            true => url.to_owned(),
            false => format!("http://{url}"),
        };
        match Endpoint::parse(&whole) {
            Ok(endpoint) => self.instance_of(endpoint),
            Err(why) => panic!("`{whole}` {why}"),
        }
    }

    /// The instance at this endpoint, with all that is said of it: its weight, its zone, its version.
    ///
    /// One that is there already stays as it was.
    pub fn instance_of(&self, endpoint: Endpoint) -> UpstreamInstance {
        UpstreamInstance::new(&self.0, &self.0.instance(endpoint))
    }

    /// All instances, those included that discovery does not name.
    #[must_use]
    pub fn instances(&self) -> Vec<UpstreamInstance> {
        let instances = lock(&self.0.instances);
        let instances = instances.iter();
        let instance = |one| UpstreamInstance::new(&self.0, one);
        instances.map(instance).collect()
    }

    /// Discovery fails to say where the instances are, until it [recovers](Self::discovery_recovers). What
    /// was known stays, and whatever changes meanwhile is not heard.
    pub fn discovery_fails(&self, why: &str) {
        *lock(&self.0.failing) = Some(why.to_owned());
        self.0.tell();
    }

    /// Discovery says again where the instances are.
    pub fn discovery_recovers(&self) {
        *lock(&self.0.failing) = None;
        self.0.tell();
    }

    /// The requests that its instances got, oldest first; those of health checks are not among them.
    #[must_use]
    pub fn requests(&self) -> Vec<UpstreamRequest> {
        lock(&self.0.requests).clone()
    }

    /// Stands in for the service in this app.
    pub(super) fn stand_in(&self, wiring: &mut Wiring, store: &MemoryStore) {
        let service = &self.0.service;
        let known = wiring.config.section("services");
        let known = known.section(service, &mut crate::config::Faults::new());
        if !known.contains("urls") && !known.contains("discovery") {
            let key = format!("services.{service}.urls");
            wiring.config.set(&key, [format!("http://{service}")]);
        }
        let carrier = Carrier::new(&self.0, store);
        let stand_ins = &mut wiring.stand_ins;
        stand_ins.add(Arc::clone(service), Arc::new(carrier));
    }

    /// Whether nothing goes on by itself at or before `horizon`.
    pub(super) fn is_quiet(&self, horizon: Instant) -> bool {
        self.0.flights.is_quiet(horizon)
    }

    /// What goes on by itself at or before `horizon`.
    pub(super) fn due(&self, horizon: Instant) -> Vec<String> {
        self.0.flights.due(horizon)
    }

    /// Waits until nothing goes on by itself at or before `horizon`.
    pub(super) async fn quiet(&self, horizon: Instant) {
        self.0.flights.quiet(horizon).await;
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("service", &self.0.service)
            .field("instances", &self.instances())
            .finish_non_exhaustive()
    }
}

/// The instances as a backend of discovery.
struct Listed(Arc<Shared>);

impl Discovery for Listed {
    fn kind(&self) -> &'static str {
        "upstream"
    }

    fn follow(&self, _: Query, feed: Feed) -> Following {
        Box::pin(follow(self.0.said.clone(), feed))
    }
}
