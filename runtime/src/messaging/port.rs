//! The port that every broker adapter implements: the engine decides what becomes of a message, the
//! adapter carries it out.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::clock::{Clock, Rng, SystemClock};
use crate::error::{CommunicationError, CommunicationErrorKind};
use crate::handling::{BoxFuture, PublishError, PublishErrorKind};
use crate::message::{Headers, Incoming, MessageId, Outgoing, ReplyAddress, TopicPattern};
use crate::observability::metrics::MetricsSink;

use super::durability::DurabilityConcern;
use super::options::{
    Argument, DeliveryMode, ExchangeKind, OrderedBy, QueueKind, Start, TopologyMode,
};

mod inspection;
mod replies;
mod scheduling;

pub use inspection::{Difference, Export, Inspection, Leftover};
pub use replies::{ReplyEvent, ReplyEvents, Requests};
pub use scheduling::Scheduling;

/// A connection to one message broker, named in the configuration.
///
/// The adapter supervises its connection by itself: after [`connect`](MessageBroker::connect) it
/// keeps trying until [`disconnect`](MessageBroker::disconnect), and after each loss it makes
/// topology, consumers and prefetch anew. Every wait in it has a limit.
pub trait MessageBroker: Send + Sync + 'static {
    /// The broker's name in the configuration.
    fn name(&self) -> &Arc<str>;

    /// The kind of broker: `memory`, `rabbitmq`, ...
    fn kind(&self) -> &'static str;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// What has to exist on the broker for these subscriptions. Pure: talks to nobody.
    fn topology(&self, subscriptions: &[Arc<Subscription>]) -> Topology;

    /// Begins to supervise the connection, and waits for the outcome of the first attempt.
    ///
    /// # Errors
    /// [`BrokerError`] if trying again cannot help: wrong credentials, an unknown virtual host, a
    /// missing permission. A broker that cannot be reached is [`Connected::Retrying`].
    fn connect(&self) -> BoxFuture<'_, Result<Connected, BrokerError>>;

    /// Makes (or, as its mode says, checks) what the topology names.
    ///
    /// # Errors
    /// [`BrokerError`] with the readable difference to what is there.
    fn apply<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// What can lose messages that this broker acknowledged: its own settings, as far as it tells
    /// them, and those of these subscriptions. Asked once at the start, after `connect` and before
    /// anything is consumed.
    ///
    /// # Errors
    /// [`BrokerError`] if it cannot be told. One that is retryable (no connection yet) has the
    /// question asked again once the connection is up.
    fn durability<'a>(
        &'a self,
        subscriptions: &'a [Arc<Subscription>],
    ) -> BoxFuture<'a, Result<Vec<DurabilityConcern>, BrokerError>> {
        let _ = subscriptions;
        let concerns = if self.capabilities().durable {
            Vec::new()
        } else {
            vec![DurabilityConcern::loss(
                format!("brokers of kind `{}` keep nothing", self.kind()),
                "use a broker of another kind",
            )]
        };
        Box::pin(std::future::ready(Ok(concerns)))
    }

    /// Publishes a message and waits for the broker's confirmation. The engine limits how long, how
    /// large and how many at once.
    fn publish(&self, outgoing: Outgoing) -> BoxFuture<'_, Result<(), PublishError>>;

    /// Holds a message and publishes it when `due` has come, or now if that has passed. Returns when the
    /// broker has it as safely as it keeps scheduled messages; see [`Capabilities::scheduling`]. A
    /// message without a subscriber is reported now where the broker can tell, else it is lost or
    /// dead-lettered when it is due, as the adapter documents.
    ///
    /// # Errors
    /// As for [`publish`](MessageBroker::publish); `Unsupported` where the broker cannot hold it, or
    /// not so long.
    fn schedule(
        &self,
        outgoing: Outgoing,
        due: SystemTime,
    ) -> BoxFuture<'_, Result<(), PublishError>> {
        let _ = due;
        Box::pin(std::future::ready(Err(unsupported(
            self,
            &outgoing,
            "hold no message until a later time",
        ))))
    }

    /// Takes back a message that [`schedule`](MessageBroker::schedule) holds, of whichever service.
    /// Returns whether it was there: `false` once it was published, or if it never was.
    ///
    /// # Errors
    /// [`BrokerErrorKind::Unsupported`] where the broker cannot; see [`Scheduling::cancel`].
    fn unschedule<'a>(&'a self, id: &'a MessageId) -> BoxFuture<'a, Result<bool, BrokerError>> {
        let text = format!(
            "brokers of kind `{}` cannot take a scheduled message back; `{id}` is delivered when it \
             is due",
            self.kind()
        );
        let error = BrokerError::new(BrokerErrorKind::Unsupported, self.name(), text);
        Box::pin(std::future::ready(Err(error)))
    }

    /// Begins to listen for replies, which go to `events` until [`Requests::close`] or
    /// [`disconnect`](MessageBroker::disconnect). Called once, at the first request of the app; waits
    /// until a reply would be heard. The engine limits how long it waits, and calls again after an
    /// error.
    ///
    /// # Errors
    /// [`BrokerError`] if it cannot listen; [`BrokerErrorKind::Unsupported`] where the broker carries
    /// no replies.
    fn requests(
        &self,
        events: ReplyEvents,
    ) -> BoxFuture<'_, Result<Arc<dyn Requests>, BrokerError>> {
        drop(events);
        Box::pin(std::future::ready(replies::no_requests(self)))
    }

    /// Sends a reply to where a request said that it waits for one. Confirmed as far as the broker
    /// can; that the one who asked is gone is no error. The topic of `outgoing` is only its contract's.
    ///
    /// # Errors
    /// As for [`publish`](MessageBroker::publish); `Unsupported` where the broker carries no replies or
    /// the address is not one of its own.
    fn reply(
        &self,
        to: ReplyAddress,
        outgoing: Outgoing,
    ) -> BoxFuture<'_, Result<(), PublishError>> {
        drop(to);
        Box::pin(std::future::ready(Err(unsupported(
            self,
            &outgoing,
            "carry no replies",
        ))))
    }

    /// Compares what is on the broker with a topology. Changes nothing.
    ///
    /// # Errors
    /// [`BrokerError`] if the broker cannot be asked.
    fn inspect<'a>(
        &'a self,
        topology: &'a Topology,
    ) -> BoxFuture<'a, Result<Inspection, BrokerError>> {
        let _ = topology;
        let text = format!("brokers of kind `{}` cannot be inspected", self.kind());
        let error = BrokerError::new(BrokerErrorKind::Unsupported, self.name(), text);
        Box::pin(std::future::ready(Err(error)))
    }

    /// A topology in a form that the broker's own tools take; `None` where there is none. Pure.
    fn export(&self, topology: &Topology) -> Option<Export> {
        let _ = topology;
        None
    }

    /// Consumes a subscription: applies its topology and pushes what arrives into `deliveries`, now
    /// and after each reconnect, until the returned [`Consumer`] is stopped. Does not wait for the
    /// connection. The channel's capacity never limits: the prefetch does.
    ///
    /// # Errors
    /// [`BrokerError`] if the broker can never serve this subscription.
    fn subscribe(
        &self,
        subscription: Arc<Subscription>,
        deliveries: mpsc::Sender<Delivery>,
    ) -> BoxFuture<'_, Result<Arc<dyn Consumer>, BrokerError>>;

    /// Closes: waits until the broker has taken every settlement, at the latest until `deadline`.
    fn disconnect(&self, deadline: Instant) -> BoxFuture<'_, ()>;

    /// Waits until nothing is left to handle of what this process alone holds, before it goes down.
    /// Returns at once where messages outlive the process. The engine limits how long it waits.
    fn quiet(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// How the connection is. Answers at once, from what the supervisor knows.
    fn health_check(&self) -> BrokerHealth;

    /// What was given up by a subscription: list, re-drive, purge. `None` if the broker keeps nothing.
    fn dead_letters(&self) -> Option<&dyn DeadLetterStore>;
}

