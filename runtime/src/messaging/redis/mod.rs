//! Redis: Streams with consumer groups, at least once; and Pub/Sub, at most once.

mod acks;
mod answers;
mod consumer;
mod core;
mod dead_letters;
mod durability;
mod epoch;
mod errors;
mod fields;
mod inspect;
mod lease;
mod listened;
mod live;
mod names;
mod out;
mod place;
mod publish;
mod pubsub;
mod reading;
mod replies;
mod scheduled;
mod scripts;
mod settings;
mod settler;
mod supervisor;
mod topology;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::config::{Faults, Section};
use crate::handling::{BoxFuture, PublishError};
use crate::message::{MessageId, Outgoing, ReplyAddress};
use crate::messaging::{
    BrokerContext, BrokerError, BrokerErrorKind, BrokerHealth, Capabilities, Connected, Consumer,
    DeadLetterStore, Delivery, DurabilityConcern, Export, Inspection, MessageBroker, ReplyEvents,
    Requests, Subscription, Topology,
};

pub use self::pubsub::RedisPubSub;
pub(crate) use self::pubsub::connect as connect_channels;

use self::consumer::StreamConsumer;
use self::core::{Core, Link, lock};
use self::dead_letters::DeadLetters;
use self::replies::{ChannelRequests, Way};
use self::settings::Settings;

/// The broker of a section of kind `redis`; `None` where mistakes were found.
pub fn connect(
    context: &BrokerContext,
    section: &Section<'_>,
    faults: &mut Faults,
) -> Option<Arc<dyn MessageBroker>> {
    Some(Arc::new(RedisStreams::read(context, section, faults)?))
}

/// A Redis server, used through its streams.
///
/// A topic is a stream and a subscription a consumer group on it. What was handed out stays pending on
/// the server until it is settled: instances take over what others left, and tell the server about
/// what they are still at. Delayed retries wait in a sorted set, and come back through a stream that
/// only their group reads.
///
/// ```
/// use interline::config::{Config, Faults};
/// use interline::messaging::redis::RedisStreams;
/// use interline::messaging::{BrokerContext, MessageBroker};
///
/// let config = Config::new().with("brokers.main.url", "redis://localhost");
/// let mut faults = Faults::new();
/// let context = BrokerContext::new("main", "billing", "billing-1");
/// let broker = RedisStreams::read(&context, &config.section("brokers.main"), &mut faults).unwrap();
/// assert_eq!(broker.kind(), "redis");
/// ```
pub struct RedisStreams {
    core: Arc<Core>,
    dead_letters: DeadLetters,
}

impl RedisStreams {
    /// The broker that the section describes, not connected yet; `None` where mistakes were found.
    #[must_use]
    pub fn read(
        context: &BrokerContext,
        section: &Section<'_>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let before = faults.len();
        let settings = Settings::read(section, faults);
        if faults.len() > before {
            return None;
        }
        let core = Arc::new(Core::new(context.clone(), settings));
        Some(Self {
            dead_letters: DeadLetters(Arc::clone(&core)),
            core,
        })
    }

    async fn close(&self, deadline: Instant) {
        let consumers = lock(&self.core.consumers).clone();
        let stopping =
            futures_util::future::join_all(consumers.iter().map(|consumer| consumer.stop()));
        // Past the deadline the connection closes with what it has; others take the rest.
        let _ = timeout_at(deadline, stopping).await;
        let flushing = consumers
            .iter()
            .map(|consumer| consumer.settler.flush(deadline));
        futures_util::future::join_all(flushing).await;
        self.core.link.send_replace(Link::Closed);
        self.core.up.record(0.0);
        lock(&self.core.consumers).clear();
    }
}

impl MessageBroker for RedisStreams {
    fn name(&self) -> &Arc<str> {
        &self.core.context.name
    }

    fn kind(&self) -> &'static str {
        "redis"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            patterns: false,
            ordered_across_instances: true,
            priorities: false,
            message_ttl: true,
            durable: true,
            reports_unroutable: true,
            replies: true,
            scheduling: Some(scheduled::SCHEDULING),
            at_most_once_only: false,
            held_max: None,
        }
    }

    fn topology(&self, subscriptions: &[Arc<Subscription>]) -> Topology {
        topology::readable(self.core.context.prefix.as_deref(), subscriptions)
    }

    fn connect(&self) -> BoxFuture<'_, Result<Connected, BrokerError>> {
        Box::pin(supervisor::connect(&self.core))
    }

    fn apply<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            let groups = topology::groups(&self.core.context.name, topology)?;
            let live = self.core.connected()?;
            topology::apply_all(&self.core, &live, &groups).await
        })
    }

    fn durability<'a>(
        &'a self,
        subscriptions: &'a [Arc<Subscription>],
    ) -> BoxFuture<'a, Result<Vec<DurabilityConcern>, BrokerError>> {
        Box::pin(async move { durability::concerns(&self.core, subscriptions).await })
    }

    fn publish(&self, outgoing: Outgoing) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(self.core.publish(outgoing))
    }

    fn schedule(
        &self,
        outgoing: Outgoing,
        due: SystemTime,
    ) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(self.core.schedule(outgoing, due))
    }

    fn unschedule<'a>(&'a self, id: &'a MessageId) -> BoxFuture<'a, Result<bool, BrokerError>> {
        Box::pin(self.core.unschedule(id))
    }

    fn requests(
        &self,
        events: ReplyEvents,
    ) -> BoxFuture<'_, Result<Arc<dyn Requests>, BrokerError>> {
        Box::pin(ChannelRequests::listen(&self.core, Way::Stream, events))
    }

    fn reply(
        &self,
        to: ReplyAddress,
        outgoing: Outgoing,
    ) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(async move { replies::reply(&self.core, &to, outgoing).await })
    }

    fn inspect<'a>(
        &'a self,
        topology: &'a Topology,
    ) -> BoxFuture<'a, Result<Inspection, BrokerError>> {
        Box::pin(inspect::inspect(&self.core, topology))
    }

    fn export(&self, topology: &Topology) -> Option<Export> {
        inspect::export(&self.core, topology)
    }

    fn subscribe(
        &self,
        subscription: Arc<Subscription>,
        deliveries: mpsc::Sender<Delivery>,
    ) -> BoxFuture<'_, Result<Arc<dyn Consumer>, BrokerError>> {
        Box::pin(async move {
            if subscription.topic.is_pattern() {
                let text = format!(
                    "`{}` is a template, and a stream has one name; name the topics one by one",
                    subscription.topic.as_str()
                );
                let name = &self.core.context.name;
                return Err(BrokerError::new(BrokerErrorKind::Unsupported, name, text));
            }
            let consumer = StreamConsumer::start(&self.core, &subscription, deliveries);
            lock(&self.core.consumers).push(Arc::clone(&consumer));
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
        Some(&self.dead_letters)
    }
}

impl fmt::Debug for RedisStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStreams")
            .field("name", &self.core.context.name)
            .field("health", &self.core.health())
            .finish_non_exhaustive()
    }
}
