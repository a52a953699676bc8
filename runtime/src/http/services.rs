//! All services that an app may call.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::AbortHandle;

use crate::config::{Config, Faults, suggest::suggest};
use crate::discovery::{Backends, DiscoveryStatus, Examine, Whereabouts};
use crate::handling::{BindFault, States};

use super::checks;
use super::client::{HttpClient, Wire};
use super::descriptor::{ClientDescriptor, ServiceClient};
use super::judge::Judgment;
use super::settings::ServiceSettings;
use super::stack::{Stack, Surroundings};

/// How the program judges the answers of a service.
#[derive(Clone)]
pub(crate) struct Judging {
    pub(crate) service: Arc<str>,
    pub(crate) judgment: Judgment,
    pub(crate) written: &'static std::panic::Location<'static>,
}

/// The services in `[services]`, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services(BTreeMap<Arc<str>, Arc<Stack>>);

impl Services {
    /// Reads `[services]`, and makes what is needed to call each service. Connects to
    /// nothing.
    pub(crate) fn read(
        config: &Config,
        clients: &[&'static ClientDescriptor],
        judgments: &[Judging],
        backends: &Backends,
        environment: &Surroundings,
        faults: &mut Faults,
    ) -> Self {
        let metrics = environment.metrics.as_deref();
        let mut services = BTreeMap::new();
        let zone: Option<Arc<str>> = config
            .section("service")
            .string("zone", faults)
            .map(Into::into);
        for (name, section) in config.section("services").entries(faults) {
            let methods = clients.iter().flat_map(|client| {
                let methods = client.methods.iter();
                methods
                    .filter(move |method| client.service == name || method.elsewhere == Some(name))
            });
            let mut methods: Vec<_> = methods.map(|method| method.name).collect();
            methods.sort_unstable();
            methods.dedup();
            let judging = judgments.iter().find(|judging| *judging.service == *name);
            let judgment = judging.map(|judging| &judging.judgment);
            let settings =
                ServiceSettings::read(&section, &methods, judgment, backends, metrics, faults);
            let Some(mut settings) = settings else {
                continue;
            };
            settings.zone.clone_from(&zone);
            let name: Arc<str> = name.into();
            #[cfg(feature = "testing")]
            if let Some(stand_in) = environment.stand_ins.of(&name) {
                let discovery = stand_in.discovery(settings.whereabouts.fixed());
                settings.whereabouts = settings.whereabouts.told_by(&name, &discovery, metrics);
            }
            match Stack::new(Arc::clone(&name), settings, environment.clone()) {
                Ok(stack) => {
                    services.insert(name, Arc::new(stack));
                }
                Err(why) => {
                    let message = format!("cannot be called: {why}");
                    faults.push(section.fault("urls", message));
                }
            }
        }
        Self(services)
    }

    /// Puts each client among the states; of one whose service is not configured, what is missing.
    pub(crate) fn provide(&self, clients: &[&'static ClientDescriptor], states: &mut States) {
        for client in clients {
            let wire = self.wire(client).map_err(|(message, help)| {
                let needs = format!(
                    "needs the client `{}` ({}), and {message}",
                    client.name, client.location
                );
                BindFault::new(needs, help)
            });
            client.provide(states, wire);
        }
    }

    /// A client of this type, or what is missing for it.
    pub(crate) fn client<C: ServiceClient>(&self) -> Result<C, (String, String)> {
        self.wire(C::DESCRIPTOR).map(C::from_wire)
    }

    fn wire(&self, client: &'static ClientDescriptor) -> Result<Wire, (String, String)> {
        let wire = Wire::new(client, |service| self.0.get(service));
        wire.map_err(|missing| self.not_configured(missing))
    }

    /// A client without a trait.
    pub(crate) fn http_client(&self, name: &str) -> Result<HttpClient, (String, String)> {
        let stack = self.0.get(name).ok_or_else(|| self.not_configured(name))?;
        Ok(HttpClient::new(Arc::clone(stack)))
    }

    /// Begins to follow every service that is discovered, in tasks that go on until they are aborted.
    pub(crate) fn follow(&self) -> Vec<AbortHandle> {
        self.0.values().flat_map(Stack::follow).collect()
    }

    /// What is known of where each service is.
    pub(crate) fn discovery(&self) -> Vec<DiscoveryStatus> {
        self.0.values().map(|stack| stack.discovery()).collect()
    }

    /// Where each service is.
    pub(crate) fn places(&self) -> BTreeMap<Arc<str>, Whereabouts> {
        let all = self.0.iter();
        all.map(|(name, stack)| (Arc::clone(name), stack.settings.whereabouts.clone()))
            .collect()
    }

    /// How the instances of each service are asked how they are, where that is configured.
    pub(crate) fn examines(&self) -> BTreeMap<Arc<str>, Arc<dyn Examine>> {
        let all = self.0.iter();
        all.filter_map(|(name, stack)| Some((Arc::clone(name), checks::examine(stack)?)))
            .collect()
    }

    /// The names of the services with where each is, in words.
    pub(crate) fn whereabouts(&self) -> impl Iterator<Item = (&str, String)> {
        self.0
            .iter()
            .map(|(name, stack)| (&**name, stack.whereabouts()))
    }

    fn not_configured(&self, name: &str) -> (String, String) {
        let message = format!("service `{name}` is not configured");
        let near = suggest(name, self.0.keys().map(|name| &**name));
        let near = near.map_or(String::new(), |near| format!(" (there is `{near}`)"));
        let help =
            format!("write `[services.{name}]` with `urls = [\"http://localhost:8080\"]`{near}");
        (message, help)
    }
}