fn unsupported(
    broker: &(impl MessageBroker + ?Sized),
    outgoing: &Outgoing,
    what: &str,
) -> PublishError {
    let text = format!(
        "broker `{}` is of kind `{}`, and these {what}",
        broker.name(),
        broker.kind()
    );
    PublishError::new(PublishErrorKind::Unsupported, outgoing.topic.clone(), text)
}

/// What an adapter is told about the app that it serves, beside its section of the configuration.
#[derive(Clone)]
#[non_exhaustive]
pub struct BrokerContext {
    /// The broker's name in the configuration.
    pub name: Arc<str>,
    /// The service.
    pub service: Arc<str>,
    /// This run of the service, unique per process.
    pub instance: Arc<str>,
    /// What the names of everything on the broker begin with.
    pub prefix: Option<Arc<str>>,
    /// Whether it is only for a look: then nothing is made on the broker but what
    /// [`apply`](MessageBroker::apply) is asked for.
    pub read_only: bool,
    /// The source of chance.
    pub rng: Rng,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Where figures go.
    pub metrics: Option<Arc<dyn MetricsSink>>,
}

impl BrokerContext {
    /// A broker's name, a service and its instance: no prefix, no metrics, the system's time and
    /// chance.
    #[must_use]
    pub fn new(
        name: impl Into<Arc<str>>,
        service: impl Into<Arc<str>>,
        instance: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            name: name.into(),
            service: service.into(),
            instance: instance.into(),
            prefix: None,
            read_only: false,
            rng: Rng::new(),
            clock: Arc::new(SystemClock),
            metrics: None,
        }
    }
}

