//! The requests that are under way, and when each goes on by itself.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::clock::later;

/// All requests that are under way at the instances of one upstream.
#[derive(Debug, Default)]
pub(super) struct Flights {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    number: u64,
    all: BTreeMap<u64, Going>,
}

#[derive(Debug)]
struct Going {
    what: String,
    /// When it goes on by itself; `None` for never.
    due: Option<Instant>,
}

impl Flights {
    /// Begins one; `what` tells of it where it does not end.
    pub(super) fn begin(self: &Arc<Self>, what: String) -> Flight {
        let mut state = self.lock();
        state.number += 1;
        let number = state.number;
        let due = Some(Instant::now());
        state.all.insert(number, Going { what, due });
        Flight {
            flights: Arc::clone(self),
            number,
        }
    }

    /// Whether none goes on by itself at or before `horizon`.
    pub(super) fn is_quiet(&self, horizon: Instant) -> bool {
        let state = self.lock();
        !state.all.values().any(|one| one.is_due(horizon))
    }

    /// Those that go on by themselves at or before `horizon`.
    pub(super) fn due(&self, horizon: Instant) -> Vec<String> {
        let state = self.lock();
        let due = state.all.values().filter(|one| one.is_due(horizon));
        due.map(|one| one.what.clone()).collect()
    }

    /// Waits until none goes on by itself at or before `horizon`.
    pub(super) async fn quiet(&self, horizon: Instant) {
        loop {
            let changed = self.changed.notified();
            if self.is_quiet(horizon) {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Going {
    fn is_due(&self, horizon: Instant) -> bool {
        self.due.is_some_and(|due| due <= horizon)
    }
}

/// One of them. Dropped, it is over.
#[derive(Debug)]
pub(super) struct Flight {
    flights: Arc<Flights>,
    number: u64,
}

impl Flight {
    /// Waits so long.
    pub(super) async fn wait(&self, wait: Duration) {
        self.wait_until(later(Instant::now(), wait)).await;
    }

    /// Waits until then.
    pub(super) async fn wait_until(&self, until: Instant) {
        if until <= Instant::now() {
            return;
        }
        self.is_due(Some(until));
        sleep_until(until).await;
        self.is_due(Some(Instant::now()));
    }

    /// Waits for ever.
    pub(super) async fn wait_for_ever(&self) -> Infallible {
        self.is_due(None);
        std::future::pending().await
    }

    /// Waits for somebody else, and does not go on by itself until then.
    pub(super) async fn wait_for<T>(&self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        // What is there at once is not waited for: nobody should find it at rest in between.
        tokio::select! {
            biased;
            done = &mut other => return done,
            () = std::future::ready(()) => {}
        }
        self.is_due(None);
        let done = other.await;
        self.is_due(Some(Instant::now()));
        done
    }

    fn is_due(&self, at: Option<Instant>) {
        if let Some(going) = self.flights.lock().all.get_mut(&self.number) {
            going.due = at;
        }
        self.flights.changed.notify_waiters();
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.lock().all.remove(&self.number);
        self.flights.changed.notify_waiters();
    }
}
