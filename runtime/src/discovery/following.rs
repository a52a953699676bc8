//! Following a service at all its backends.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::cache::Cache;
use super::feed::{Hub, Snapshot};
use super::{Discovery, DiscoveryStatus, Feed, Query};

/// How long changes are gathered: a rolling deployment is many of them.
const GATHER: Duration = Duration::from_millis(50);
/// How long a backend that ended by itself is left alone.
const REST: Duration = Duration::from_secs(1);

/// A backend with its name.
#[derive(Clone)]
pub(super) struct Backend {
    pub(super) name: Arc<str>,
    pub(super) discovery: Arc<dyn Discovery>,
}

/// Where a service is, as its backends tell it.
pub(crate) struct ServiceWatch {
    hub: Arc<Hub>,
    backends: Vec<Backend>,
    query: Query,
    first_answer: Duration,
    cache: Option<Cache>,
}

impl ServiceWatch {
    pub(super) fn new(
        hub: Hub,
        backends: Vec<Backend>,
        query: Query,
        first_answer: Duration,
        cache: Option<Cache>,
    ) -> Self {
        Self {
            hub: Arc::new(hub),
            backends,
            query,
            first_answer,
            cache,
        }
    }

    /// What is known, and what will be.
    pub(crate) fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.hub.subscribe()
    }

    /// How long a call may wait for the first answer.
    pub(crate) fn first_answer(&self) -> Duration {
        self.first_answer
    }

    pub(crate) fn status(&self) -> DiscoveryStatus {
        self.hub.status()
    }

    /// Why there is no endpoint.
    pub(crate) fn why(&self) -> String {
        self.hub.why()
    }

    /// Whom it asks, in words.
    pub(crate) fn describe(&self) -> String {
        let backends = self.backends.iter();
        let backends = backends.map(|one| format!("`{}` ({})", one.name, one.discovery.kind()));
        let backends: Vec<_> = backends.collect();
        format!("found by {}", backends.join(", "))
    }

    /// The same, told by this one in place of each of its backends, and with nothing kept on disk.
    #[cfg(feature = "testing")]
    pub(super) fn told_by(&self, discovery: &Arc<dyn Discovery>) -> Self {
        let backend = |backend: &Backend| Backend {
            name: Arc::clone(&backend.name),
            discovery: Arc::clone(discovery),
        };
        Self {
            hub: Arc::clone(&self.hub),
            backends: self.backends.iter().map(backend).collect(),
            query: self.query.clone(),
            first_answer: self.first_answer,
            cache: None,
        }
    }

    /// Asks all backends and publishes what they say, until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut asking = JoinSet::new();
        for (place, backend) in self.backends.iter().enumerate() {
            let feed = Feed::new(&self.hub, place);
            asking.spawn(keep_asking(backend.clone(), self.query.clone(), feed));
        }
        if let Some(cache) = &self.cache {
            asking.spawn(cache.clone().serve(Arc::clone(&self.hub)));
        }
        loop {
            let next = self.hub.settle();
            tokio::select! {
                () = self.hub.changed() => {
                    if self.hub.is_resolved() {
                        sleep(GATHER).await;
                    }
                }
                () = sleep_until(next) => {}
            }
        }
    }
}

impl fmt::Debug for ServiceWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceWatch")
            .field("query", &self.query)
            .finish_non_exhaustive()
    }
}

/// Follows at one backend, again whenever that ends.
async fn keep_asking(backend: Backend, query: Query, feed: Feed) {
    loop {
        // A task of its own, so that a panic ends only that.
        let mut task = JoinSet::new();
        task.spawn(backend.discovery.follow(query.clone(), feed.clone()));
        let ended = task.join_next().await;
        let panicked = matches!(ended, Some(Err(error)) if error.is_panic());
        feed.ask().failed(if panicked {
            "panicked"
        } else {
            "ended by itself"
        });
        sleep(REST).await;
    }
}

#[cfg(test)]
mod tests;