impl fmt::Debug for BrokerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerContext")
            .field("name", &self.name)
            .field("service", &self.service)
            .field("instance", &self.instance)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// The outcome of the first attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Connected {
    /// The connection is up.
    Yes,
    /// The broker cannot be reached; the supervisor keeps trying.
    Retrying,
}

/// What a kind of broker can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Subscriptions to a template such as `orders.{region}.placed`.
    pub patterns: bool,
    /// Order by key across instances.
    pub ordered_across_instances: bool,
    /// Priorities.
    pub priorities: bool,
    /// Time to live of single messages.
    pub message_ttl: bool,
    /// Messages outlive the process.
    pub durable: bool,
    /// A publish that nobody listens to is reported.
    pub reports_unroutable: bool,
    /// Requests and replies.
    pub replies: bool,
    /// Publishing at a later time; `None` where the broker holds no messages.
    pub scheduling: Option<Scheduling>,
    /// It keeps nothing until it is handled: every delivery is at most once.
    pub at_most_once_only: bool,
}

impl Capabilities {
    /// None of them.
    pub const NONE: Self = Self {
        patterns: false,
        ordered_across_instances: false,
        priorities: false,
        message_ttl: false,
        durable: false,
        reports_unroutable: false,
        replies: false,
        scheduling: None,
        at_most_once_only: false,
    };
}

/// The group of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Group {
    /// Each running instance by itself; gone when the instance is.
    EachInstance {
        /// The service.
        service: Arc<str>,
        /// The instance, unique per process.
        instance: Arc<str>,
        /// The subscriber, so that two of one service do not share.
        subscriber: Arc<str>,
    },
    /// A group that shares the messages.
    Named(Arc<str>),
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EachInstance {
                service,
                subscriber,
                ..
            } => {
                write!(f, "{service}.{subscriber} (each instance)")
            }
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// A subscription with everything that was decided for it: (broker, topic, group).
///
/// No queue or topic argument may be derived from what a redeploy can change (attempts, backoff,
/// concurrency, time-out).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Subscription {
    /// A short label for logs, metrics and health: `{group}.{topic}`.
    pub label: Arc<str>,
    /// The topic, or template.
    pub topic: TopicPattern,
    /// The group.
    pub group: Group,
    /// Whether messages of one key are handled in order.
    pub ordered_by: Option<OrderedBy>,
    /// From where it reads when it begins to exist.
    pub start: Start,
    /// How many messages may be out for handling; at least 1.
    pub prefetch: u16,
    /// Whether what is given up is kept.
    pub dead_letter: bool,
    /// The delays that a retry can wait on the broker, ascending; never empty.
    pub ladder: Arc<[Duration]>,
    /// What is done about its topology.
    pub topology: TopologyMode,
    /// What only Kafka understands.
    pub kafka: KafkaSubscription,
    /// What only RabbitMQ understands.
    pub rabbitmq: RabbitMqSubscription,
    /// What only Redis understands.
    pub redis: RedisSubscription,
    /// Whether a message may be lost rather than come twice.
    pub delivery: DeliveryMode,
}

impl Subscription {
    /// A subscription of `group` to `topic` with defaults elsewhere.
    #[must_use]
    pub fn new(topic: TopicPattern, group: Group) -> Self {
        Self {
            label: format!("{group}.{topic}").into(),
            topic,
            group,
            ordered_by: None,
            start: Start::New,
            prefetch: 32,
            dead_letter: true,
            ladder: default_ladder(),
            topology: TopologyMode::Apply,
            kafka: KafkaSubscription::default(),
            rabbitmq: RabbitMqSubscription::default(),
            redis: RedisSubscription::default(),
            delivery: DeliveryMode::AtLeastOnce,
        }
    }
}

