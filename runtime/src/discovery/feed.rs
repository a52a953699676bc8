//! Where a backend tells what it knows.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::observability::metrics::{
    DISCOVERY_AGE, DISCOVERY_DURATION, DISCOVERY_ENDPOINTS, MetricsSink, Series,
};

use super::filter::Filter;
use super::merge::{Merge, Said, merge};
use super::{DiscoveryStatus, Endpoint, EndpointSet, SourceStatus};

/// How often ages are told to the metrics at least.
const AGES_EVERY: Duration = Duration::from_secs(10);

/// What is known of a service at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) endpoints: Arc<EndpointSet>,
    /// Whether it is an answer, if only that there is nothing.
    pub(crate) resolved: bool,
    /// Whether it is what was kept on disk, because nobody answers.
    pub(super) cached: bool,
}

/// What was kept on disk.
struct Kept {
    endpoints: Arc<EndpointSet>,
    /// When it was true.
    since: Instant,
}

/// How what is said becomes what is used.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) schemes: &'static [&'static str],
    pub(super) filter: Filter,
    pub(super) merge: Merge,
    pub(super) patience: Duration,
}

/// Where a backend tells what it knows of one service.
#[derive(Clone)]
pub struct Feed {
    place: usize,
    hub: Arc<Hub>,
}

impl Feed {
    pub(super) fn new(hub: &Arc<Hub>, place: usize) -> Self {
        Self {
            place,
            hub: Arc::clone(hub),
        }
    }

    /// Begins a question. One that is dropped without an answer tells nothing.
    pub fn ask(&self) -> Asking<'_> {
        Asking {
            feed: self,
            begun: Instant::now(),
        }
    }

    /// What was answered last still holds: only its age changes, and a failure since then is over.
    pub fn unchanged(&self) {
        self.hub.tell(self.place, Said::repeat);
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("service", &self.hub.service)
            .finish_non_exhaustive()
    }
}

/// A question that a backend is asked, from its beginning to its answer.
#[derive(Debug)]
#[must_use = "a question without an answer tells nothing"]
pub struct Asking<'f> {
    feed: &'f Feed,
    begun: Instant,
}

impl Asking<'_> {
    /// All instances that there are now. That there is none any more is believed when it has been
    /// said, and nothing else, for the configured `patience`.
    pub fn answered(self, endpoints: EndpointSet) {
        let hub = &self.feed.hub;
        let source = &hub.sources[self.feed.place];
        source.answered.record(self.took());
        let (set, left_out) = hub.admitted(endpoints, &mut source.told());
        let instead = hub.calls_what_was_kept();
        hub.tell(self.feed.place, |said, now| {
            said.left_out = left_out;
            said.answer(set, instead, now);
        });
    }

    /// It is not known where the service is, and why: what was said before still holds.
    pub fn failed(self, why: impl Into<String>) {
        let hub = &self.feed.hub;
        hub.sources[self.feed.place].failed.record(self.took());
        hub.tell(self.feed.place, |said, now| said.fail(why.into(), now));
    }

    fn took(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }
}

/// A backend as one of the sources of a service.
struct Source {
    backend: Arc<str>,
    kind: &'static str,
    answered: Series,
    failed: Series,
    age: Series,
    /// Which endpoints of its last answer cannot be called: each is told once.
    told: Mutex<BTreeSet<Arc<str>>>,
}

