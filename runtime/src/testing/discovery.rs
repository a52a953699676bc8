//! Discovery by a script.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::config::Faults;
use crate::discovery::{Discovery, Endpoint, EndpointSet, Feed, Following, Query};
use crate::plan::Wiring;

/// A backend of discovery that says what the test says. Cheap to clone; every clone is the same one.
///
/// ```
/// # #[cfg(feature = "macros")]
/// # mod example {
/// use interline::prelude::*;
/// use interline::testing::{ScriptedDiscovery, TestApp};
///
/// # async fn example() {
/// let discovery = ScriptedDiscovery::new();
/// discovery.endpoints("orders", ["http://127.0.0.1:8080"]);
/// let config = Config::new().with("service.name", "billing");
/// let app = TestApp::new().config(config).discovery(&discovery).publish_only().start().await;
///
/// discovery.endpoints("orders", ["http://127.0.0.1:8081", "http://127.0.0.1:8082"]);
/// app.until_endpoints("orders", 2).await;
/// discovery.fail("orders", "the registry is away");   // the two stay
/// # }
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct ScriptedDiscovery {
    services: Arc<Mutex<BTreeMap<String, watch::Sender<Said>>>>,
}

/// What is said of where a service is.
#[derive(Clone, Debug, Default)]
pub(super) enum Said {
    #[default]
    Nothing,
    Endpoints(EndpointSet),
    Failure(String),
}

impl ScriptedDiscovery {
    /// One that has not said anything yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that these are all instances of the service.
    ///
    /// # Panics
    /// If one of them is no address.
    #[track_caller]
    pub fn endpoints<U: AsRef<str>>(&self, service: &str, urls: impl IntoIterator<Item = U>) {
        let parse = |url: U| match Endpoint::parse(url.as_ref()) {
            Ok(endpoint) => endpoint,
            Err(why) => panic!("`{}` {why}", url.as_ref()),
        };
        // In a loop of its own, so that the panic names the caller.
        let mut endpoints = Vec::new();
        for url in urls {
            endpoints.push(parse(url));
        }
        self.say(service, Said::Endpoints(endpoints.into_iter().collect()));
    }

    /// Fails to say where the service is.
    pub fn fail(&self, service: &str, why: impl Into<String>) {
        self.say(service, Said::Failure(why.into()));
    }

    /// Stands in for every backend that the wiring has, and is one for services that it does not know.
    pub(super) fn stand_in(&self, wiring: &mut Wiring) {
        let section = wiring.config.section("discovery");
        let names = section.entries(&mut Faults::new());
        let names = names.into_iter().map(|(name, _)| Arc::from(name));
        let given = wiring.discoveries.iter().map(|(name, _)| Arc::clone(name));
        let mut names: Vec<Arc<str>> = names.chain(given).collect();
        if names.is_empty() {
            names.push("scripted".into());
        }
        let known = wiring.config.section("services");
        let services = self.services.lock();
        let services = services.unwrap_or_else(PoisonError::into_inner);
        let new = services.keys().filter(|name| !known.contains(name));
        let new: Vec<String> = new.cloned().collect();
        for service in new {
            let key = format!("services.{service}.discovery.backends");
            wiring.config.set(&key, [&*names[0]]);
        }
        let stand_in = |name| (name, Arc::new(self.clone()) as Arc<dyn Discovery>);
        wiring.discoveries = names.into_iter().map(stand_in).collect();
    }

    fn say(&self, service: &str, said: Said) {
        self.of(service).send_replace(said);
    }

    fn of(&self, service: &str) -> watch::Sender<Said> {
        let services = self.services.lock();
        let mut services = services.unwrap_or_else(PoisonError::into_inner);
        services.entry(service.to_owned()).or_default().clone()
    }
}

impl Discovery for ScriptedDiscovery {
    fn kind(&self) -> &'static str {
        "scripted"
    }

    fn follow(&self, query: Query, feed: Feed) -> Following {
        Box::pin(follow(self.of(&query.service), feed))
    }
}

/// Tells what is said, and every change of it.
pub(super) async fn follow(sender: watch::Sender<Said>, feed: Feed) {
    let mut script = sender.subscribe();
    loop {
        let said = script.borrow_and_update().clone();
        match said {
            Said::Nothing => {}
            Said::Endpoints(endpoints) => feed.ask().answered(endpoints),
            Said::Failure(why) => feed.ask().failed(why),
        }
        // The sender is held here, so it is there.
        if script.changed().await.is_err() {
            return;
        }
    }
}
