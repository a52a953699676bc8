//! A subscription with everything that was decided for it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::message::TopicPattern;
use crate::messaging::options::{
    Argument, DeliveryMode, ExchangeKind, OrderedBy, QueueKind, Start, TopologyMode,
};

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
