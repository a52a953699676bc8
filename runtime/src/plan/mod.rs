//! The plan: registrations and configuration, checked together, with everything decided and
//! nothing connected.
//!
//! [`Plan::build`] does no input or output on a broker. It finds every mistake, not the first one,
//! and puts all of them in one [`PlanError`].

mod admitted;
mod as_kind;
mod brokers;
mod checks;
#[cfg(feature = "http")]
mod clients;
mod names;
mod problem;
mod report;
mod resolve;
mod subscriptions;
mod wiring;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Faults, suggest::suggest};
use crate::message::CodecRef;
use crate::messaging::{BrokerLimits, MessageBroker, PlannedSubscription, Routes, TopologyMode};

pub use as_kind::{Change, KindReport};
pub use problem::{Place, PlanError, Problem};
pub use report::PlanReport;
pub(crate) use wiring::Assigned;
pub use wiring::{BrokerFactory, Wiring};

use admitted::Admitted;
use brokers::Brokers;

/// How long an app may take to go down, unless configured: it fits in the 30 s that Kubernetes
/// waits before it kills.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(25);

/// Everything that an app will run, with every decision made.
#[derive(Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The service's name.
    pub service: Arc<str>,
    /// The version of the service's package, where it has one.
    pub version: Option<&'static str>,
    /// This run of the service, unique per process.
    pub instance: Arc<str>,
    /// The brokers, by name.
    pub brokers: Vec<PlannedBroker>,
    /// Which broker a topic belongs to.
    pub routes: Routes,
    /// The subscriptions, with their handlers.
    pub subscriptions: Vec<PlannedSubscription>,
    /// The services that may be called.
    #[cfg(feature = "http")]
    pub(crate) services: crate::http::Services,
    /// Where services are, and where instances are registered.
    #[cfg(feature = "http")]
    pub(crate) discovery: crate::discovery::ServiceDiscoveryManager,
    /// What is odd but can run.
    pub warnings: Vec<Problem>,
    /// How long going down may take.
    pub drain_timeout: Duration,
}

/// One broker, made but not connected.
#[derive(Clone)]
#[non_exhaustive]
pub struct PlannedBroker {
    /// The broker.
    pub broker: Arc<dyn MessageBroker>,
    /// Its URL without credentials, where it has one.
    pub url: Option<String>,
    /// What is done about queues and exchanges, unless a subscriber says otherwise.
    pub topology: TopologyMode,
    /// The limits of publishing to it.
    pub limits: BrokerLimits,
    /// Whether settings that can lose acknowledged messages keep the app from starting.
    pub require_durable: bool,
    /// The codec of messages whose contract names none.
    pub codec: CodecRef,
}

impl fmt::Debug for PlannedBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlannedBroker")
            .field("name", self.broker.name())
            .field("kind", &self.broker.kind())
            .field("url", &self.url)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// What is collected while a plan is made.
#[derive(Default)]
struct Findings {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    faults: Faults,
}

