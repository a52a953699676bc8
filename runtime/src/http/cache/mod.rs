//! Answers that are kept, by the rules of RFC 9111, for the calls of methods with `#[cache]`.
//!
//! The cache is private to the process, and nothing is shared between identities: every header that
//! the caller gives is a part of what an answer is kept under. Calls for the same answer at the same
//! time become one. What is too old is asked for again with its validator; it may stand in while that
//! happens, or where it fails, as long as the method or the service allows.

mod flight;
mod key;
mod stored;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use crate::observability::metrics::{CLIENT_CACHE, MetricsSink, Series};

use super::error::{CallErrorKind, CallFailure, CallName, Sent, may_be_repeated};
use super::stack::{Answer, Prepared, Stack};

use flight::{Effort, Flights, Landing, Seat};
pub(super) use key::Key;
use stored::{State, Stored};

/// What a method says about keeping its answers.
///
/// Where the service says something about the same, the lesser of the two counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheSettings {
    /// How long an answer is fresh where the service does not say, and at most.
    pub ttl: Option<Duration>,
    /// How much longer it stands in where the service does not answer.
    pub stale_if_error: Option<Duration>,
    /// How much longer it stands in while another is asked for.
    pub stale_while_revalidate: Option<Duration>,
}

impl CacheSettings {
    /// As the service says.
    pub const UNSET: Self = Self {
        ttl: None,
        stale_if_error: None,
        stale_while_revalidate: None,
    };

    /// Fresh for this long where the service does not say, and at most.
    #[must_use]
    pub const fn ttl(mut self, time: Duration) -> Self {
        self.ttl = Some(time);
        self
    }

    /// Standing in for this long where the service does not answer.
    #[must_use]
    pub const fn stale_if_error(mut self, time: Duration) -> Self {
        self.stale_if_error = Some(time);
        self
    }

    /// Standing in for this long while another is asked for.
    #[must_use]
    pub const fn stale_while_revalidate(mut self, time: Duration) -> Self {
        self.stale_while_revalidate = Some(time);
        self
    }
}

/// The least time in which asking once more makes sense.
const WORTH_ASKING: Duration = Duration::from_millis(10);

/// How many counters of writes there are; paths share them.
const WRITES: usize = 1_024;

