//! Somebody else who says where a service is, in place of whom the configuration names: for tests.

use std::sync::Arc;
use std::time::Duration;

use crate::observability::metrics::MetricsSink;

use super::feed::{Hub, Rules};
use super::filter::Filter;
use super::following::Backend;
use super::merge::Merge;
use super::{Discovery, EndpointSet, Query, ServiceWatch, Whereabouts};

impl Whereabouts {
    /// The addresses that are known before anybody was asked.
    pub(crate) fn fixed(&self) -> Option<&EndpointSet> {
        match self {
            Self::Fixed(endpoints) => Some(endpoints),
            Self::Watched(_) => None,
        }
    }

    /// Where `discovery` says from now on. How it is filtered and how long it is believed stays as it is.
    pub(crate) fn told_by(
        &self,
        service: &Arc<str>,
        discovery: &Arc<dyn Discovery>,
        metrics: Option<&dyn MetricsSink>,
    ) -> Self {
        let watch = match self {
            Self::Watched(watch) => watch.told_by(discovery),
            Self::Fixed(_) => {
                let name: Arc<str> = "test".into();
                let rules = Rules {
                    schemes: &["http", "https"],
                    filter: Filter::default(),
                    merge: Merge::default(),
                    patience: Duration::from_secs(10),
                };
                let sources = [(Arc::clone(&name), discovery.kind())];
                let hub = Hub::new(service, sources.into_iter(), rules, metrics);
                let backend = Backend {
                    name,
                    discovery: Arc::clone(discovery),
                };
                let query = Query {
                    service: Arc::clone(service),
                };
                ServiceWatch::new(hub, vec![backend], query, Duration::from_secs(5), None)
            }
        };
        Self::Watched(Arc::new(watch))
    }
}