impl Plan {
    /// Makes the plan of an app.
    ///
    /// # Errors
    /// [`PlanError`] with every mistake in registrations, builder calls and configuration.
    pub fn build(wiring: &Wiring) -> Result<Self, PlanError> {
        let mut findings = Findings::default();
        findings.problems.clone_from(&wiring.problems);
        let faults = &mut findings.faults;
        let run = wiring.config.section("run");
        let only = run.strings("only", faults);
        let prefix = wiring.config.section("naming").string("prefix", faults);
        let drain = wiring.config.section("drain");
        let drain_timeout = wiring
            .drain_timeout
            .or_else(|| drain.nonzero_duration("timeout", faults))
            .unwrap_or(DRAIN_TIMEOUT_DEFAULT);

        let mut admitted = Admitted::of(wiring, &mut findings);
        let service: Arc<str> = admitted.service.clone().unwrap_or_else(|| "app".into());
        let instance = wiring.instance();
        #[cfg(feature = "http")]
        let (others, wiring) = &clients::read(
            wiring,
            (&service, &instance),
            admitted.version,
            &mut findings,
        );
        #[cfg(not(feature = "http"))]
        refuse_services(wiring, &mut findings.faults);
        let brokers = Brokers::read(wiring, &service, &instance, prefix, &mut findings);
        let routes = read_routes(wiring, &brokers, &mut findings);
        let overrides = resolve::read_overrides(wiring, &admitted, &mut findings.faults);
        if let Some(only) = only {
            let known = admitted.names();
            for name in &only {
                if !known.contains(&name.as_str()) {
                    let fault =
                        run.fault("only", format!("names `{name}`, which is no subscriber"));
                    findings.faults.push(with_meant(fault, name, &known));
                }
            }
            if only.is_empty() {
                let fault = run.fault("only", "picks no subscriber");
                findings
                    .faults
                    .push(fault.with_help("name one, or remove the key"));
            }
            admitted.keep(&only);
        }
        let uses = resolve::resolve(
            wiring,
            &admitted,
            &brokers,
            &routes,
            &overrides,
            &instance,
            &mut findings,
        );
        checks::published(&admitted, &uses, &routes, &brokers, &mut findings);
        let subscriptions = subscriptions::join(uses, &brokers, &mut findings);

        wiring.config.finish(&mut findings.faults);
        let Findings {
            mut problems,
            mut warnings,
            faults,
        } = findings;
        problems.extend(faults.iter().map(Problem::from));
        let brokers = brokers.finish();
        if !problems.is_empty() {
            let service = admitted.service.as_deref().map(str::to_owned);
            return Err(PlanError::new(service, problems));
        }
        warnings.sort();
        warnings.dedup();
        Ok(Self {
            service,
            version: admitted.version,
            instance,
            brokers,
            routes,
            subscriptions,
            #[cfg(feature = "http")]
            services: others.services.clone(),
            #[cfg(feature = "http")]
            discovery: others.discovery.clone(),
            warnings,
            drain_timeout,
        })
    }
}

/// Services can be called only with the feature.
#[cfg(not(feature = "http"))]
fn refuse_services(wiring: &Wiring, faults: &mut Faults) {
    for name in ["services", "discovery", "registration"] {
        let section = wiring.config.section(name);
        if section.is_present() {
            section.accept_all(faults);
            let message = "clients of other services are not switched on in this program";
            let origin = section.origin().clone();
            let fault = crate::config::Fault::new(origin, section.path(), message);
            faults.push(fault.with_help("add the feature `http` to `interline` in Cargo.toml"));
        }
    }
}

/// Reads `[routes]`: patterns of topics and the brokers they belong to.
fn read_routes(wiring: &Wiring, brokers: &Brokers, findings: &mut Findings) -> Routes {
    let section = wiring.config.section("routes");
    let mut routes = Vec::new();
    for pattern in section.keys() {
        let Some(broker) = section.string(pattern, &mut findings.faults) else {
            continue;
        };
        // `*` is the only thing that a pattern has and a topic has not.
        if let Err(error) = crate::message::check_topic(&pattern.replace('*', "x")) {
            let fault = section.fault(pattern, format!("is no pattern of topics: {error}"));
            findings.faults.push(fault);
        } else if pattern
            .split('.')
            .any(|part| part.contains('*') && part != "*")
        {
            let fault = section.fault(pattern, "has a `*` that is not a whole segment");
            findings
                .faults
                .push(fault.with_help("write for example `\"audit.*\"`"));
        }
        if brokers.get(&broker).is_none() {
            let known = brokers.names();
            let message = format!("broker `{broker}` is not configured{}", configured(&known));
            let fault = section.fault(pattern, message);
            findings.faults.push(with_meant(fault, &broker, &known));
        }
        routes.push((pattern.to_owned(), broker));
    }
    Routes::new(routes)
}

/// Adds what was probably meant by `name`.
fn with_meant(fault: crate::config::Fault, name: &str, known: &[&str]) -> crate::config::Fault {
    match meant(name, known) {
        Some(help) => fault.with_help(help),
        None => fault,
    }
}

fn meant(name: &str, known: &[&str]) -> Option<String> {
    suggest(name, known.iter().copied()).map(|meant| format!("did you mean `{meant}`?"))
}

fn configured(known: &[&str]) -> String {
    if known.is_empty() {
        String::new()
    } else {
        format!(" (configured: {})", known.join(", "))
    }
}

#[cfg(test)]
#[cfg(all(feature = "memory", feature = "json"))]
mod tests;
