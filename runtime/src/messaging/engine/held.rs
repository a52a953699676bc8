//! A delivery in the engine's hands: whatever happens to the task that holds it, it is settled.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::message::Incoming;
use crate::messaging::{Delivery, Settlement};

/// A message and its settlement. Dropped unsettled (the task was aborted or panicked), the
/// settlement goes to the runner, which gives the message back to the broker.
pub(super) struct Held {
    pub(super) incoming: Arc<Incoming>,
    settlement: Option<Settlement>,
    returns: Returns,
}

/// Where settlements go that nobody used. Shared: a sender of its own would be counted twice for each
/// message.
pub(super) type Returns = Arc<mpsc::Sender<Settlement>>;

impl Held {
    pub(super) fn new(delivery: Delivery, returns: Returns) -> Self {
        let Delivery {
            incoming,
            settlement,
        } = delivery;
        Self {
            incoming,
            settlement: Some(settlement),
            returns,
        }
    }

    /// Whether it belongs to a connection that is gone, and was not settled before.
    pub(super) fn is_lost(&self) -> bool {
        let settlement = self.settlement.as_ref();
        settlement.is_some_and(|settlement| !settlement.is_current())
    }

    /// Whether it was settled, or its settlement was taken out.
    pub(super) fn is_settled(&self) -> bool {
        self.settlement.is_none()
    }

    /// Takes the settlement out: from now on the caller answers for it.
    pub(super) fn take(&mut self) -> Option<Settlement> {
        self.settlement.take()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(settlement) = self.settlement.take() {
            // The channel holds as many as can be out. If the runner is gone, so is the connection,
            // and the broker hands the message out again by itself.
            let _ = self.returns.try_send(settlement);
        }
    }
}
