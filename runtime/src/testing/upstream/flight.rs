//! The requests that are under way, and when each goes on by itself.

use std::collections::BTreeMap;
use std::convert::Infallible;
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
    /// When each goes on; `None` for never.
    due: BTreeMap<u64, Option<Instant>>,
}

impl Flights {
    pub(super) fn begin(self: &Arc<Self>) -> Flight {
        let mut state = self.lock();
        state.number += 1;
        let number = state.number;
        state.due.insert(number, Some(Instant::now()));
        Flight {
            flights: Arc::clone(self),
            number,
        }
    }

    /// Whether none goes on by itself at or before `horizon`.
    pub(super) fn is_quiet(&self, horizon: Instant) -> bool {
        let state = self.lock();
        !state.due.values().flatten().any(|due| *due <= horizon)
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

/// One of them. Dropped, it is over.
#[derive(Debug)]
pub(super) struct Flight {
    flights: Arc<Flights>,
    number: u64,
}

impl Flight {
    /// Waits so long.
    pub(super) async fn wait(&self, wait: Duration) {
        if wait.is_zero() {
            return;
        }
        let until = later(Instant::now(), wait);
        self.is_due(Some(until));
        sleep_until(until).await;
        self.is_due(Some(Instant::now()));
    }

    /// Waits for ever.
    pub(super) async fn wait_for_ever(&self) -> Infallible {
        self.is_due(None);
        std::future::pending().await
    }

    fn is_due(&self, at: Option<Instant>) {
        self.flights.lock().due.insert(self.number, at);
        self.flights.changed.notify_waiters();
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights.lock().due.remove(&self.number);
        self.flights.changed.notify_waiters();
    }
}
