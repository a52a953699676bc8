//! Which subscribers the plan is about, and what the service is called.

use std::sync::Arc;

use crate::registry::{Refused, Registry, ServiceIdentity, SubscriberDescriptor};

use super::problem::{Place, Problem};
use super::wiring::{Assigned, Wiring};
use super::{Findings, meant};

/// The subscribers that run.
pub(super) struct Admitted {
    /// The service's name, if it is known.
    pub(super) service: Option<Arc<str>>,
    pub(super) version: Option<&'static str>,
    /// Subscribers to their own topics, in a fixed order.
    pub(super) subscribers: Vec<&'static SubscriberDescriptor>,
    /// Subscribers to topics known at run time.
    pub(super) assigned: Vec<Assigned>,
    /// Crates that were found and do not run.
    pub(super) refused: Vec<Refused>,
}

impl Admitted {
    pub(super) fn of(wiring: &Wiring, findings: &mut Findings) -> Self {
        let registry = wiring.registry.clone().unwrap_or_else(Registry::linked);
        let admission = registry.admit(&wiring.hosted);
        let mut subscribers = admission.admitted;
        for registered in &wiring.registered {
            if !subscribers
                .iter()
                .any(|known| std::ptr::eq(*known, *registered))
            {
                subscribers.push(registered);
            }
        }
        subscribers.sort_by_key(|found| (found.service.package, found.location));
        let mut services = admission.services;
        let assigned = wiring.assigned.iter().map(|assigned| assigned.descriptor);
        for found in subscribers.iter().copied().chain(assigned) {
            if !services.contains(&found.service) {
                services.push(found.service);
            }
        }
        let mut this = Self {
            service: None,
            version: None,
            subscribers,
            assigned: wiring.assigned.clone(),
            refused: admission.refused,
        };
        this.name(wiring, &services, findings);
        this.check_names(findings);
        for refused in &this.refused {
            findings.warnings.push(not_admitted(refused));
        }
        if this.subscribers.is_empty() && this.assigned.is_empty() && !wiring.publish_only {
            findings
                .problems
                .push(nothing_to_run(&services, &this.refused));
        }
        this
    }

    /// The names of all that was admitted.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.descriptors().map(SubscriberDescriptor::name).collect()
    }

    /// Keeps only those of these names.
    pub(super) fn keep(&mut self, names: &[String]) {
        let kept = |found: &SubscriberDescriptor| names.iter().any(|name| name == found.name());
        self.subscribers.retain(|found| kept(found));
        self.assigned.retain(|assigned| kept(assigned.descriptor));
    }

    /// Every subscriber, once for each use.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = &'static SubscriberDescriptor> {
        let assigned = self.assigned.iter().map(|assigned| assigned.descriptor);
        self.subscribers.iter().copied().chain(assigned)
    }

    /// The configured name, else the program's, else that of the one service that is hosted.
    fn name(
        &mut self,
        wiring: &Wiring,
        services: &[&'static ServiceIdentity],
        findings: &mut Findings,
    ) {
        let section = wiring.config.section("service");
        let configured = section.string("name", &mut findings.faults);
        let mut names: Vec<_> = services.iter().map(|service| service.name).collect();
        names.sort_unstable();
        names.dedup();
        let program = services.iter().find(|service| service.is_program);
        let only = services.first().filter(|_| names.len() == 1);
        let identity = program.or(only);
        self.version = identity.map(|service| service.version);
        if let Some(name) = &configured
            && (name.trim().is_empty() || name.chars().any(char::is_control))
        {
            findings
                .faults
                .push(section.fault("name", "must not be empty"));
        }
        self.service = configured
            .map(Arc::from)
            .or_else(|| identity.map(|service| service.name.into()));
        if self.service.is_none() && (names.len() > 1 || wiring.publish_only) {
            let hosted = if names.is_empty() {
                "the service has no name".to_owned()
            } else {
                format!("hosts {} and has no name of its own", names.join(", "))
            };
            let problem = Problem::new(Place::App, "service", hosted);
            let help = "write `interline::service!(\"..\");` at the root of the program, or \
                        `[service] name = \"..\"` in the configuration";
            findings.problems.push(problem.help(help));
        }
    }

    /// Two subscribers of one service cannot have the same name: it stands in derived ids.
    fn check_names(&self, findings: &mut Findings) {
        for (index, found) in self.subscribers.iter().enumerate() {
            let same = |other: &&&SubscriberDescriptor| {
                other.name() == found.name() && other.service.name == found.service.name
            };
            if let Some(first) = self.subscribers[..index].iter().find(same) {
                let problem = Problem::new(
                    Place::Source(found.location),
                    found.name(),
                    format!(
                        "another subscriber of service `{}` has this name: {}",
                        found.service.name, first.location
                    ),
                );
                let help = "give one of the two a `name` of its own";
                findings.problems.push(problem.help(help));
            }
        }
    }
}

fn count(names: &[&str]) -> String {
    match names.len() {
        1 => "1 subscriber".to_owned(),
        count => format!("{count} subscribers"),
    }
}

fn not_admitted(refused: &Refused) -> Problem {
    let service = refused.service;
    let message = format!(
        "found in crate `{}` and not admitted: {} not started",
        service.crate_name,
        count(&refused.subscribers)
    );
    let problem = Problem::new(Place::Source(service.location), service.name, message);
    problem.help(format!(
        "to run it, add `.with({}::service())` to the app",
        service.crate_name
    ))
}

fn nothing_to_run(services: &[&'static ServiceIdentity], refused: &[Refused]) -> Problem {
    let mut found: Vec<String> = services
        .iter()
        .map(|service| format!("crate `{}` (admitted, no subscriber)", service.crate_name))
        .collect();
    found.extend(refused.iter().map(|refused| {
        let name = refused.service.crate_name;
        format!(
            "crate `{name}` ({}, not admitted)",
            count(&refused.subscribers)
        )
    }));
    let linked = if found.is_empty() {
        "no crate with `service!` is linked".to_owned()
    } else {
        format!("linked: {}", found.join(", "))
    };
    let first = refused
        .first()
        .map_or("my_handlers", |refused| refused.service.crate_name);
    let problem = Problem::new(Place::App, "app", format!("nothing to run; {linked}"));
    problem.help(format!(
        "add `.with({first}::service())`, which also links the crate; an app that only publishes \
         says `.publish_only()`"
    ))
}

/// The message about a name that is no subscriber's.
pub(super) fn no_such_subscriber(name: &str, known: &[&str]) -> (String, Option<String>) {
    let help = meant(name, known).or_else(|| {
        (!known.is_empty() && known.len() <= 8)
            .then(|| format!("subscribers: {}", known.join(", ")))
    });
    (format!("there is no subscriber `{name}`"), help)
}