/// The delays that a retry can wait on the broker, unless configured: 1 s, 5 s, 30 s, 2 min, 10 min, 1 h.
#[must_use]
pub fn default_ladder() -> Arc<[Duration]> {
    [1, 5, 30, 120, 600, 3_600].map(Duration::from_secs).into()
}

/// What only Kafka understands of a subscription, decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaSubscription {
    /// The consumer group, in place of the group's name with the prefix.
    pub group_id: Option<String>,
    /// A regular expression over the topics of the cluster, in place of the topic.
    pub pattern: Option<String>,
    /// Partitions of the topic, if it is made.
    pub partitions: Option<i32>,
    /// Replicas of its topics, if they are made.
    pub replication: Option<i32>,
    /// Whether retries wait in the process, with no topics of their own.
    pub retry_in_lane: bool,
}

/// What only RabbitMQ understands of a subscription, decided.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RabbitMqSubscription {
    /// The queue's name, in place of `{group}.{topic}`.
    pub queue: Option<String>,
    /// The kind of the queue.
    pub queue_kind: Option<QueueKind>,
    /// The exchange to bind to; `Some("")` for no binding at all.
    pub exchange: Option<String>,
    /// The kind of that exchange.
    pub exchange_kind: Option<ExchangeKind>,
    /// The binding key, in place of the topic.
    pub binding: Option<String>,
    /// Highest priority of a classic queue.
    pub max_priority: Option<u8>,
    /// Extra arguments of the queue.
    pub arguments: Vec<(String, Argument)>,
    /// Arguments of the binding.
    pub binding_arguments: Vec<(String, Argument)>,
}

/// What only Redis understands of a subscription, decided.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RedisSubscription {
    /// The stream, in place of the one called like the topic.
    pub stream: Option<String>,
    /// The consumer group, in place of the subscription's.
    pub group: Option<String>,
}

/// One message handed out by a broker, with the way to settle it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The message.
    pub incoming: Incoming,
    /// Settles it, once.
    pub settlement: Settlement,
}

impl Delivery {
    /// A message and its settlement.
    #[must_use]
    pub fn new(incoming: Incoming, settlement: Settlement) -> Self {
        Self {
            incoming,
            settlement,
        }
    }
}

/// Names one delivery to the adapter that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Ticket {
    /// The connection (or assignment) it belongs to; settling one of an old epoch does nothing.
    pub epoch: u64,
    /// The delivery in that epoch.
    pub tag: u64,
}

impl Ticket {
    /// The delivery `tag` of `epoch`.
    #[must_use]
    pub const fn new(epoch: u64, tag: u64) -> Self {
        Self { epoch, tag }
    }
}

/// Settles one delivery. It never leaves the engine; used once, by value.
#[must_use = "a delivery that is never settled occupies the prefetch until the connection ends"]
pub struct Settlement {
    settler: Arc<dyn Settler>,
    ticket: Ticket,
}

impl Settlement {
    /// The settlement of `ticket` through `settler`.
    pub fn new(settler: Arc<dyn Settler>, ticket: Ticket) -> Self {
        Self { settler, ticket }
    }

    /// Handled: the broker can forget it.
    ///
    /// # Errors
    /// [`BrokerError`] if the broker could not be told; it will hand the message out again.
    pub async fn done(self) -> Result<Settled, BrokerError> {
        match self.settler.done_at_once(self.ticket) {
            Some(settled) => Ok(settled),
            None => self.settler.done(self.ticket).await,
        }
    }

    /// Hand it to this subscription again after `after`, which is one of the subscription's ladder,
    /// with `headers` in place of its own. The copy is confirmed before the original is acknowledged.
    ///
    /// # Errors
    /// [`BrokerError`] if the copy was not confirmed; the message is still out then, and the
    /// adapter has released it.
    pub async fn retry(
        self,
        message: Arc<Incoming>,
        after: Duration,
        headers: Headers,
    ) -> Result<Settled, BrokerError> {
        self.settler
            .retry(self.ticket, message, after, headers)
            .await
    }

