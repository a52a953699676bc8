//! What the engine has of a subscription's messages. There is nothing to settle: the server forgot a
//! message when it sent it. So one that comes back unhandled is dropped, and counted.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::handling::BoxFuture;
use crate::message::{Headers, Incoming};
use crate::messaging::{BrokerError, BrokerErrorKind, Settled, Settler, Ticket};
use crate::observability::metrics::Series;

use super::super::core::lock;

/// The deliveries that the engine was handed and has not settled yet.
pub(super) struct Taken {
    broker: Arc<str>,
    prefetch: usize,
    inner: Mutex<Inner>,
    changed: Notify,
    dropped: Series,
}

#[derive(Default)]
struct Inner {
    out: u32,
    last_tag: u64,
    /// How many may be out, where that is less than the prefetch.
    limit: Option<usize>,
}

impl Inner {
    fn out(&self) -> usize {
        usize::try_from(self.out).unwrap_or(usize::MAX)
    }
}

impl Taken {
    pub(super) fn new(broker: Arc<str>, prefetch: u16, dropped: Series) -> Self {
        Self {
            broker,
            prefetch: usize::from(prefetch).max(1),
            inner: Mutex::default(),
            changed: Notify::new(),
            dropped,
        }
    }

    /// From now on so many more may be out at most.
    pub(super) fn limit(&self, most: u16) {
        let mut inner = lock(&self.inner);
        let limit = inner.out() + usize::from(most);
        inner.limit = Some(limit.clamp(1, self.prefetch));
    }

    /// As many may be out as the prefetch says.
    pub(super) fn lift(&self) {
        lock(&self.inner).limit = None;
    }

    fn has_room(&self) -> bool {
        let inner = lock(&self.inner);
        inner.out() < inner.limit.unwrap_or(self.prefetch)
    }

    /// Waits until one more may be out.
    pub(super) async fn until_room(&self) {
        while !self.has_room() {
            let changed = self.changed.notified();
            if self.has_room() {
                return;
            }
            changed.await;
        }
    }

    /// One more is out; by this ticket.
    pub(super) fn hand_out(&self) -> Ticket {
        let mut inner = lock(&self.inner);
        inner.out += 1;
        inner.last_tag += 1;
        Ticket::new(1, inner.last_tag)
    }

    fn settle(&self) -> Settled {
        lock(&self.inner).out -= 1;
        self.changed.notify_waiters();
        Settled::Yes
    }

    /// It was not handled, and nobody gets it again.
    fn drop_one(&self) -> Settled {
        self.dropped.record(1.0);
        self.settle()
    }

    fn refuse(&self, what: &str) -> BrokerError {
        self.drop_one();
        let text = format!("Pub/Sub cannot {what} a message: it is delivered at most once");
        BrokerError::new(BrokerErrorKind::Unsupported, &self.broker, text)
    }
}

impl Settler for Taken {
    fn done(&self, _: Ticket) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        Box::pin(std::future::ready(Ok(self.settle())))
    }

    fn done_at_once(&self, _: Ticket) -> Option<Settled> {
        Some(self.settle())
    }

    fn retry(
        &self,
        _: Ticket,
        _: Arc<Incoming>,
        _: Duration,
        _: Headers,
    ) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        Box::pin(std::future::ready(Err(self.refuse("repeat"))))
    }

    fn dead_letter(
        &self,
        _: Ticket,
        _: Arc<Incoming>,
        _: Headers,
    ) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        Box::pin(std::future::ready(Err(self.refuse("keep"))))
    }

    fn release(&self, _: Ticket) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        Box::pin(std::future::ready(Ok(self.drop_one())))
    }

    /// No connection takes along what was handed out: nobody hands it out again.
    fn is_current(&self, _: u64) -> bool {
        true
    }
}

impl Drop for Taken {
    /// Nobody is left who could settle the rest.
    fn drop(&mut self) {
        let left = lock(&self.inner).out;
        if left > 0 {
            self.dropped.record(left.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::Settlement;
    use crate::observability::metrics::{DROPPED, InMemoryMetrics};

    #[tokio::test]
    async fn what_is_not_handled_is_counted_once() {
        let metrics = InMemoryMetrics::default();
        let labels = vec![Arc::from("main"), Arc::from("g.t")];
        let dropped = Series::of(Some(&metrics), DROPPED, labels);
        let taken = Arc::new(Taken::new("main".into(), 8, dropped));
        let hand_out = || Settlement::new(Arc::clone(&taken) as _, taken.hand_out());
        let counted = || metrics.sum(DROPPED, &[]);
        assert_eq!(hand_out().done().await.unwrap(), Settled::Yes);
        assert_eq!(counted(), 0.0);
        assert_eq!(hand_out().release().await.unwrap(), Settled::Yes);
        assert_eq!(counted(), 1.0);
        // Nobody settles these two.
        drop((hand_out(), hand_out()));
        let last = hand_out();
        drop(taken);
        assert_eq!(counted(), 1.0);
        assert_eq!(last.done().await.unwrap(), Settled::Yes);
        assert_eq!(counted(), 3.0);
    }

    #[tokio::test]
    async fn a_limit_lets_so_many_more_out() {
        let taken = Taken::new("main".into(), 3, Series::default());
        taken.hand_out();
        taken.limit(1);
        assert!(taken.has_room());
        taken.hand_out();
        assert!(!taken.has_room());
        taken.settle();
        taken.until_room().await;
        taken.lift();
        taken.hand_out();
        assert!(taken.has_room());
        // Never more than the prefetch.
        taken.limit(9);
        taken.hand_out();
        assert!(!taken.has_room());
    }
}
