//! The dead letters of an app's subscriptions.

use crate::error::CommunicationError;
use crate::messaging::DeadLetters;

use super::CommunicationManager;

impl CommunicationManager {
    /// What a subscriber of this app has given up; several, if it reads several topics.
    ///
    /// # Errors
    /// If there is no such subscriber.
    pub fn dead_letters(&self, subscriber: &str) -> Result<Vec<DeadLetters>, CommunicationError> {
        let found = self.subscriptions_of(subscriber)?.into_iter();
        Ok(found
            .map(|(broker, subscription)| DeadLetters::new(broker, subscription))
            .collect())
    }

    /// What a group has given up of a topic (or template), on the broker that the topic is routed to.
    /// The group may be that of another service.
    ///
    /// # Errors
    /// If `topic` is not a topic or its broker is not configured.
    pub fn dead_letters_of(
        &self,
        group: &str,
        topic: &str,
    ) -> Result<DeadLetters, CommunicationError> {
        let (broker, subscription) = self.subscription_of(group, topic)?;
        Ok(DeadLetters::new(broker, subscription))
    }
}
