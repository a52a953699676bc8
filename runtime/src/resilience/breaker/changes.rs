//! The changes of a circuit, for whoever wants to hear of them.

use std::fmt;
use std::sync::OnceLock;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Transition;

/// As many changes are kept for one who is slow.
const KEPT: usize = 16;

/// Those who want to hear of changes. It takes no room until there is one: most circuits have none.
#[derive(Default)]
pub(super) struct Listeners(OnceLock<broadcast::Sender<Transition>>);

impl Listeners {
    pub(super) fn join(&self) -> CircuitChanges {
        let sender = self.0.get_or_init(|| broadcast::Sender::new(KEPT));
        CircuitChanges(sender.subscribe())
    }

    pub(super) fn tell(&self, change: Transition) {
        if let Some(sender) = self.0.get() {
            // That nobody listens any more is no failure.
            let _ = sender.send(change);
        }
    }
}

/// The changes of a [`CircuitBreaker`](super::CircuitBreaker) from its
/// [`subscribe`](super::CircuitBreaker::subscribe) on.
pub struct CircuitChanges(broadcast::Receiver<Transition>);

impl CircuitChanges {
    /// Waits for the next change; `None` when the circuit is gone. One who is more than 16 changes behind
    /// loses the oldest.
    pub async fn next(&mut self) -> Option<Transition> {
        loop {
            match self.0.recv().await {
                Ok(change) => return Some(change),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

impl fmt::Debug for CircuitChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitChanges").finish_non_exhaustive()
    }
}
