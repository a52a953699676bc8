//! The gate of a subscription: what the consumer may fetch, as a hand and the breaker allow it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::messaging::Consumer;

/// How much a consumer fetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetch {
    All,
    /// One message at a time, to see whether handling works again.
    One,
    Nothing,
}

/// Decides what a subscription fetches, and whether it starts what it holds.
///
/// Somebody may pause it by hand: then nothing is fetched and nothing started. The breaker only
/// stops fetching; what it does with what is held is its own affair.
pub(super) struct Gate {
    state: Mutex<State>,
    /// What the consumer was told last; held while it is told.
    told: tokio::sync::Mutex<Fetch>,
    closed: watch::Sender<bool>,
    /// The same, for whoever only looks: before each message, all workers do.
    is_open: AtomicBool,
}

struct State {
    by_hand: bool,
    breaker: Fetch,
    consumer: Option<Arc<dyn Consumer>>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                by_hand: false,
                breaker: Fetch::All,
                consumer: None,
            }),
            told: tokio::sync::Mutex::new(Fetch::All),
            closed: watch::Sender::new(false),
            is_open: AtomicBool::new(true),
        }
    }

    pub(super) fn attach(&self, consumer: Arc<dyn Consumer>) {
        self.lock().consumer = Some(consumer);
    }

    /// Waits until the gate is open.
    pub(super) async fn open(&self) {
        let mut closed = self.closed.subscribe();
        // The sender lives as long as `self`, so the wait cannot fail.
        let _ = closed.wait_for(|closed| !closed).await;
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    fn set_closed(&self, now: bool) {
        self.closed.send_modify(|closed| {
            *closed = now;
            self.is_open.store(!now, Ordering::Release);
        });
    }

    pub(super) async fn pause(&self) {
        self.lock().by_hand = true;
        self.set_closed(true);
        self.tell().await;
    }

    pub(super) async fn resume(&self) {
        self.lock().by_hand = false;
        self.set_closed(false);
        self.tell().await;
    }

    /// What the breaker allows. Returns when the consumer was told.
    pub(super) async fn allow(&self, fetch: Fetch) {
        self.lock().breaker = fetch;
        self.tell().await;
    }

    async fn tell(&self) {
        let mut told = self.told.lock().await;
        let (wanted, consumer) = {
            let state = self.lock();
            let wanted = match state.by_hand {
                true => Fetch::Nothing,
                false => state.breaker,
            };
            (wanted, state.consumer.clone())
        };
        let Some(consumer) = consumer.filter(|_| *told != wanted) else {
            return;
        };
        match wanted {
            Fetch::All => consumer.resume().await,
            Fetch::One => consumer.trickle(1).await,
            Fetch::Nothing => consumer.pause().await,
        }
        *told = wanted;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
