//! The durable part of the embedded broker: what outlives the processes that connect to it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::message::{Incoming, MessageId};

use super::events::{Event, EventKind};
use super::faults::MemoryFaults;
use super::settings::MemoryOptions;
use super::state::State;

/// Queues, messages, retry timers and dead letters of an embedded broker, shared by clone.
///
/// It lives as long as a handle or a connection to it does, in this process: an app can die and
/// another one go on where it stopped.
///
/// ```
/// use interline::messaging::{BrokerContext, MessageBroker};
/// use interline::messaging::memory::{MemoryBroker, MemoryStore};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let store = MemoryStore::default();
/// let broker = MemoryBroker::new(&store, &BrokerContext::new("main", "billing", "one"));
/// broker.connect().await.unwrap();
/// store.kill("one");
/// let next = MemoryBroker::new(&store, &BrokerContext::new("main", "billing", "two"));
/// next.connect().await.unwrap();
/// # });
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    pub(super) shared: Arc<Shared>,
}

/// What all handles and connections of one store share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// The set of timers, or of connections to make again, has an earlier time than before.
    pub(super) sooner: Notify,
    /// A connection was made or ended.
    pub(super) connections: Notify,
    /// Some consumer may be in another state than before.
    pub(super) consumers: Notify,
    /// Nothing is in flight any more.
    quiet: Notify,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` under the lock, then wakes whom it concerns.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let done = work(&mut state);
        let quiet = state.idle_waiters > 0 && state.is_quiet();
        self.wake(state);
        if quiet {
            self.quiet.notify_waiters();
        }
        done
    }

    /// Ends a visit to the state: wakes the connections' drivers and those who wait for a connection.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let sooner = std::mem::take(&mut state.sooner);
        let reconnected = std::mem::take(&mut state.reconnected);
        let consumers = std::mem::take(&mut state.consumers_changed);
        drop(state);
        if sooner {
            self.sooner.notify_waiters();
        }
        if reconnected {
            self.connections.notify_waiters();
        }
        if reconnected || consumers {
            self.consumers.notify_waiters();
        }
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(options: MemoryOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State::new(options)),
                sooner: Notify::new(),
                connections: Notify::new(),
                consumers: Notify::new(),
                quiet: Notify::new(),
            }),
        }
    }

    /// Makes things go wrong.
    #[must_use]
    pub fn faults(&self) -> MemoryFaults {
        MemoryFaults::of(self.clone())
    }

    /// Ends the connection of `instance` as a crash does: for good, without a word. What was out goes
    /// back to its queues, and nothing that the dead process still does reaches the store.
    pub fn kill(&self, instance: &str) {
        self.shared.with(|state| {
            for at in state.connections_of(Some(instance)) {
                state.end_connection(at);
            }
        });
    }

    pub(super) fn disconnect_all(&self, reconnect_after: Duration) {
        self.shared.with(|state| {
            let at = Instant::now() + reconnect_after;
            for connection in state.connections_of(None) {
                state.lose_connection(connection, at);
            }
        });
    }

    /// What is going on now.
    #[must_use]
    pub fn activity(&self) -> Activity {
        self.shared.lock().activity()
    }

    /// When something happens by itself next: a retry, the end of a time to live, a held message, a
    /// connection made again.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.shared.lock().next_due()
    }

    /// Waits until nothing is in flight, nothing waits to be handed out, and nothing is due at or
    /// before `horizon`. Messages without a running consumer do not count.
    ///
    /// It has no limit of its own: a handler that never ends keeps it waiting.
    pub async fn idle(&self, horizon: Instant) {
        let _waiting = IdleWaiter::of(&self.shared);
        loop {
            let quiet = self.shared.quiet.notified();
            let due = {
                let mut state = self.shared.lock();
                state.run_due();
                let due = state.next_due().filter(|due| *due <= horizon);
                let idle = state.is_quiet() && due.is_none();
                self.shared.wake(state);
                if idle {
                    return;
                }
                due
            };
            match due {
                None => quiet.await,
                // Quiet or due: either way it is looked at again.
                Some(due) => drop(tokio::time::timeout_at(due, quiet).await),
            }
        }
    }

    /// The last things that happened, oldest first; empty unless the options keep events.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.shared.lock().events.to_vec()
    }

    /// Adds a remark about a message to the events.
    pub fn note(&self, id: &MessageId, text: impl Into<String>) {
        let id = id.clone();
        let text = text.into();
        let note = || EventKind::Noted { id, text };
        self.shared.lock().events.record(note);
    }

    /// Adds to the events what happened beside the broker.
    pub fn remark(&self, text: impl Into<String>) {
        let text = text.into();
        let remark = || EventKind::Remarked { text };
        self.shared.lock().events.record(remark);
    }

    /// The messages of `topic` that the log still has, oldest first, as they were published.
    #[must_use]
    pub fn published(&self, topic: &str) -> Vec<Incoming> {
        self.shared.lock().published(|of| of == topic)
    }

    /// All messages that the log still has, oldest first, as they were published.
    #[must_use]
    pub fn log(&self) -> Vec<Incoming> {
        self.shared.lock().published(|_| true)
    }

    /// The queues, in order of name.
    #[must_use]
    pub fn queues(&self) -> Vec<QueueReport> {
        self.shared.lock().queue_reports()
    }
}

/// Counts a caller of [`MemoryStore::idle`] while it waits.
struct IdleWaiter<'a>(&'a Shared);

impl<'a> IdleWaiter<'a> {
    fn of(shared: &'a Shared) -> Self {
        shared.lock().idle_waiters += 1;
        Self(shared)
    }
}

impl Drop for IdleWaiter<'_> {
    fn drop(&mut self) {
        self.0.lock().idle_waiters -= 1;
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(MemoryOptions::default())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("activity", &self.activity())
            .finish_non_exhaustive()
    }
}

/// What is going on in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activity {
    /// Messages that are ready to be handed out, dead letters not counted.
    pub ready: usize,
    /// Messages that are handed out and not settled.
    pub in_flight: usize,
    /// Messages that wait for a retry, or are held by a fault.
    pub waiting: usize,
    /// Messages that are published at a later time.
    pub scheduled: usize,
}

/// What one queue holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueReport {
    /// Its name.
    pub name: Arc<str>,
    /// Messages that are ready to be handed out.
    pub ready: usize,
    /// Messages that are handed out and not settled.
    pub in_flight: usize,
    /// Messages that wait for a retry, or are held by a fault.
    pub waiting: usize,
    /// Dead letters.
    pub dead_letters: usize,
    /// Consumers that are connected.
    pub consumers: usize,
}
