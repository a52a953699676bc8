//! Positions as operators handle them: what was read is read again, or passed over.

use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::message::Incoming;

use super::port::{
    BrokerError, BrokerErrorKind, MessageBroker, Position, PositionStore, Subscription,
};

/// Where one subscription reads. Only Kafka keeps what was read: elsewhere each of these calls is
/// [`BrokerErrorKind::Unsupported`], and says so.
///
/// ```no_run
/// # async fn example(positions: interline::messaging::Positions)
/// #     -> Result<(), interline::messaging::BrokerError> {
/// use interline::messaging::Position;
/// use std::time::{Duration, SystemTime};
///
/// // The handler had a mistake for an hour: everything since then is handled again.
/// let hour_ago = SystemTime::now() - Duration::from_secs(3600);
/// positions.seek(Position::Time(hour_ago)).await?;
///
/// // What came in that hour, to be looked at; no handler sees it.
/// let (messages, mut read) = tokio::sync::mpsc::channel(64);
/// let window = (Position::Time(hour_ago), Position::Latest);
/// let replaying = positions.replay(window, messages);
/// let showing = async {
///     while let Some(message) = read.recv().await {
///         println!("{} {}", message.topic, message.id);
///     }
/// };
/// let (count, ()) = tokio::join!(replaying, showing);
/// # let _ = count?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Positions {
    broker: Arc<dyn MessageBroker>,
    subscription: Arc<Subscription>,
}

impl Positions {
    /// The positions of `subscription` on `broker`.
    #[must_use]
    pub fn new(broker: Arc<dyn MessageBroker>, subscription: Arc<Subscription>) -> Self {
        Self {
            broker,
            subscription,
        }
    }

    /// The subscription.
    #[must_use]
    pub fn subscription(&self) -> &Arc<Subscription> {
        &self.subscription
    }

    /// Moves the positions of the whole subscription while no instance reads it. What waits for a retry
    /// stays.
    ///
    /// # Errors
    /// [`BrokerErrorKind::Refused`] if it is being read: stop its instances, or [`seek`](Self::seek) in
    /// each of them. [`BrokerErrorKind::NotFound`] if there is no such topic,
    /// [`BrokerErrorKind::Unsupported`] where the broker keeps nothing that was read.
    pub async fn reset(&self, to: Position) -> Result<(), BrokerError> {
        self.store()?.reset(&self.subscription, to).await
    }

    /// Moves the positions in the partitions that this process reads now, and reads on from there; returns
    /// how many these are. What handlers are busy with can no longer be acknowledged.
    ///
    /// # Errors
    /// [`BrokerErrorKind::NotFound`] if this process does not read it, else as for
    /// [`reset`](Self::reset).
    pub async fn seek(&self, to: Position) -> Result<usize, BrokerError> {
        self.store()?.seek(&self.subscription, to).await
    }

    /// Reads what lies in the subscription's topics from the first position up to, and without, the second
    /// into `messages`, partition by partition; returns how many there were. Neither handlers nor groups
    /// take part. Ends early when nobody takes messages any more.
    ///
    /// # Errors
    /// As for [`reset`](Self::reset), but nobody's reading is in the way.
    pub async fn replay(
        &self,
        window: (Position, Position),
        messages: mpsc::Sender<Incoming>,
    ) -> Result<u64, BrokerError> {
        let store = self.store()?;
        store.replay(&self.subscription, window, messages).await
    }

    fn store(&self) -> Result<&dyn PositionStore, BrokerError> {
        self.broker.positions().ok_or_else(|| {
            let text = format!(
                "a broker of kind `{}` keeps nothing that was read, so `{}` has no position in it; \
                 positions are moved and windows replayed on Kafka",
                self.broker.kind(),
                self.subscription.label
            );
            BrokerError::new(BrokerErrorKind::Unsupported, self.broker.name(), text)
        })
    }
}

impl fmt::Debug for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Positions")
            .field("subscription", &self.subscription.label)
            .finish()
    }
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use super::*;
    use crate::message::TopicPattern;
    use crate::messaging::memory::{MemoryBroker, MemoryOptions, MemoryStore};
    use crate::messaging::{BrokerContext, Group};

    #[tokio::test]
    async fn where_nothing_is_kept_it_is_said_where_it_would_be() {
        let store = MemoryStore::new(MemoryOptions::for_tests(1));
        let context = BrokerContext::new("main", "billing", "billing-1");
        let broker = Arc::new(MemoryBroker::new(&store, &context));
        let topic = TopicPattern::parse("orders").unwrap();
        let subscription = Subscription::new(topic, Group::Named("billing".into()));
        let positions = Positions::new(broker, Arc::new(subscription));
        let refused = [
            positions.reset(Position::Latest).await.unwrap_err(),
            positions.seek(Position::Earliest).await.unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.kind(), BrokerErrorKind::Unsupported);
            assert!(error.to_string().contains("on Kafka"), "{error}");
        }
    }
}