impl Source {
    fn told(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all backends say of one service, and what is made of it.
pub(super) struct Hub {
    pub(super) service: Arc<str>,
    sources: Vec<Source>,
    said: Mutex<Vec<Said>>,
    kept: Mutex<Option<Kept>>,
    rules: Rules,
    changed: Notify,
    snapshot: watch::Sender<Snapshot>,
    count: Series,
}

impl Hub {
    pub(super) fn new(
        service: &Arc<str>,
        backends: impl Iterator<Item = (Arc<str>, &'static str)>,
        rules: Rules,
        metrics: Option<&dyn MetricsSink>,
    ) -> Self {
        let sources = backends.map(|(backend, kind)| {
            let labels = || vec![Arc::clone(service), Arc::clone(&backend)];
            let took = |outcome: &str| {
                let mut labels = labels();
                labels.push(outcome.into());
                Series::of(metrics, DISCOVERY_DURATION, labels)
            };
            Source {
                kind,
                answered: took("answered"),
                failed: took("failed"),
                age: Series::of(metrics, DISCOVERY_AGE, labels()),
                told: Mutex::default(),
                backend,
            }
        });
        let sources: Vec<Source> = sources.collect();
        let said = sources.iter().map(|_| Said::default()).collect();
        Self {
            service: Arc::clone(service),
            said: Mutex::new(said),
            sources,
            kept: Mutex::new(None),
            rules,
            changed: Notify::new(),
            snapshot: watch::Sender::new(Snapshot::default()),
            count: Series::of(metrics, DISCOVERY_ENDPOINTS, vec![Arc::clone(service)]),
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.subscribe()
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn is_resolved(&self) -> bool {
        self.snapshot.borrow().resolved
    }

    /// Whether a backend answers now.
    pub(super) fn is_answering(&self) -> bool {
        let answers = |said: &Said| said.failing.is_none() && said.good.is_some();
        self.said().iter().any(answers)
    }

    /// Whether every backend has failed, and none has ever answered.
    pub(super) fn is_left_alone(&self) -> bool {
        let fails = |said: &Said| said.failing.is_some() && said.good.is_none();
        self.said().iter().all(fails)
    }

    /// What was true so long ago is taken until somebody answers. Where nothing of it fits, it says
    /// nothing.
    pub(super) fn remember(&self, endpoints: EndpointSet, age: Duration) {
        let now = Instant::now();
        let (admitted, _) = self.admitted(endpoints, &mut BTreeSet::new());
        if admitted.is_empty() {
            return;
        }
        *self.kept() = Some(Kept {
            endpoints: Arc::new(admitted),
            since: now.checked_sub(age).unwrap_or(now),
        });
        self.changed.notify_one();
    }

    /// Whether endpoints that were kept on disk are called, because nobody has answered yet.
    fn calls_what_was_kept(&self) -> bool {
        let nobody_answered = {
            let snapshot = self.snapshot.borrow();
            snapshot.cached || !snapshot.resolved
        };
        nobody_answered && self.kept().is_some()
    }

    /// Those that are called, and how many are not. `told` are those that it was said of that they
    /// cannot be called.
    fn admitted(
        &self,
        endpoints: EndpointSet,
        told: &mut BTreeSet<Arc<str>>,
    ) -> (EndpointSet, usize) {
        let can_be_called = |endpoint: &Endpoint| self.rules.schemes.contains(&endpoint.scheme());
        let cannot = endpoints.iter().filter(|endpoint| !can_be_called(endpoint));
        let cannot: BTreeSet<Arc<str>> = cannot.map(|endpoint| endpoint.url().into()).collect();
        for endpoint in cannot.difference(told) {
            let (service, schemes) = (&*self.service, self.rules.schemes.join(", "));
            tracing::warn!(
                service,
                endpoint = &**endpoint,
                "endpoint left out: this program can call {schemes}"
            );
        }
        *told = cannot;
        let fits =
            |endpoint: &&Endpoint| can_be_called(endpoint) && self.rules.filter.admits(endpoint);
        let fitting = endpoints.iter().filter(fits).count();
        let left_out = endpoints.len() - fitting;
        if left_out == 0 {
            return (endpoints, 0);
        }
        (endpoints.iter().filter(fits).cloned().collect(), left_out)
    }

    fn tell(&self, place: usize, change: impl FnOnce(&mut Said, Instant)) {
        let source = &self.sources[place];
        let (service, backend) = (&*self.service, &*source.backend);
        let mut said = self.said();
        let said = &mut said[place];
        let failed_before = said.failing.is_some();
        change(said, Instant::now());
        match &said.failing {
            Some((_, why)) if !failed_before => {
                let kept = said.good.as_ref().map_or(0, |set| set.len());
                let text = "discovery does not answer; what it said last is kept";
                tracing::warn!(service, backend, kept, error = &**why, "{text}");
            }
            None if failed_before => tracing::info!(service, backend, "discovery answers again"),
            _ => {}
        }
        self.changed.notify_one();
    }

    /// Makes a snapshot of what was said; gives when to look again though nobody says anything.
    pub(super) fn settle(&self) -> Instant {
        let now = Instant::now();
        let mut said = self.said();
        let mut merged = merge(said.iter_mut(), self.rules.merge, self.rules.patience, now);
        for (source, said) in self.sources.iter().zip(&*said) {
            if let Some(answered) = said.answered {
                source.age.record((now - answered).as_secs_f64());
            }
        }
        drop(said);
        let mut cached = None;
        if !merged.resolved
            && let Some(kept) = &*self.kept()
        {
            merged.set = Arc::clone(&kept.endpoints);
            merged.resolved = true;
            cached = Some(now - kept.since);
        }
        let count = merged.set.len();
        let before = self.snapshot.borrow().clone();
        let same = before.endpoints == merged.set && before.cached == cached.is_some();
        if before.resolved != merged.resolved || !same {
            self.count.record(count as f64);
            let (service, before) = (&*self.service, before.endpoints.len());
            match cached {
                None => tracing::info!(service, before, endpoints = count, "endpoints changed"),
                Some(age) => {
                    let text = "nobody tells where the service is; taking what was kept on disk";
                    let age = age.as_secs();
                    tracing::warn!(service, endpoints = count, age_s = age, "{text}");
                }
            }
            self.snapshot.send_replace(Snapshot {
                endpoints: merged.set,
                resolved: merged.resolved,
                cached: cached.is_some(),
            });
        }
        let ages = now + AGES_EVERY;
        merged.next.map_or(ages, |next| next.min(ages))
    }

    pub(super) fn status(&self) -> DiscoveryStatus {
        let now = Instant::now();
        let said = self.said();
        let sources = self.sources.iter().zip(&*said);
        let sources = sources.map(|(source, said)| SourceStatus {
            backend: Arc::clone(&source.backend),
            kind: source.kind,
            endpoints: said.good.as_ref().map(|set| set.len()),
            left_out: said.left_out,
            age: said.answered.map(|answered| now - answered),
            error: said.failing.as_ref().map(|(_, why)| why.clone()),
        });
        let snapshot = self.snapshot.borrow();
        DiscoveryStatus {
            service: Arc::clone(&self.service),
            endpoints: snapshot.endpoints.len(),
            unhealthy: 0,
            resolved: snapshot.resolved,
            cached: match &*self.kept() {
                Some(kept) if snapshot.cached => Some(now - kept.since),
                _ => None,
            },
            sources: sources.collect(),
        }
    }

    /// Why there is no endpoint.
    pub(super) fn why(&self) -> String {
        let said = self.said();
        let told = self.sources.iter().zip(&*said).map(|(source, said)| {
            let why = match (&said.failing, &said.good) {
                (Some((_, why)), _) => why.clone(),
                (None, Some(_)) if said.left_out > 0 => {
                    format!("knows {}, of which none fits", said.left_out)
                }
                (None, Some(_)) => "says that there is none".to_owned(),
                (None, None) => "has not answered yet".to_owned(),
            };
            format!("`{}` {why}", source.backend)
        });
        told.collect::<Vec<_>>().join("; ")
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn said(&self) -> MutexGuard<'_, Vec<Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
