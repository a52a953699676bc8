//! The services that the app may call, and the clients that call them.

use std::sync::Arc;

use crate::config::suggest::suggest;
use crate::discovery::{Backends, Registrations, ServiceDiscoveryManager};
use crate::http::{Services, Surroundings};
use crate::registry::Registry;

use super::wiring::Wiring;
use super::{Findings, Place, Problem};

/// What is known of other services.
#[derive(Clone, Debug)]
pub(super) struct Others {
    pub(super) services: Services,
    pub(super) discovery: ServiceDiscoveryManager,
}

/// Reads `[services]`, `[discovery]` and `[registration]`; gives what was read, and the wiring with every
/// client among its states.
pub(super) fn read(
    wiring: &Wiring,
    (service, instance): (&Arc<str>, &Arc<str>),
    version: Option<&str>,
    findings: &mut Findings,
) -> (Others, Wiring) {
    let registry = wiring.registry.clone().unwrap_or_else(Registry::linked);
    let environment = Surroundings {
        caller: format!("{service} interline/{}", env!("CARGO_PKG_VERSION")).into(),
        clock: Arc::clone(&wiring.clock),
        rng: wiring.rng.clone(),
        metrics: wiring.metrics.clone(),
        #[cfg(feature = "testing")]
        stand_ins: wiring.stand_ins.clone(),
    };
    let (config, faults) = (&wiring.config, &mut findings.faults);
    let backends = Backends::read(config, service, &wiring.discoveries, &wiring.rng, faults);
    let (clients, judgments) = (&registry.clients, &wiring.judgments);
    let services = Services::read(config, clients, judgments, &backends, &environment, faults);
    let named: Vec<&str> = config.section("services").keys().collect();
    for judging in judgments {
        if named.contains(&&*judging.service) {
            continue;
        }
        let what = format!("judge(\"{}\")", judging.service);
        let message = "judges the answers of a service that is not configured";
        let help = match suggest(&judging.service, named.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write `[services.{}]`, or leave it out", judging.service),
        };
        let problem = Problem::new(Place::Code(judging.written), what, message);
        findings.problems.push(problem.help(help));
    }
    let who = (service, instance);
    let registrations = Registrations::read(config, &backends, who, version, faults);
    let metrics = wiring.metrics.clone();
    let places = services.places();
    let examines = services.examines();
    let discovery =
        ServiceDiscoveryManager::new(places, examines, registrations, &wiring.rng, metrics);
    let mut wiring = wiring.clone();
    services.provide(&registry.clients, &mut wiring.states);
    let others = Others {
        services,
        discovery,
    };
    (others, wiring)
}