/// The kept answers of one service.
pub(super) struct Cache {
    kept: moka::sync::Cache<Key, Arc<Stored>>,
    flights: Flights,
    /// How often what may be kept was written to, by the hash of its path. An answer of before does not
    /// count any more; that a few others share its counter costs no more than asking again.
    writes: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

impl Cache {
    /// One of at most so many bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        let weigh = |key: &Key, stored: &Arc<Stored>| {
            let bytes = key.bytes() + stored.bytes();
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self {
            kept: moka::sync::Cache::builder()
                .max_capacity(bytes_max)
                .weigher(weigh)
                .build(),
            flights: Flights::default(),
            writes: (0..WRITES).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    fn writes_of(&self, target: &str) -> &AtomicU64 {
        let path = target.split('?').next().unwrap_or_default();
        // Below the number of counters by the remainder.
        &self.writes[(self.hasher.hash_one(path) % WRITES as u64) as usize]
    }

    /// Something was written there: what is kept of it is over.
    pub(super) fn written(&self, method: &Method, target: &str) {
        if !method.is_safe() {
            self.writes_of(target).fetch_add(1, Ordering::AcqRel);
        }
    }

    /// What is kept for this request, unless it was written to since.
    fn find(&self, key: &Key, target: &str) -> Option<Arc<Stored>> {
        let stored = self.kept.get(key)?;
        let writes = self.writes_of(target).load(Ordering::Acquire);
        (stored.writes() == writes).then_some(stored)
    }
}

/// The counters of one method.
#[derive(Debug)]
pub(super) struct Counts {
    hit: Series,
    miss: Series,
    revalidated: Series,
    stale: Series,
    coalesced: Series,
}

impl Counts {
    pub(super) fn new(call: &CallName, metrics: Option<&dyn MetricsSink>) -> Self {
        let series = |outcome: &str| {
            let method: Arc<str> = (*call.method).into();
            let labels = vec![Arc::clone(&call.service), method, outcome.into()];
            Series::of(metrics, CLIENT_CACHE, labels)
        };
        Self {
            hit: series("hit"),
            miss: series("miss"),
            revalidated: series("revalidated"),
            stale: series("stale"),
            coalesced: series("coalesced"),
        }
    }
}

/// What a method has of the cache.
#[derive(Debug)]
pub(super) struct Rules {
    settings: CacheSettings,
    counts: OnceLock<Counts>,
}

impl Rules {
    pub(super) fn new(settings: CacheSettings) -> Self {
        Self {
            settings,
            counts: OnceLock::new(),
        }
    }
}

/// One call that may be answered from what is kept.
#[derive(Clone)]
pub(super) struct Cached {
    pub(super) stack: Arc<Stack>,
    pub(super) prepared: Arc<Prepared>,
    pub(super) rules: Arc<Rules>,
    pub(super) key: Key,
}

impl Cached {
    /// Answers it.
    pub(super) async fn call(self) -> Result<Answer, Box<CallFailure>> {
        let cache = self.stack.cache();
        let counts = self.counts();
        let mut waited = false;
        loop {
            let now = self.stack.environment.clock.now();
            let stored = cache.find(&self.key, &self.prepared.target);
            if let Some(stored) = &stored {
                match stored.state(&self.prepared, now, &self.rules.settings) {
                    State::Fresh => {
                        if !waited {
                            counts.hit.record(1.0);
                        }
                        return Ok(stored.answer(now));
                    }
                    State::Aging => {
                        self.refresh(stored);
                        counts.stale.record(1.0);
                        return Ok(stored.answer(now));
                    }
                    State::Stale | State::Other => {}
                }
            }
            let landing = match cache.flights.board(&self.key) {
                Seat::Pilot(flight) => {
                    if stored.is_none() {
                        counts.miss.record(1.0);
                    }
                    let mut landing = flight.landing();
                    let fetch = self.clone().fetch(stored);
                    // In a task of its own: that this call is given up is no reason for the others to
                    // fail.
                    tokio::spawn(flight.fly(fetch).in_current_span());
                    landing.wait().await
                }
                Seat::Passenger(mut landing) => {
                    if !waited {
                        counts.coalesced.record(1.0);
                    }
                    waited = true;
                    match timeout_at(self.prepared.deadline, landing.wait()).await {
                        // Who would not try as hard as this call is no measure for it.
                        Ok(Landing::Failed(failure, effort))
                            if self.can_do_more(&failure, effort) =>
                        {
                            continue;
                        }
                        Ok(landing) => landing,
                        Err(_) => return Err(Box::new(self.too_late())),
                    }
                }
            };
            return match landing {
                Landing::Answer(answer) | Landing::Unshared(Some(answer)) => Ok(answer.copy()),
                Landing::Failed(failure, _) => Err(Box::new(failure.copy())),
                // It was meant for one, or who asked is gone: this call asks for itself.
                Landing::Unshared(None) | Landing::Lost => self.stack.call(&self.prepared).await,
            };
        }
    }

    /// Whether this call has time left where that of another was over, or attempts where the other had
    /// no more.
    fn can_do_more(&self, failure: &CallFailure, effort: Effort) -> bool {
        let now = Instant::now();
        let has_time = now + WORTH_ASKING < self.prepared.deadline;
        let tries_more = effort.attempts < self.prepared.decided.attempts && may_be_mended(failure);
        has_time && (now >= effort.deadline || tries_more)
    }

    /// Asks again while what is kept stands in, unless somebody does already.
    fn refresh(&self, stored: &Arc<Stored>) {
        let cache = self.stack.cache();
        let Seat::Pilot(flight) = cache.flights.board(&self.key) else {
            return;
        };
        let mut prepared = (*self.prepared).clone();
        prepared.deadline = Instant::now() + prepared.decided.timeout;
        let asking = Self {
            prepared: Arc::new(prepared),
            ..self.clone()
        };
        let fetch = asking.fetch(Some(Arc::clone(stored)));
        tokio::spawn(flight.fly(fetch).in_current_span());
    }

