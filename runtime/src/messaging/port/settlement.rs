//! One message handed out, and how it is settled.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::handling::BoxFuture;
use crate::message::{Headers, Incoming};

use super::BrokerError;

/// One message handed out by a broker, with the way to settle it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The message.
    pub incoming: Arc<Incoming>,
    /// Settles it, once.
    pub settlement: Settlement,
}

impl Delivery {
    /// A message and its settlement.
    #[must_use]
    pub fn new(incoming: impl Into<Arc<Incoming>>, settlement: Settlement) -> Self {
        Self {
            incoming: incoming.into(),
            settlement,
        }
    }
}

/// Names one delivery to the adapter that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Ticket {
    /// The connection (or assignment) it belongs to; settling one of an old epoch does nothing.
    pub epoch: u64,
    /// The delivery in that epoch.
    pub tag: u64,
}

impl Ticket {
    /// The delivery `tag` of `epoch`.
    #[must_use]
    pub const fn new(epoch: u64, tag: u64) -> Self {
        Self { epoch, tag }
    }
}

/// Settles one delivery. It never leaves the engine; used once, by value.
#[must_use = "a delivery that is never settled occupies the prefetch until the connection ends"]
pub struct Settlement {
    settler: Arc<dyn Settler>,
    ticket: Ticket,
}

impl Settlement {
    /// The settlement of `ticket` through `settler`.
    pub fn new(settler: Arc<dyn Settler>, ticket: Ticket) -> Self {
        Self { settler, ticket }
    }

    /// Handled: the broker can forget it.
    ///
    /// # Errors
    /// [`BrokerError`] if the broker could not be told; it will hand the message out again.
    pub async fn done(self) -> Result<Settled, BrokerError> {
        match self.settler.done_at_once(self.ticket) {
            Some(settled) => Ok(settled),
            None => self.settler.done(self.ticket).await,
        }
    }

    /// Hand it to this subscription again after `after`, which is one of the subscription's ladder,
    /// with `headers` in place of its own. The copy is confirmed before the original is acknowledged.
    ///
    /// # Errors
    /// [`BrokerError`] if the copy was not confirmed; the message is still out then, and the
    /// adapter has released it.
    pub async fn retry(
        self,
        message: Arc<Incoming>,
        after: Duration,
        headers: Headers,
    ) -> Result<Settled, BrokerError> {
        self.settler
            .retry(self.ticket, message, after, headers)
            .await
    }

    /// Move it to the subscription's dead letters, its bytes unchanged, with `headers`. The copy is
    /// confirmed before the original is acknowledged.
    ///
    /// # Errors
    /// As for [`Settlement::retry`].
    pub async fn dead_letter(
        self,
        message: Arc<Incoming>,
        headers: Headers,
    ) -> Result<Settled, BrokerError> {
        self.settler
            .dead_letter(self.ticket, message, headers)
            .await
    }

    /// Give it back untouched, for this or another instance.
    ///
    /// # Errors
    /// [`BrokerError`] if the broker could not be told; it will hand the message out again.
    pub async fn release(self) -> Result<Settled, BrokerError> {
        self.settler.release(self.ticket).await
    }

    /// Whether it can still be settled; see [`Settler::is_current`].
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.settler.is_current(self.ticket.epoch)
    }
}

impl fmt::Debug for Settlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Settlement").field(&self.ticket).finish()
    }
}

/// How a settlement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settled {
    /// The broker was told.
    Yes,
    /// The delivery belonged to a connection that is gone; the broker hands the message out again.
    Stale,
}

/// Carries out settlements for one consumer; see [`Settlement`] for what each has to do.
pub trait Settler: Send + Sync {
    /// See [`Settlement::done`].
    fn done(&self, ticket: Ticket) -> BoxFuture<'_, Result<Settled, BrokerError>>;

    /// The same where the broker can be told without waiting; `None` leaves it to
    /// [`done`](Settler::done).
    fn done_at_once(&self, ticket: Ticket) -> Option<Settled> {
        let _ = ticket;
        None
    }

    /// See [`Settlement::retry`].
    fn retry(
        &self,
        ticket: Ticket,
        message: Arc<Incoming>,
        after: Duration,
        headers: Headers,
    ) -> BoxFuture<'_, Result<Settled, BrokerError>>;

    /// See [`Settlement::dead_letter`].
    fn dead_letter(
        &self,
        ticket: Ticket,
        message: Arc<Incoming>,
        headers: Headers,
    ) -> BoxFuture<'_, Result<Settled, BrokerError>>;

    /// See [`Settlement::release`].
    fn release(&self, ticket: Ticket) -> BoxFuture<'_, Result<Settled, BrokerError>>;

    /// Whether deliveries of this epoch can still be settled. The engine drops what it has not
    /// started of an epoch that is gone.
    fn is_current(&self, epoch: u64) -> bool;
}
