//! The gate of a subscription: open, or closed by hand or for a while.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::messaging::Consumer;

/// Decides whether a subscription fetches and starts messages.
///
/// Somebody may pause it by hand, and a handler may pause it for a while; it is open when neither
/// does.
pub(super) struct Gate {
    state: Mutex<State>,
    closed: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    by_hand: bool,
    until: Option<Instant>,
    timer_runs: bool,
    consumer: Option<Arc<dyn Consumer>>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            closed: watch::Sender::new(false),
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
        !*self.closed.borrow()
    }

    pub(super) async fn pause(&self) {
        self.lock().by_hand = true;
        self.update().await;
    }

    pub(super) async fn resume(&self) {
        {
            let mut state = self.lock();
            state.by_hand = false;
            state.until = None;
        }
        self.update().await;
    }

    /// Closes the gate for `lasting`; a longer pause that runs already goes on.
    pub(super) fn pause_for(self: &Arc<Self>, lasting: Duration) {
        let until = Instant::now() + lasting;
        {
            let mut state = self.lock();
            state.until = Some(state.until.map_or(until, |running| running.max(until)));
            if state.timer_runs {
                return;
            }
            state.timer_runs = true;
        }
        let gate = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(until) = {
                let Some(gate) = gate.upgrade() else { return };
                gate.update().await;
                gate.running_until()
            } {
                tokio::time::sleep_until(until).await;
            }
        });
    }

    /// Until when the pause lasts; ends the timer where there is none any more.
    fn running_until(&self) -> Option<Instant> {
        let mut state = self.lock();
        let until = state.until.filter(|until| *until > Instant::now());
        state.timer_runs = until.is_some();
        until
    }

    /// Tells the consumer, if the state of the gate has changed.
    async fn update(&self) {
        let (closed, consumer) = {
            let mut state = self.lock();
            if state.until.is_some_and(|until| until <= Instant::now()) {
                state.until = None;
            }
            (
                state.by_hand || state.until.is_some(),
                state.consumer.clone(),
            )
        };
        let changed = self
            .closed
            .send_if_modified(|was| std::mem::replace(was, closed) != closed);
        let Some(consumer) = consumer.filter(|_| changed) else {
            return;
        };
        if closed {
            consumer.pause().await;
        } else {
            consumer.resume().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