    /// Move it to the subscription's dead letters, its bytes unchanged, with `headers`. The copy is
    /// confirmed before the original is acknowledged.
    ///
    /// # Errors
    /// As for [`Settlement::retry`].
    pub async fn dead_letter(
        self,
        message: Arc<Incoming>,
        headers: Headers,
    ) -> Result<Settled, BrokerError> {
        self.settler
            .dead_letter(self.ticket, message, headers)
            .await
    }

    /// Give it back untouched, for this or another instance.
    ///
    /// # Errors
    /// [`BrokerError`] if the broker could not be told; it will hand the message out again.
    pub async fn release(self) -> Result<Settled, BrokerError> {
        self.settler.release(self.ticket).await
    }
}

impl fmt::Debug for Settlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Settlement").field(&self.ticket).finish()
    }
}

/// How a settlement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settled {
    /// The broker was told.
    Yes,
    /// The delivery belonged to a connection that is gone; the broker hands the message out again.
    Stale,
}

/// Carries out settlements for one consumer; see [`Settlement`] for what each has to do.
pub trait Settler: Send + Sync {
    /// See [`Settlement::done`].
    fn done(&self, ticket: Ticket) -> BoxFuture<'_, Result<Settled, BrokerError>>;

    /// The same where the broker can be told without waiting; `None` leaves it to
    /// [`done`](Settler::done).
    fn done_at_once(&self, ticket: Ticket) -> Option<Settled> {
        let _ = ticket;
        None
    }

    /// See [`Settlement::retry`].
    fn retry(
        &self,
        ticket: Ticket,
        message: Arc<Incoming>,
        after: Duration,
        headers: Headers,
    ) -> BoxFuture<'_, Result<Settled, BrokerError>>;

    /// See [`Settlement::dead_letter`].
    fn dead_letter(
        &self,
        ticket: Ticket,
        message: Arc<Incoming>,
        headers: Headers,
    ) -> BoxFuture<'_, Result<Settled, BrokerError>>;

    /// See [`Settlement::release`].
    fn release(&self, ticket: Ticket) -> BoxFuture<'_, Result<Settled, BrokerError>>;

    /// Whether deliveries of this epoch can still be settled. The engine drops what it has not
    /// started of an epoch that is gone.
    fn is_current(&self, epoch: u64) -> bool;
}

impl Settlement {
    /// Whether it can still be settled; see [`Settler::is_current`].
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.settler.is_current(self.ticket.epoch)
    }
}

/// A running consumer of one subscription.
///
/// Where messages are ordered by key, no other reader of the subscription gets one before everything
/// that is out here is settled, paused and stopped consumers included; what was given back then comes
/// first, in its order.
pub trait Consumer: Send + Sync {
    /// Stops fetching. What is out stays out; the connection stays.
    fn pause(&self) -> BoxFuture<'_, ()>;

    /// Fetches again.
    fn resume(&self) -> BoxFuture<'_, ()>;

    /// Fetches again, but has at most `most` messages out that were fetched since, until
    /// [`resume`](Consumer::resume) or [`pause`](Consumer::pause): a look whether handling works again.
    /// An adapter that cannot fetch so few fetches as usual; the engine gives back what is too much.
    fn trickle(&self, most: u16) -> BoxFuture<'_, ()> {
        let _ = most;
        self.resume()
    }

    /// Stops for good: when it returns, no further delivery is pushed. What is out can still be
    /// settled.
    fn stop(&self) -> BoxFuture<'_, ()>;

    /// How it is. Answers at once.
    fn state(&self) -> ConsumerState;
}

/// How a consumer is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumerState {
    /// It cannot run until somebody acts; the text says what is wrong.
    Failed(String),
    /// Told not to fetch.
    Paused,
    /// Fetching.
    Running,
    /// Waiting for the connection or the topology.
    Starting,
    /// Ended.
    Stopped,
}

/// How a broker's connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerHealth {
    /// Its state.
    pub state: ConnectionState,
    /// The last error in words, without secrets.
    pub last_error: Option<String>,
}

impl BrokerHealth {
    /// This state, and no error.
    #[must_use]
    pub fn new(state: ConnectionState) -> Self {
        Self {
            state,
            last_error: None,
        }
    }