    /// Asks the service, and keeps what may be kept.
    async fn fetch(self, stored: Option<Arc<Stored>>) -> Landing {
        let cache = self.stack.cache();
        let writes = cache
            .writes_of(&self.prepared.target)
            .load(Ordering::Acquire);
        let now = self.stack.environment.clock.now();
        let conditional = stored
            .as_ref()
            .and_then(|stored| stored.conditional(&self.prepared, now));
        let mut result = match &conditional {
            Some(conditional) => self.stack.call(conditional).await,
            None => self.stack.call(&self.prepared).await,
        };
        let now = self.stack.environment.clock.now();
        if let (Ok(answer), Some(stored)) = (&result, &stored)
            && answer.status == StatusCode::NOT_MODIFIED
        {
            if let Some(renewed) =
                stored.renewed(&self.prepared, answer, now, writes, &self.rules.settings)
            {
                self.counts().revalidated.record(1.0);
                let renewed = Arc::new(renewed);
                cache.kept.insert(self.key.clone(), Arc::clone(&renewed));
                return Landing::Answer(Arc::new(renewed.answer(now)));
            }
            // What did not change is not what is kept: the whole of it has to come.
            result = self.stack.call(&self.prepared).await;
        }
        match result {
            Ok(answer) => {
                let fresh = Stored::of(&self.prepared, &answer, now, writes, &self.rules.settings);
                match fresh {
                    Some(fresh) => {
                        cache.kept.insert(self.key.clone(), Arc::new(fresh));
                        Landing::Answer(Arc::new(answer))
                    }
                    None => {
                        cache.kept.invalidate(&self.key);
                        Landing::Unshared(Some(Arc::new(answer)))
                    }
                }
            }
            Err(failure) => match stored {
                Some(stored)
                    if can_be_covered(&failure)
                        && stored.covers_errors(&self.prepared, now, &self.rules.settings) =>
                {
                    self.counts().stale.record(1.0);
                    Landing::Answer(Arc::new(stored.answer(now)))
                }
                _ => {
                    let effort = Effort {
                        deadline: self.prepared.deadline,
                        attempts: self.prepared.decided.attempts,
                    };
                    Landing::Failed(Arc::from(failure), effort)
                }
            },
        }
    }

    fn counts(&self) -> &Counts {
        self.rules.counts.get_or_init(|| {
            let metrics = self.stack.environment.metrics.as_deref();
            Counts::new(&self.prepared.call, metrics)
        })
    }

    fn too_late(&self) -> CallFailure {
        let text = "the same call of somebody else has not been answered in time";
        let mut failure = CallFailure::new(CallErrorKind::Timeout, &self.prepared.call, text);
        failure.sent = Sent::Maybe;
        failure
    }
}

/// Whether an older answer may stand in: the service is at fault, not the request.
fn can_be_covered(failure: &CallFailure) -> bool {
    match (failure.kind, failure.status) {
        (CallErrorKind::Request, _) => false,
        (_, Some(status)) => status.is_server_error() || may_be_repeated(status),
        (_, None) => true,
    }
}

/// Whether another attempt could have ended otherwise. Who was not called at all was refused before any
/// attempt, as every other would be.
fn may_be_mended(failure: &CallFailure) -> bool {
    failure.attempts > 0
        && match (failure.kind, failure.status) {
            (CallErrorKind::Request | CallErrorKind::TooLarge, _) => false,
            (_, Some(status)) => may_be_repeated(status),
            (_, None) => true,
        }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn the_room_is_bounded() {
        let cache = Cache::new(20_000);
        let none = HeaderMap::new();
        let key = |number: u32| Key::new(&Method::GET, &format!("/{number}"), &[&none], false);
        for number in 0..200 {
            let stored = Stored::for_test(vec![0; 1_000]);
            cache.kept.insert(key(number), Arc::new(stored));
        }
        cache.kept.run_pending_tasks();
        let (count, bytes) = (cache.kept.entry_count(), cache.kept.weighted_size());
        assert!((1..=20).contains(&count), "{count}");
        assert!(bytes <= 20_000, "{bytes}");
    }

    #[test]
    fn a_write_is_one_to_a_path_and_not_to_its_query() {
        let cache = Cache::new(1_000);
        let writes = |target: &str| cache.writes_of(target).load(Ordering::Acquire);
        cache.written(&Method::GET, "/a?b");
        assert_eq!(writes("/a"), 0);
        cache.written(&Method::POST, "/a?b");
        assert_eq!((writes("/a"), writes("/a?c")), (1, 1));
    }
}
