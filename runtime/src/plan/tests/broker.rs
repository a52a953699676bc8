//! A broker that can be made and talks to nobody.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::handling::{BoxFuture, PublishError};
use crate::message::Outgoing;
use crate::messaging::{
    BrokerError, BrokerHealth, Capabilities, Connected, ConnectionState, Consumer, DeadLetterStore,
    Delivery, MessageBroker, Subscription, Topology,
};

pub(super) struct FakeBroker {
    name: Arc<str>,
    capabilities: Capabilities,
}

impl Capabilities {
    pub(super) const ALL: Self = Self {
        patterns: true,
        ordered_across_instances: true,
        priorities: true,
        message_ttl: true,
        durable: true,
        reports_unroutable: true,
        replies: true,
        scheduling: None,
        at_most_once_only: false,
        held_max: None,
    };
}

impl FakeBroker {
    pub(super) fn able(name: &str, capabilities: Capabilities) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            capabilities,
        })
    }
}

impl MessageBroker for FakeBroker {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "fake"
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn topology(&self, _: &[Arc<Subscription>]) -> Topology {
        Topology::default()
    }

    fn connect(&self) -> BoxFuture<'_, Result<Connected, BrokerError>> {
        unreachable!("a plan connects to nothing")
    }

    fn apply<'a>(&'a self, _: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        unreachable!("a plan connects to nothing")
    }

    fn publish(&self, _: Outgoing) -> BoxFuture<'_, Result<(), PublishError>> {
        unreachable!("a plan connects to nothing")
    }

    fn subscribe(
        &self,
        _: Arc<Subscription>,
        _: mpsc::Sender<Delivery>,
    ) -> BoxFuture<'_, Result<Arc<dyn Consumer>, BrokerError>> {
        unreachable!("a plan connects to nothing")
    }

    fn disconnect(&self, _: Instant) -> BoxFuture<'_, ()> {
        unreachable!("a plan connects to nothing")
    }

    fn health_check(&self) -> BrokerHealth {
        BrokerHealth::new(ConnectionState::Disconnected)
    }

    fn dead_letters(&self) -> Option<&dyn DeadLetterStore> {
        None
    }
}
