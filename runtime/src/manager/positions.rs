//! Where an app's subscriptions read.

use crate::error::CommunicationError;
use crate::messaging::Positions;

use super::CommunicationManager;

impl CommunicationManager {
    /// Where a subscriber of this app reads; several, if it reads several topics. On Kafka it can be moved,
    /// and windows can be replayed; elsewhere the calls say that they cannot.
    ///
    /// ```no_run
    /// # async fn example(manager: &interline::CommunicationManager) -> interline::Result<()> {
    /// use interline::messaging::Position;
    ///
    /// for positions in manager.positions("charge")? {
    ///     positions.seek(Position::Earliest).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If there is no such subscriber.
    pub fn positions(&self, subscriber: &str) -> Result<Vec<Positions>, CommunicationError> {
        let found = self.subscriptions_of(subscriber)?.into_iter();
        Ok(found
            .map(|(broker, subscription)| Positions::new(broker, subscription))
            .collect())
    }

    /// Where a group reads a topic (or template), on the broker that the topic is routed to. The group may
    /// be that of another service, whose instances are down.
    ///
    /// # Errors
    /// If `topic` is not a topic or its broker is not configured.
    pub fn positions_of(&self, group: &str, topic: &str) -> Result<Positions, CommunicationError> {
        let (broker, subscription) = self.subscription_of(group, topic)?;
        Ok(Positions::new(broker, subscription))
    }
}