    /// With this last error.
    #[must_use]
    pub fn with_error(mut self, error: Option<String>) -> Self {
        self.last_error = error;
        self
    }
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// The broker takes no publishes at the moment.
    Blocked,
    /// Closed for good.
    Closed,
    /// Trying.
    Connecting,
    /// Not begun.
    Disconnected,
    /// It cannot be made until somebody acts.
    Failed,
    /// Up.
    Ready,
}

/// What has to exist on a broker, as data: it can be printed, compared and applied.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Topology {
    /// The parts, in the order in which they are made.
    pub parts: Vec<TopologyPart>,
}

impl Topology {
    /// These parts, in the order in which they are made.
    #[must_use]
    pub fn new(parts: Vec<TopologyPart>) -> Self {
        Self { parts }
    }
}

/// One part of a topology.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TopologyPart {
    /// What it is: `exchange`, `queue`, `binding`.
    pub kind: &'static str,
    /// Its name; for a binding `queue <- exchange (key)`.
    pub name: String,
    /// Its arguments, readable.
    pub arguments: Vec<(String, String)>,
    /// What is done about it.
    pub mode: TopologyMode,
    /// The subscription it belongs to; `None` if it serves several.
    pub subscription: Option<Arc<str>>,
}

impl TopologyPart {
    /// A part with its kind, name and treatment.
    #[must_use]
    pub fn new(kind: &'static str, name: impl Into<String>, mode: TopologyMode) -> Self {
        Self {
            kind,
            name: name.into(),
            arguments: Vec::new(),
            mode,
            subscription: None,
        }
    }
}

/// What kind of failure a [`BrokerError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BrokerErrorKind {
    /// Wrong user, password or certificate.
    Authentication,
    /// The user may not do this.
    Permission,
    /// Something that is named does not exist: a virtual host, a queue.
    NotFound,
    /// What is there differs from what was declared.
    TopologyConflict,
    /// The broker lacks a feature that is needed.
    Unsupported,
    /// The network, or the broker is down.
    Unreachable,
    /// The connection or channel was lost on the way.
    ConnectionLost,
    /// It took too long.
    Timeout,
    /// The broker refused.
    Refused,
    /// Wrong configuration.
    Configuration,
}

/// A broker could not do something. Its text names broker and place, and never a secret.
pub struct BrokerError {
    kind: BrokerErrorKind,
    broker: Arc<str>,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl BrokerError {
    /// An error of this kind of the broker called `broker`.
    #[must_use]
    pub fn new(kind: BrokerErrorKind, broker: &Arc<str>, message: impl Into<String>) -> Self {
        Self {
            kind,
            broker: Arc::clone(broker),
            message: message.into(),
            source: None,
        }
    }

    /// With the error that led to it, which must not hold a secret.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> BrokerErrorKind {
        self.kind
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        use BrokerErrorKind::{ConnectionLost, Refused, Timeout, Unreachable};
        matches!(self.kind, ConnectionLost | Refused | Timeout | Unreachable)
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broker `{}`: {}", self.broker, self.message)
    }
}

impl fmt::Debug for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerError")
            .field("kind", &self.kind)
            .field("broker", &self.broker)
            .field("message", &self.message)
            .field("source", &self.source)
            .finish()
    }
}

impl Error for BrokerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// What was given up, per subscription.
pub trait DeadLetterStore: Send + Sync {
    /// Reads at most `limit` dead letters of a subscription, oldest first, without taking them out.
    fn list<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Incoming>, BrokerError>>;

    /// Moves dead letters for which `choose` gives new headers back to the subscription: each copy
    /// is confirmed before the dead letter is removed, so that a crash repeats and never loses. Looks
    /// at each dead letter once; stops after `limit` were moved. Returns how many.
    fn redrive<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
        choose: &'a (dyn Fn(&Incoming) -> Option<Headers> + Send + Sync),
    ) -> BoxFuture<'a, Result<usize, BrokerError>>;

    /// Removes dead letters for which `choose` says so, at most `limit`. Returns how many.
    fn purge<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
        choose: &'a (dyn Fn(&Incoming) -> bool + Send + Sync),
    ) -> BoxFuture<'a, Result<usize, BrokerError>>;
}

impl From<BrokerError> for CommunicationError {
    fn from(error: BrokerError) -> Self {
        let (retryable, timeout) = (
            error.is_retryable(),
            error.kind() == BrokerErrorKind::Timeout,
        );
        Self::from_source(CommunicationErrorKind::MessageBroker, error)
            .with_retryable(retryable)
            .with_timeout(timeout)
    }
}
