//! What an adapter is told about the app that it serves.

use std::fmt;
use std::sync::Arc;

use crate::clock::{Clock, Rng, SystemClock};
use crate::observability::metrics::MetricsSink;

/// What an adapter is told about the app that it serves, beside its section of the configuration.
#[derive(Clone)]
#[non_exhaustive]
pub struct BrokerContext {
    /// The broker's name in the configuration.
    pub name: Arc<str>,
    /// The service.
    pub service: Arc<str>,
    /// This run of the service, unique per process.
    pub instance: Arc<str>,
    /// What the names of everything on the broker begin with.
    pub prefix: Option<Arc<str>>,
    /// Whether it is only for a look: then nothing is made on the broker but what
    /// [`apply`](super::MessageBroker::apply) is asked for.
    pub read_only: bool,
    /// The source of chance.
    pub rng: Rng,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Where figures go.
    pub metrics: Option<Arc<dyn MetricsSink>>,
}

impl BrokerContext {
    /// A broker's name, a service and its instance: no prefix, no metrics, the system's time and
    /// chance.
    #[must_use]
    pub fn new(
        name: impl Into<Arc<str>>,
        service: impl Into<Arc<str>>,
        instance: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            name: name.into(),
            service: service.into(),
            instance: instance.into(),
            prefix: None,
            read_only: false,
            rng: Rng::new(),
            clock: Arc::new(SystemClock),
            metrics: None,
        }
    }
}

impl fmt::Debug for BrokerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerContext")
            .field("name", &self.name)
            .field("service", &self.service)
            .field("instance", &self.instance)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
