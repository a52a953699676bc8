//! Redis Pub/Sub: at most once, to everybody who listens at the moment.

mod consumer;
pub(super) mod handoff;
pub(super) mod publish;
pub(super) mod settings;
mod taken;
pub(super) mod wire;

use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::config::{Faults, Section};
use crate::handling::{BoxFuture, PublishError};
use crate::message::{Outgoing, ReplyAddress};
use crate::messaging::{
    BrokerContext, BrokerError, BrokerErrorKind, BrokerHealth, Capabilities, Connected, Consumer,
    DeadLetterStore, Delivery, DeliveryMode, Inspection, MessageBroker, ReplyEvents, Requests,
    Subscription, Topology,
};

use super::core::{Core, Link, lock};
use super::replies::{self, ChannelRequests, Way};
use super::supervisor;

use self::consumer::ChannelConsumer;
use self::publish::to_channel;
use self::settings::Settings;

/// The broker of a section of kind `redis-pubsub`; `None` where mistakes were found.
pub(crate) fn connect(
    context: &BrokerContext,
    section: &Section<'_>,
    faults: &mut Faults,
) -> Option<Arc<dyn MessageBroker>> {
    Some(Arc::new(RedisPubSub::read(context, section, faults)?))
}

/// A Redis server, used through Pub/Sub.
///
/// A topic is a channel, and a template a pattern of channels. Every instance that listens gets every
/// message, whatever its group; whoever does not listen at the moment never does. What arrives while
/// handlers are behind waits in a queue of bounded length, and what no longer fits is dropped and
/// counted. So is every time that a connection was lost: what was published meanwhile is missing.
///
/// ```
/// use interline::config::{Config, Faults};
/// use interline::messaging::redis::RedisPubSub;
/// use interline::messaging::{BrokerContext, MessageBroker};
///
/// let config = Config::new()
///     .with("brokers.live.kind", "redis-pubsub")
///     .with("brokers.live.url", "redis://localhost");
/// let mut faults = Faults::new();
/// let context = BrokerContext::new("live", "billing", "billing-1");
/// let broker = RedisPubSub::read(&context, &config.section("brokers.live"), &mut faults).unwrap();
/// assert!(broker.capabilities().at_most_once_only);
/// ```
pub struct RedisPubSub {
    core: Arc<Core>,
    settings: Settings,
    consumers: Mutex<Vec<Arc<ChannelConsumer>>>,
}

impl RedisPubSub {
    /// The broker that the section describes, not connected yet; `None` where mistakes were found.
    #[must_use]
    pub fn read(
        context: &BrokerContext,
        section: &Section<'_>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let before = faults.len();
        let (shared, settings) = Settings::read(section, faults);
        if faults.len() > before {
            return None;
        }
        Some(Self {
            core: Arc::new(Core::new(context.clone(), shared)),
            settings,
            consumers: Mutex::default(),
        })
    }

    async fn close(&self, deadline: Instant) {
        let consumers = std::mem::take(&mut *lock(&self.consumers));
        let stopping = consumers.iter().map(|consumer| consumer.stop());
        let stopping = futures_util::future::join_all(stopping);
        // Past the deadline they end with the link.
        let _ = timeout_at(deadline, stopping).await;
        self.core.link.send_replace(Link::Closed);
        self.core.up.record(0.0);
    }
}

impl MessageBroker for RedisPubSub {
    fn name(&self) -> &Arc<str> {
        &self.core.context.name
    }

    fn kind(&self) -> &'static str {
        "redis-pubsub"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            patterns: true,
            reports_unroutable: true,
            // Where to answer stands in a header.
            replies: self.settings.heads,
            at_most_once_only: true,
            held_max: None,
            ..Capabilities::NONE
        }
    }

    fn topology(&self, _: &[Arc<Subscription>]) -> Topology {
        // A channel exists while somebody listens to it.
        Topology::default()
    }

    fn connect(&self) -> BoxFuture<'_, Result<Connected, BrokerError>> {
        Box::pin(supervisor::connect(&self.core))
    }

    fn apply<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        let outcome = match topology.parts.first() {
            Some(part) => Err(BrokerError::new(
                BrokerErrorKind::Configuration,
                &self.core.context.name,
                format!("{} `{}` is nothing that Pub/Sub has", part.kind, part.name),
            )),
            None => Ok(()),
        };
        Box::pin(std::future::ready(outcome))
    }

    fn inspect<'a>(
        &'a self,
        topology: &'a Topology,
    ) -> BoxFuture<'a, Result<Inspection, BrokerError>> {
        // Nothing has to be there, so nothing differs and nothing is left.
        let nothing = self.apply(topology);
        Box::pin(async move { nothing.await.map(|()| Inspection::default()) })
    }

    fn publish(&self, outgoing: Outgoing) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(to_channel(&self.core, self.settings.heads, outgoing))
    }

    fn requests(
        &self,
        events: ReplyEvents,
    ) -> BoxFuture<'_, Result<Arc<dyn Requests>, BrokerError>> {
        Box::pin(async move {
            if !self.settings.heads {
                let text = "a request says in a header where to answer, and this broker sends bodies \
                            alone; set `headers = \"head\"`";
                let name = &self.core.context.name;
                return Err(BrokerError::new(BrokerErrorKind::Unsupported, name, text));
            }
            ChannelRequests::listen(&self.core, Way::Channel, events).await
        })
    }

    fn reply(
        &self,
        to: ReplyAddress,
        outgoing: Outgoing,
    ) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(async move { replies::reply(&self.core, &to, outgoing).await })
    }

    fn subscribe(
        &self,
        subscription: Arc<Subscription>,
        deliveries: mpsc::Sender<Delivery>,
    ) -> BoxFuture<'_, Result<Arc<dyn Consumer>, BrokerError>> {
        Box::pin(async move {
            if subscription.delivery != DeliveryMode::AtMostOnce {
                let text = format!(
                    "subscription `{}` wants every message, and Pub/Sub delivers at most once; use \
                     Streams (`kind = \"redis\"`), or write `delivery = at_most_once`",
                    subscription.label
                );
                let name = &self.core.context.name;
                return Err(BrokerError::new(BrokerErrorKind::Unsupported, name, text));
            }
            let consumer =
                ChannelConsumer::start(&self.core, &self.settings, &subscription, deliveries);
            lock(&self.consumers).push(Arc::clone(&consumer));
            Ok(consumer as Arc<dyn Consumer>)
        })
    }

    fn disconnect(&self, deadline: Instant) -> BoxFuture<'_, ()> {
        Box::pin(self.close(deadline))
    }

    fn health_check(&self) -> BrokerHealth {
        self.core.health()
    }

    fn dead_letters(&self) -> Option<&dyn DeadLetterStore> {
        None
    }
}

impl fmt::Debug for RedisPubSub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPubSub")
            .field("name", &self.core.context.name)
            .field("health", &self.core.health())
            .finish_non_exhaustive()
    }
}
