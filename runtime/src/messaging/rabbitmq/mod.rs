//! RabbitMQ: quorum queues, confirmed publishes, one supervisor per pair of connections.

mod connection;
mod consumer;
mod core;
mod dead_letters;
mod declare;
mod durability;
mod errors;
#[cfg(feature = "tls")]
mod handshake;
mod headers;
mod hello;
mod hosts;
mod inspect;
mod lane;
mod leftover;
mod management;
mod publish;
mod replies;
mod schedule;
mod settings;
mod settler;
mod supervisor;
mod tls;
mod topology;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::config::{Faults, Section};
use crate::handling::{BoxFuture, PublishError};
use crate::message::{Outgoing, ReplyAddress};
use crate::messaging::{
    Argument, BrokerContext, BrokerError, BrokerErrorKind, BrokerHealth, Capabilities, Connected,
    Consumer, DeadLetterStore, Delivery, DurabilityConcern, ExchangeKind, Export, Inspection,
    MessageBroker, QueueKind, ReplyEvents, Requests, Subscription, Topology, TopologyMode,
};

use self::consumer::QueueConsumer;
use self::core::{Core, Link, lock};
use self::dead_letters::DeadLetters;
use self::replies::DirectRequests;
use self::settings::Settings;
use self::topology::{Names, Part, Value};

const CLOSE_MIN: Duration = Duration::from_millis(500);

/// The broker of a section of kind `rabbitmq`; `None` where mistakes were found.
pub fn connect(
    context: &BrokerContext,
    section: &Section<'_>,
    faults: &mut Faults,
) -> Option<Arc<dyn MessageBroker>> {
    Some(Arc::new(RabbitMq::read(context, section, faults)?))
}

/// A RabbitMQ server, or a cluster of them.
///
/// Two connections, one for what is published and one for what is consumed, are kept up by one
/// task. After a loss it makes connections, topology, channels, prefetch and consumers anew; what was
/// out before can no longer be settled and is handed out again by the server.
///
/// ```
/// use interline::config::{Config, Faults};
/// use interline::messaging::rabbitmq::RabbitMq;
/// use interline::messaging::{BrokerContext, MessageBroker};
///
/// let config = Config::new().with("brokers.main.url", "amqp://localhost");
/// let mut faults = Faults::new();
/// let context = BrokerContext::new("main", "billing", "billing-1");
/// let broker = RabbitMq::read(&context, &config.section("brokers.main"), &mut faults).unwrap();
/// assert_eq!(broker.kind(), "rabbitmq");
/// ```
pub struct RabbitMq {
    core: Arc<Core>,
    dead_letters: DeadLetters,
}

impl RabbitMq {
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

    /// Makes a durable exchange.
    ///
    /// # Errors
    /// [`BrokerError`] if there is no connection, the user may not configure it, or an exchange of
    /// this name and another kind exists.
    pub async fn declare_exchange(
        &self,
        name: &str,
        kind: ExchangeKind,
    ) -> Result<(), BrokerError> {
        let name = name.to_owned();
        self.declare(Part::Exchange { name, kind }).await
    }

    /// Makes a durable queue with these arguments beside its kind.
    ///
    /// # Errors
    /// [`BrokerError`] if there is no connection, the user may not configure it, or a queue of this
    /// name with other arguments exists.
    pub async fn declare_queue(
        &self,
        name: &str,
        kind: QueueKind,
        arguments: &[(&str, Argument)],
    ) -> Result<(), BrokerError> {
        let kind = match kind {
            QueueKind::Classic => "classic",
            QueueKind::Quorum => "quorum",
        };
        let mut all = vec![("x-queue-type".to_owned(), Value::Text(kind.to_owned()))];
        let given = arguments.iter();
        all.extend(given.map(|(name, value)| ((*name).to_owned(), Value::from(value))));
        self.declare(Part::Queue {
            name: name.to_owned(),
            of_instance: false,
            arguments: all,
        })
        .await
    }

