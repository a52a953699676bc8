//! Which subscriptions are meant, and on which broker they are.

use std::sync::Arc;

use crate::error::{CommunicationError, CommunicationErrorKind};
use crate::message::TopicPattern;
use crate::messaging::{Group, MessageBroker, Subscription};

use super::CommunicationManager;

/// A subscription with its broker.
pub(super) type Found = (Arc<dyn MessageBroker>, Arc<Subscription>);

impl CommunicationManager {
    /// Those of a subscriber of this app; several, if it reads several topics.
    pub(super) fn subscriptions_of(
        &self,
        subscriber: &str,
    ) -> Result<Vec<Found>, CommunicationError> {
        let of_subscriber = self.subscriptions.iter().filter(|planned| {
            planned
                .handlers
                .iter()
                .any(|handler| &*handler.name == subscriber)
        });
        let found: Vec<_> = of_subscriber
            .filter_map(|planned| {
                let broker = self.message_broker(&planned.broker)?;
                Some((broker, Arc::clone(&planned.subscription)))
            })
            .collect();
        if found.is_empty() {
            let text = format!("there is no subscriber `{subscriber}` in this app");
            return Err(CommunicationError::new(CommunicationErrorKind::Plan, text));
        }
        Ok(found)
    }

    /// That of a group, be it another service's, on the broker that the topic is routed to.
    pub(super) fn subscription_of(
        &self,
        group: &str,
        topic: &str,
    ) -> Result<Found, CommunicationError> {
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
            return Ok((broker, Arc::clone(&planned.subscription)));
        }
        let name = self.publishing.broker_of(topic);
        let broker = self.message_broker(name).ok_or_else(|| {
            let text = format!("broker `{name}` is not configured");
            CommunicationError::new(CommunicationErrorKind::Configuration, text)
        })?;
        let subscription = Subscription::new(pattern, Group::Named(group.into()));
        Ok((broker, Arc::new(subscription)))
    }
}
