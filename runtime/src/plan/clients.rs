//! The services that the app may call, and the clients that call them.

use std::sync::Arc;

use crate::http::{Services, Surroundings};
use crate::registry::Registry;

use super::Findings;
use super::wiring::Wiring;

/// Reads `[services]`; gives them, and the wiring with every client among its states.
pub(super) fn read(
    wiring: &Wiring,
    service: &Arc<str>,
    findings: &mut Findings,
) -> (Services, Wiring) {
    let registry = wiring.registry.clone().unwrap_or_else(Registry::linked);
    let environment = Surroundings {
        caller: format!("{service} interline/{}", env!("CARGO_PKG_VERSION")).into(),
        clock: Arc::clone(&wiring.clock),
        rng: wiring.rng.clone(),
        metrics: wiring.metrics.clone(),
    };
    let faults = &mut findings.faults;
    let services = Services::read(
        &wiring.config,
        &registry.clients,
        &wiring.discoveries,
        &environment,
        faults,
    );
    let mut wiring = wiring.clone();
    services.provide(&registry.clients, &mut wiring.states);
    (services, wiring)
}
