//! What an app puts together: everything that the plan is made from.

use std::any::type_name;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Rng, SystemClock};
use crate::config::{Config, Faults, Section};
use crate::handling::{Middleware, PublishMiddleware, States, short_type_name};
use crate::message::Codecs;
use crate::messaging::{BrokerContext, CrashPoints, MessageBroker};
use crate::observability::metrics::MetricsSink;
use crate::registry::{Registry, Service, SubscriberDescriptor};

use super::problem::{Place, Problem};

/// Makes a broker of a kind that is not built in from its section of the configuration, without
/// connecting. `None` after pushing what is wrong.
pub type BrokerFactory = Arc<
    dyn Fn(&BrokerContext, &Section<'_>, &mut Faults) -> Option<Arc<dyn MessageBroker>>
        + Send
        + Sync,
>;

/// A handler on a topic that is known only at run time.
#[derive(Clone)]
pub(crate) struct Assigned {
    pub(crate) topic: String,
    pub(crate) descriptor: &'static SubscriberDescriptor,
    pub(crate) written: &'static Location<'static>,
}

/// Everything that an app puts together; `App` is how it is written.
#[derive(Clone)]
pub struct Wiring {
    pub(crate) config: Config,
    pub(crate) states: States,
    pub(crate) codecs: Codecs,
    pub(crate) hosted: Vec<Service>,
    pub(crate) registered: Vec<&'static SubscriberDescriptor>,
    pub(crate) assigned: Vec<Assigned>,
    /// `None` reads what is linked.
    pub(crate) registry: Option<Registry>,
    pub(crate) publish_only: bool,
    /// Whether brokers are only looked at.
    pub(crate) read_only: bool,
    pub(crate) middleware: Vec<Arc<dyn Middleware>>,
    pub(crate) publish_middleware: Vec<Arc<dyn PublishMiddleware>>,
    pub(crate) metrics: Option<Arc<dyn MetricsSink>>,
    pub(crate) kinds: Vec<(Arc<str>, BrokerFactory)>,
    pub(crate) brokers: Vec<(Arc<str>, Arc<dyn MessageBroker>)>,
    #[cfg(feature = "http")]
    pub(crate) discoveries: Vec<(Arc<str>, Arc<dyn crate::discovery::Discovery>)>,
    #[cfg(all(feature = "http", feature = "testing"))]
    pub(crate) stand_ins: crate::http::StandIns,
    #[cfg(feature = "http")]
    pub(crate) judgments: Vec<crate::http::Judging>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Rng,
    pub(crate) instance: Option<Arc<str>>,
    pub(crate) drain_timeout: Option<Duration>,
    /// Where a test lets the process die.
    pub(crate) crash_points: Option<Arc<dyn CrashPoints>>,
    pub(crate) problems: Vec<Problem>,
}

impl Wiring {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            states: States::default(),
            codecs: Codecs::built_in(),
            hosted: Vec::new(),
            registered: Vec::new(),
            assigned: Vec::new(),
            registry: None,
            publish_only: false,
            read_only: false,
            middleware: Vec::new(),
            publish_middleware: Vec::new(),
            metrics: None,
            kinds: Vec::new(),
            brokers: Vec::new(),
            #[cfg(feature = "http")]
            discoveries: Vec::new(),
            #[cfg(all(feature = "http", feature = "testing"))]
            stand_ins: crate::http::StandIns::default(),
            #[cfg(feature = "http")]
            judgments: Vec::new(),
            clock: Arc::new(SystemClock),
            rng: Rng::new(),
            instance: None,
            drain_timeout: None,
            crash_points: None,
            problems: Vec::new(),
        }
    }

    /// Adds a state; a second one of the same type is a mistake.
    pub(crate) fn add_state<S: Send + Sync + 'static>(
        &mut self,
        value: S,
        written: &'static Location<'static>,
    ) {
        if !self.states.insert(value) {
            let name = short_type_name(type_name::<S>());
            let problem = Problem::new(
                Place::Code(written),
                format!("State<{name}>"),
                "is given twice; a state is found by its type",
            );
            self.problems
                .push(problem.help("give one of the two a type of its own"));
        }
    }

    /// The name of this run: what was given, else host, process and chance.
    pub(crate) fn instance(&self) -> Arc<str> {
        self.instance.clone().unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
                .ok()
                .or_else(|| std::env::var("HOSTNAME").ok())
                .or_else(|| std::env::var("COMPUTERNAME").ok())
                .unwrap_or_default();
            let host: String = host
                .trim()
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
                .take(48)
                .collect();
            let host = if host.is_empty() { "host" } else { &host };
            let chance = self.rng.below(1 << 32);
            format!("{host}-{}-{chance:08x}", std::process::id()).into()
        })
    }
}

impl fmt::Debug for Wiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wiring")
            .field("config", &self.config)
            .field("states", &self.states)
            .field("hosted", &self.hosted)
            .field("registered", &self.registered)
            .finish_non_exhaustive()
    }
}
