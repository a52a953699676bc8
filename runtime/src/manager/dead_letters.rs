//! The dead letters of an app's subscriptions.

use std::sync::Arc;

use crate::error::{CommunicationError, CommunicationErrorKind};
use crate::message::TopicPattern;
use crate::messaging::{DeadLetters, Group, Subscription};

use super::CommunicationManager;

impl CommunicationManager {
    /// What a subscriber of this app has given up; several, if it reads several topics.
    ///
    /// # Errors
    /// If there is no such subscriber.
    pub fn dead_letters(&self, subscriber: &str) -> Result<Vec<DeadLetters>, CommunicationError> {
        let of_subscriber = self.subscriptions.iter().filter(|planned| {
            planned
                .handlers
                .iter()
                .any(|handler| &*handler.name == subscriber)
        });
        let found: Vec<_> = of_subscriber
            .filter_map(|planned| {
                let broker = self.message_broker(&planned.broker)?;
                Some(DeadLetters::new(broker, Arc::clone(&planned.subscription)))
            })
            .collect();
        if found.is_empty() {
            let text = format!("there is no subscriber `{subscriber}` in this app");
            return Err(CommunicationError::new(CommunicationErrorKind::Plan, text));
        }
        Ok(found)
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
        let pattern = TopicPattern::parse(topic.to_owned()).map_err(|error| {
            CommunicationError::new(CommunicationErrorKind::Plan, error.to_string())
        })?;
        let ours = self.subscriptions.iter().find(|planned| {
            let subscription = &planned.subscription;
            let group = matches!(&subscription.group, Group::Named(name) if &**name == group);
            group && subscription.topic == pattern
        });
        if let Some(planned) = ours
            && let Some(broker) = self.message_broker(&planned.broker)
        {
            return Ok(DeadLetters::new(broker, Arc::clone(&planned.subscription)));
        }
        let name = self.publishing.broker_of(topic);
        let broker = self.message_broker(name).ok_or_else(|| {
            let text = format!("broker `{name}` is not configured");
            CommunicationError::new(CommunicationErrorKind::Configuration, text)
        })?;
        let subscription = Subscription::new(pattern, Group::Named(group.into()));
        Ok(DeadLetters::new(broker, Arc::new(subscription)))
    }
}
