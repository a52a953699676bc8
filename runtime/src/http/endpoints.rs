//! What a pool makes for an endpoint that it has not known before, and who hears of its health.

use std::sync::Arc;

use tokio::time::Instant;

use crate::discovery::Endpoint;
use crate::observability::metrics::{
    CIRCUIT_CHANGES, CIRCUIT_OPEN, CLIENT_ATTEMPTS, EJECTED, EJECTIONS, Labels, MetricsSink, Series,
};
use crate::resilience::{
    CircuitBreaker, CircuitBreakerOptions, CircuitState, EndpointHealth, Outliers, Transition,
};

use super::settings::ServiceSettings;
use super::stack::Surroundings;
use super::transport::Door;

/// Makes what belongs to one endpoint.
#[derive(Debug)]
pub(super) struct Maker {
    service: Arc<str>,
    environment: Surroundings,
    breaker: Option<CircuitBreakerOptions>,
    /// The name by which they are called that have none of their own.
    host: Option<Arc<str>>,
    /// Whether all are spoken to in HTTP/2, with TLS or without.
    is_http2: bool,
    ejected: Series,
}

/// What is counted of one endpoint.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) answered: Series,
    pub(super) failed: Series,
}

impl Maker {
    pub(super) fn new(
        service: &Arc<str>,
        settings: &ServiceSettings,
        environment: &Surroundings,
    ) -> Self {
        let metrics = environment.metrics.as_deref();
        Self {
            service: Arc::clone(service),
            environment: environment.clone(),
            host: settings.host.clone(),
            is_http2: settings.security.is_http2(),
            // A mesh has many endpoints behind the one address: that one of them fails says nothing of
            // the others, and leaving it alone is the mesh's business.
            breaker: settings.breaker.filter(|_| !settings.mesh),
            ejected: Series::of(metrics, EJECTED, vec![Arc::clone(service)]),
        }
    }

    pub(super) fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// How it is called by its name, where it has one.
    pub(super) fn door(&self, endpoint: &Endpoint) -> Option<Arc<Door>> {
        Door::of(endpoint, self.host(), self.is_http2).map(Arc::new)
    }

    pub(super) fn counts(&self, url: &str) -> Counts {
        let series = |outcome: &str| {
            let labels: Labels = vec![Arc::clone(&self.service), url.into(), outcome.into()];
            Series::of(self.environment.metrics.as_deref(), CLIENT_ATTEMPTS, labels)
        };
        Counts {
            answered: series("answered"),
            failed: series("failed"),
        }
    }

    /// The circuit of an endpoint, which tells its health.
    pub(super) fn breaker(
        &self,
        url: &str,
        health: &Arc<EndpointHealth>,
        outliers: &Arc<Outliers>,
    ) -> Option<CircuitBreaker> {
        let options = self.breaker?;
        let metrics = self.environment.metrics.as_deref();
        let tell = observer(&self.service, url, metrics);
        let (health, outliers) = (Arc::clone(health), Arc::clone(outliers));
        let (service, url): (_, Arc<str>) = (Arc::clone(&self.service), url.into());
        let labels = vec![Arc::clone(&service), Arc::clone(&url)];
        let ejections = Series::of(metrics, EJECTIONS, labels);
        let ejected = self.ejected.clone();
        let observe = move |change: Transition| {
            let before = health.is_ejected();
            match change.to {
                CircuitState::Open | CircuitState::ForcedOpen => {
                    health.fell_ill();
                }
                CircuitState::HalfOpen => {}
                _ => {
                    health.recovered(Instant::now());
                }
            }
            tell(change);
            let after = health.is_ejected();
            if before != after {
                ejected.record(outliers.ejected() as f64);
            }
            if after && !before {
                ejections.record(1.0);
                tracing::warn!(service = &*service, endpoint = &*url, "endpoint ejected");
            }
        };
        let rng = self.environment.rng.clone();
        Some(CircuitBreaker::observed(options, rng, observe))
    }
}

/// Tells log and metrics when a circuit opens or closes; that of the whole service where no endpoint is
/// named.
pub(super) fn observer(
    service: &Arc<str>,
    endpoint: &str,
    metrics: Option<&dyn MetricsSink>,
) -> impl Fn(Transition) + Send + Sync + 'static {
    let (service, endpoint): (Arc<str>, Arc<str>) = (Arc::clone(service), endpoint.into());
    let series = |state: CircuitState| {
        let labels = vec![
            Arc::clone(&service),
            Arc::clone(&endpoint),
            state.as_str().into(),
        ];
        Series::of(metrics, CIRCUIT_CHANGES, labels)
    };
    let (open, half_open, closed) = (
        series(CircuitState::Open),
        series(CircuitState::HalfOpen),
        series(CircuitState::Closed),
    );
    let labels = vec![Arc::clone(&service), Arc::clone(&endpoint)];
    let shown = Shown::closed(Series::of(metrics, CIRCUIT_OPEN, labels));
    move |change| match change.to {
        CircuitState::Open | CircuitState::ForcedOpen => {
            open.record(1.0);
            shown.0.record(1.0);
            tracing::warn!(service = &*service, endpoint = &*endpoint, "circuit opened");
        }
        CircuitState::HalfOpen => {
            half_open.record(1.0);
            shown.0.record(0.5);
        }
        _ => {
            closed.record(1.0);
            shown.0.record(0.0);
            tracing::info!(service = &*service, endpoint = &*endpoint, "circuit closed");
        }
    }
}

/// The state of a circuit as it is shown. That of an endpoint that has gone does not stay open for ever.
struct Shown(Series);

impl Shown {
    fn closed(series: Series) -> Self {
        series.record(0.0);
        Self(series)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.record(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observability::metrics::InMemoryMetrics;

    #[test]
    fn a_circuit_that_is_gone_is_not_shown_as_open() {
        let metrics = InMemoryMetrics::default();
        let tell = observer(&"orders".into(), "http://a:80", Some(&metrics));
        let shown = || metrics.sum(CIRCUIT_OPEN, &[("endpoint", "http://a:80")]);
        tell(Transition {
            from: CircuitState::Closed,
            to: CircuitState::Open,
        });
        assert_eq!(shown(), 1.0);
        drop(tell);
        assert_eq!(shown(), 0.0);
    }
}