    /// Makes the queue that keeps the dead letters of `queue`, and returns its name. A queue leads
    /// there with the arguments `x-dead-letter-exchange = ""` and `x-dead-letter-routing-key` = that
    /// name.
    ///
    /// # Errors
    /// As for [`RabbitMq::declare_queue`].
    pub async fn setup_dead_letter_queue(&self, queue: &str) -> Result<String, BrokerError> {
        let names = Names {
            queue: queue.to_owned(),
            dead_letters: format!("{queue}.dlq"),
            of_instance: false,
        };
        self.declare(topology::dead_letter_queue(&names)).await?;
        Ok(names.dead_letters)
    }

    async fn declare(&self, part: Part) -> Result<(), BrokerError> {
        self.make(&[(part, TopologyMode::Apply)]).await
    }

    async fn make(&self, parts: &[(Part, TopologyMode)]) -> Result<(), BrokerError> {
        let Some(live) = self.core.live() else {
            let why = match &*self.core.link.borrow() {
                Link::Failed(why) => format!("not connected: {why}"),
                _ => "not connected".to_owned(),
            };
            let name = &self.core.context.name;
            return Err(BrokerError::new(BrokerErrorKind::Unreachable, name, why));
        };
        declare::all(&self.core, &live.consume, parts).await
    }

    async fn close(&self, deadline: Instant) {
        let consumers = lock(&self.core.consumers).clone();
        let stopping =
            futures_util::future::join_all(consumers.iter().map(|consumer| consumer.stop()));
        // Past the deadline the connection closes with what it has; the server hands the rest out again.
        let _ = timeout_at(deadline, stopping).await;
        let flushing = consumers
            .iter()
            .map(|consumer| consumer.settler.flush(deadline));
        futures_util::future::join_all(flushing).await;
        let leaving = consumers.iter().map(|consumer| consumer.settler.leave());
        // What is not deleted in time goes by itself later.
        let _ = timeout_at(deadline, futures_util::future::join_all(leaving)).await;
        let live = self.core.live();
        self.core.link.send_replace(Link::Closed);
        self.core.up.record(0.0);
        if let Some(live) = live {
            let left = deadline.saturating_duration_since(Instant::now());
            live.close(left.max(CLOSE_MIN)).await;
        }
        lock(&self.core.consumers).clear();
    }
}

impl MessageBroker for RabbitMq {
    fn name(&self) -> &Arc<str> {
        &self.core.context.name
    }

