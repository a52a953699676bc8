//! The metrics catalogue and the port that records it.
//!
//! The catalogue is fixed and its labels are closed sets, so that nothing grows with the traffic.
//! Names follow OpenTelemetry's messaging conventions where those have one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How an instrument counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstrumentKind {
    /// A sum that only grows.
    Counter,
    /// A value that goes up and down; the last one counts.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One entry of the catalogue.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Instrument {
    /// The name, dotted.
    pub name: &'static str,
    /// How it counts.
    pub kind: InstrumentKind,
    /// The unit in UCUM notation: `s`, `{message}`, `1`.
    pub unit: &'static str,
    /// What it tells.
    pub description: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
}

macro_rules! catalogue {
    ($($(#[doc = $description:literal])+ $ident:ident = $kind:ident $name:literal in $unit:literal by [$($label:literal),*];)+) => {
        $($(#[doc = $description])+
        pub const $ident: &Instrument = &Instrument {
            name: $name,
            kind: InstrumentKind::$kind,
            unit: $unit,
            description: concat!($($description),+),
            labels: &[$($label),*],
        };)+

        /// Every instrument, in order of name.
        pub const CATALOGUE: &[&Instrument] = &[$($ident),+];
    };
}

catalogue! {
    /// How long a call of another service took, with all its attempts; `answered`, or why it was not: the kind of its error.
    CLIENT_DURATION = Histogram "http.client.call.duration" in "s" by ["service", "method", "outcome"];
    /// Whether the connection to a broker is up (1) or not (0).
    CONNECTION_UP = Gauge "interline.broker.connected" in "1" by ["broker"];
    /// Connections to a broker that were made again after a loss.
    RECONNECTS = Counter "interline.broker.reconnects" in "{reconnect}" by ["broker"];
    /// Attempts at calls of another service.
    CLIENT_ATTEMPTS = Counter "interline.client.attempts" in "{attempt}" by ["service", "endpoint", "outcome"];
    /// Calls of methods whose answers are kept, by what they found: `hit`, `miss`, `revalidated`, `stale`, `coalesced`.
    CLIENT_CACHE = Counter "interline.client.cache" in "{call}" by ["service", "method", "outcome"];
    /// Circuits that opened, half-opened or closed; of the whole service where no endpoint is named.
    CIRCUIT_CHANGES = Counter "interline.client.circuit_changes" in "{change}" by ["service", "endpoint", "state"];
    /// Whether a circuit is open (1), half-open (0.5) or closed (0); that of the whole service where no endpoint is named.
    CIRCUIT_OPEN = Gauge "interline.client.circuit_open" in "1" by ["service", "endpoint"];
    /// Endpoints of a service that are left alone because they are worse than the others.
    EJECTED = Gauge "interline.client.ejected" in "{endpoint}" by ["service"];
    /// Endpoints that were left alone because they were worse than the others.
    EJECTIONS = Counter "interline.client.ejections" in "{ejection}" by ["service", "endpoint"];
    /// Endpoints to which calls of a service go.
    CLIENT_ENDPOINTS = Gauge "interline.client.endpoints" in "{endpoint}" by ["service"];
    /// Calls that a fallback answered because the service did not.
    CLIENT_FALLBACKS = Counter "interline.client.fallbacks" in "{call}" by ["service", "method"];
    /// Active checks of endpoints.
    HEALTH_CHECKS = Counter "interline.client.health_checks" in "{check}" by ["service", "outcome"];
    /// Second requests that were sent because the first took long, and whether they answered first.
    HEDGES = Counter "interline.client.hedges" in "{attempt}" by ["service", "outcome"];
    /// Calls that run at once, with the answers that are still being read.
    CALLS_IN_FLIGHT = Gauge "interline.client.in_flight" in "{call}" by ["service"];
    /// Attempts for which an instance kept a shared rate alone, because Redis did not answer.
    RATE_ALONE = Counter "interline.client.rate_alone" in "{attempt}" by ["service"];
    /// Attempts that the configured rate of a service did not allow.
    RATE_LIMITED = Counter "interline.client.rate_limited" in "{attempt}" by ["service"];
    /// Repeats: `sent`, or `refused` because too many recent calls were repeated. Second requests that are sent at half of the time are among them.
    RETRIES = Counter "interline.client.retries" in "{attempt}" by ["service", "outcome"];
    /// Calls that wait because as many run as may.
    CALLS_WAITING = Gauge "interline.client.waiting" in "{call}" by ["service"];
    /// Whether the breaker of a subscription has stopped its fetching (1) or not (0).
    BREAKER_OPEN = Gauge "interline.consumer.breaker_open" in "1" by ["subscription"];
    /// Messages moved to the dead letters.
    DEAD_LETTERED = Counter "interline.consumer.dead_lettered" in "{message}" by ["subscription", "handler", "reason"];
    /// Messages that a handler or an option dropped by name.
    DISCARDED = Counter "interline.consumer.discarded" in "{message}" by ["subscription", "handler"];
    /// Messages that arrived at most once, and had no room while handlers were behind or no handler when it
    /// stopped.
    DROPPED = Counter "interline.consumer.dropped" in "{message}" by ["broker", "subscription"];
    /// Requests that were dropped because their deadline had passed before they were handled.
    EXPIRED_REQUESTS = Counter "interline.consumer.expired_requests" in "{message}" by ["subscription", "handler"];
    /// Times that a subscription of at most once was cut off and missed what was published meanwhile.
    GAPS = Counter "interline.consumer.gaps" in "{gap}" by ["broker", "subscription"];
    /// Messages that are being handled.
    IN_FLIGHT = Gauge "interline.consumer.in_flight" in "{message}" by ["subscription"];
    /// Messages of a subscription that are not finished yet, where the broker tells.
    CONSUMER_LAG = Gauge "interline.consumer.lag" in "{message}" by ["broker", "subscription"];
    /// Partitions that were taken away before it could be committed what was settled last, which may come again.
    PARTITIONS_LOST = Counter "interline.consumer.partitions_lost" in "{partition}" by ["broker", "subscription"];
    /// Messages that the broker handed out again.
    REDELIVERED = Counter "interline.consumer.redelivered" in "{message}" by ["subscription"];
    /// Failed attempts that are tried again.
    RETRIED = Counter "interline.consumer.retried" in "{message}" by ["subscription", "handler", "reason"];
    /// Whether a subscription is consuming (1) or not (0).
    CONSUMER_RUNNING = Gauge "interline.consumer.running" in "1" by ["subscription"];
    /// Settlements of a connection that no longer exists; the broker delivers the message again.
    STALE_SETTLEMENTS = Counter "interline.consumer.stale_settlements" in "{message}" by ["broker", "subscription"];
    /// Messages that a stream with a bounded length lost before they were handled.
    TRIMMED = Counter "interline.consumer.trimmed" in "{message}" by ["broker", "subscription"];
    /// How long ago a backend of discovery answered last.
    DISCOVERY_AGE = Gauge "interline.discovery.age" in "s" by ["service", "backend"];
    /// How long a backend of discovery took to tell where a service is.
    DISCOVERY_DURATION = Histogram "interline.discovery.duration" in "s" by ["service", "backend", "outcome"];
    /// How many endpoints of a service are in use.
    DISCOVERY_ENDPOINTS = Gauge "interline.discovery.endpoints" in "{endpoint}" by ["service"];
    /// Whether this instance is registered (1) or not (0).
    REGISTERED = Gauge "interline.discovery.registered" in "1" by ["service", "backend"];
    /// How long a request waited for its reply.
    REQUEST_DURATION = Histogram "interline.request.duration" in "s" by ["broker", "destination", "outcome"];
    /// Replies that came when nobody waited for them any more.
    LATE_REPLIES = Counter "interline.request.late_replies" in "{message}" by ["broker"];
    /// Messages that were handed to a handler.
    CONSUMED = Counter "messaging.client.consumed.messages" in "{message}" by ["subscription", "handler"];
    /// How long a publish took, confirmation included.
    PUBLISH_DURATION = Histogram "messaging.client.operation.duration" in "s" by ["broker", "destination", "outcome"];
    /// Messages that were published.
    SENT = Counter "messaging.client.sent.messages" in "{message}" by ["broker", "destination", "outcome"];
    /// How long a handler took.
    PROCESS_DURATION = Histogram "messaging.process.duration" in "s" by ["subscription", "handler", "outcome"];
}

/// Values for an instrument's labels, in the order of the catalogue.
pub type Labels = Vec<Arc<str>>;

/// Where measurements go. Implemented by exporters; [`InMemoryMetrics`] keeps them for tests.
pub trait MetricsSink: Send + Sync + 'static {
    /// A recorder for one instrument with fixed labels. Called when something starts or when a
    /// label takes a new value, not for each message.
    fn recorder(&self, instrument: &'static Instrument, labels: Labels) -> Arc<dyn Recorder>;
}

/// Records one time series.
pub trait Recorder: Send + Sync {
    /// Adds to a counter, sets a gauge, or adds an observation to a histogram.
    fn record(&self, value: f64);
}

/// A recorder that may be missing: with no sink configured, recording costs one branch.
#[derive(Clone, Default)]
pub struct Series(Option<Arc<dyn Recorder>>);

impl Series {
    /// The series of `instrument` in `sink`, or one that records nothing.
    #[must_use]
    pub fn of(
        sink: Option<&dyn MetricsSink>,
        instrument: &'static Instrument,
        labels: Labels,
    ) -> Self {
        debug_assert_eq!(labels.len(), instrument.labels.len(), "{}", instrument.name);
        Self(sink.map(|sink| sink.recorder(instrument, labels)))
    }

    /// Records one value.
    pub fn record(&self, value: f64) {
        if let Some(recorder) = &self.0 {
            recorder.record(value);
        }
    }

    /// Whether anybody listens.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }
}

impl fmt::Debug for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Series").field(&self.is_enabled()).finish()
    }
}

/// Most label combinations that are kept for one instrument; further ones share one that is named
/// `_overflow`.
const SERIES_MAX: usize = 2_000;

/// A sink that keeps sums, last values and counts, to be read by a test or a status page.
#[derive(Clone, Default)]
pub struct InMemoryMetrics {
    series: Arc<Mutex<SeriesByName>>,
}

type SeriesByName = BTreeMap<(&'static str, Labels), Arc<Cell>>;

#[derive(Default)]
struct Cell {
    gauge: bool,
    sum: AtomicU64,
    count: AtomicU64,
}

impl Recorder for Cell {
    fn record(&self, value: f64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let update = |bits: u64| {
            let sum = if self.gauge {
                value
            } else {
                f64::from_bits(bits) + value
            };
            Some(sum.to_bits())
        };
        // The closure always gives a value, so the update always happens.
        let _ = self
            .sum
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }
}

impl InMemoryMetrics {
    /// The sum of a counter or histogram, or the last value of a gauge, over all series of
    /// `instrument` that carry every one of `labels` as `(name, value)`.
    #[must_use]
    pub fn sum(&self, instrument: &Instrument, labels: &[(&str, &str)]) -> f64 {
        self.matching(instrument, labels, |cell| {
            f64::from_bits(cell.sum.load(Ordering::Relaxed))
        })
    }

    /// How often something was recorded; see [`InMemoryMetrics::sum`].
    #[must_use]
    pub fn count(&self, instrument: &Instrument, labels: &[(&str, &str)]) -> u64 {
        self.matching(instrument, labels, |cell| {
            cell.count.load(Ordering::Relaxed)
        })
    }

    fn matching<T: std::iter::Sum>(
        &self,
        instrument: &Instrument,
        labels: &[(&str, &str)],
        read: impl Fn(&Cell) -> T,
    ) -> T {
        let carries = |values: &Labels| {
            labels.iter().all(|(name, value)| {
                let at = instrument.labels.iter().position(|known| known == name);
                at.is_some_and(|at| &*values[at] == *value)
            })
        };
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series
            .iter()
            .filter(|((name, values), _)| *name == instrument.name && carries(values))
            .map(|(_, cell)| read(cell))
            .sum()
    }
}

impl MetricsSink for InMemoryMetrics {
    fn recorder(&self, instrument: &'static Instrument, mut labels: Labels) -> Arc<dyn Recorder> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let known = series
            .keys()
            .filter(|(name, _)| *name == instrument.name)
            .count();
        if known >= SERIES_MAX && !series.contains_key(&(instrument.name, labels.clone())) {
            labels
                .iter_mut()
                .for_each(|label| *label = "_overflow".into());
        }
        let gauge = instrument.kind == InstrumentKind::Gauge;
        series
            .entry((instrument.name, labels))
            .or_insert_with(|| {
                Arc::new(Cell {
                    gauge,
                    ..Cell::default()
                })
            })
            .clone()
    }
}

impl fmt::Debug for InMemoryMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("InMemoryMetrics")
            .field("series", &series.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_catalogue_is_sorted() {
        let names: Vec<_> = CATALOGUE.iter().map(|instrument| instrument.name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
    }

    #[test]
    fn counters_add_gauges_keep_the_last_and_overflow_is_bounded() {
        let metrics = InMemoryMetrics::default();
        let sent = |to: &str| {
            Series::of(
                Some(&metrics),
                SENT,
                vec!["main".into(), to.into(), "confirmed".into()],
            )
        };
        sent("a").record(1.0);
        sent("a").record(2.0);
        sent("b").record(1.0);
        assert_eq!(metrics.sum(SENT, &[("destination", "a")]), 3.0);
        assert_eq!(metrics.sum(SENT, &[]), 4.0);
        assert_eq!(metrics.count(SENT, &[("outcome", "confirmed")]), 3);
        let up = Series::of(Some(&metrics), CONNECTION_UP, vec!["main".into()]);
        up.record(1.0);
        up.record(0.0);
        assert_eq!(metrics.sum(CONNECTION_UP, &[]), 0.0);
        for index in 0..SERIES_MAX + 10 {
            sent(&index.to_string()).record(1.0);
        }
        assert_eq!(metrics.sum(SENT, &[("destination", "_overflow")]), 12.0);
    }
}