    fn kind(&self) -> &'static str {
        "rabbitmq"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            patterns: true,
            ordered_across_instances: true,
            priorities: true,
            message_ttl: true,
            durable: true,
            reports_unroutable: true,
            replies: true,
            scheduling: Some(schedule::SCHEDULING),
            at_most_once_only: false,
            held_max: Some(self.core.settings.consumer_timeout),
        }
    }

    fn topology(&self, subscriptions: &[Arc<Subscription>]) -> Topology {
        let prefix = self.core.context.prefix.as_deref();
        let exchange = &self.core.settings.exchange;
        let expires = self.core.settings.instance_queue_expires;
        topology::readable(
            prefix,
            exchange,
            expires,
            subscriptions.iter().map(|one| &**one),
        )
    }

    fn connect(&self) -> BoxFuture<'_, Result<Connected, BrokerError>> {
        Box::pin(async {
            let begins = self.core.link.send_if_modified(|link| {
                let begins = matches!(link, Link::Idle);
                if begins {
                    *link = Link::Down;
                }
                begins
            });
            let name = &self.core.context.name;
            if !begins {
                return match &*self.core.link.borrow() {
                    Link::Up(_) => Ok(Connected::Yes),
                    Link::Closed => {
                        let text = "it was disconnected for good";
                        Err(BrokerError::new(
                            BrokerErrorKind::ConnectionLost,
                            name,
                            text,
                        ))
                    }
                    _ => Ok(Connected::Retrying),
                };
            }
            let (first, outcome) = oneshot::channel();
            tokio::spawn(supervisor::run(Arc::clone(&self.core), first));
            match outcome.await {
                Ok(outcome) => outcome,
                Err(_) => {
                    let text = "it was disconnected while it connected";
                    Err(BrokerError::new(
                        BrokerErrorKind::ConnectionLost,
                        name,
                        text,
                    ))
                }
            }
        })
    }

    fn apply<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            let mut parts = Vec::with_capacity(topology.parts.len());
            for part in &topology.parts {
                let Some(read) = topology::read(part) else {
                    let name = &self.core.context.name;
                    let text =
                        format!("{} `{}` is nothing that RabbitMQ has", part.kind, part.name);
                    return Err(BrokerError::new(BrokerErrorKind::Configuration, name, text));
                };
                // What an instance has for itself it makes when it runs.
                let of_instance = match &read {
                    Part::Queue { of_instance, .. } => *of_instance,
                    Part::Binding { queue, .. } => inspect::is_of_instance(topology, queue),
                    Part::Exchange { .. } | Part::Chain { .. } => false,
                };
                if !of_instance {
                    parts.push((read, part.mode));
                }
            }
            self.make(&parts).await
        })
    }

    fn durability<'a>(
        &'a self,
        subscriptions: &'a [Arc<Subscription>],
    ) -> BoxFuture<'a, Result<Vec<DurabilityConcern>, BrokerError>> {
        let all = subscriptions.iter();
        let concerns = all.flat_map(|subscription| durability::concerns(subscription));
        Box::pin(std::future::ready(Ok(concerns.collect())))
    }

    fn publish(&self, outgoing: Outgoing) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(self.core.publish(outgoing))
    }

    fn inspect<'a>(
        &'a self,
        topology: &'a Topology,
    ) -> BoxFuture<'a, Result<Inspection, BrokerError>> {
        Box::pin(inspect::inspect(&self.core, topology))
    }

    fn export(&self, topology: &Topology) -> Option<Export> {
        Some(inspect::export(&self.core, topology))
    }

    fn schedule(
        &self,
        outgoing: Outgoing,
        due: SystemTime,
    ) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(self.core.schedule(outgoing, due))
    }

    fn requests(
        &self,
        events: ReplyEvents,
    ) -> BoxFuture<'_, Result<Arc<dyn Requests>, BrokerError>> {
        Box::pin(async move {
            let requests = DirectRequests::listen(&self.core, events).await?;
            Ok(Arc::new(requests) as Arc<dyn Requests>)
        })
    }

    fn reply(
        &self,
        to: ReplyAddress,
        mut outgoing: Outgoing,
    ) -> BoxFuture<'_, Result<(), PublishError>> {
        // A queue by its name, whether it is the server's own for direct replies or anybody's.
        outgoing.rabbitmq.exchange = Some("".into());
        outgoing.rabbitmq.routing_key = Some(to.as_str().to_owned().into());
        outgoing.subscribers_optional = true;
        Box::pin(self.core.publish(outgoing))
    }

    fn subscribe(
        &self,
        subscription: Arc<Subscription>,
        deliveries: mpsc::Sender<Delivery>,
    ) -> BoxFuture<'_, Result<Arc<dyn Consumer>, BrokerError>> {
        Box::pin(async move {
            let context = &self.core.context;
            let names = topology::names(context.prefix.as_deref(), &subscription);
            if let Some(name) = topology::too_long(&names) {
                let text = format!("the queue name `{name}` is longer than AMQP's 255 bytes");
                return Err(BrokerError::new(
                    BrokerErrorKind::Configuration,
                    &context.name,
                    text,
                ));
            }
            let consumer = QueueConsumer::start(&self.core, &subscription, deliveries);
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

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq")
            .field("name", &self.core.context.name)
            .field("health", &self.core.health())
            .finish_non_exhaustive()
    }
}
