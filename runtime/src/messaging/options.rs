//! What a subscriber can say about itself: plain data, written by `#[subscriber(..)]` or by hand.
//!
//! Everything is optional here. The plan fills in defaults and what the configuration overrides.

use std::time::Duration;

use crate::handling::OnUnknown;
use crate::resilience::Backoff;

/// Default number of messages of a subscription that are handled at once.
pub const CONCURRENCY_DEFAULT: u32 = 16;
/// Most messages of a subscription that can be handled at once.
pub const CONCURRENCY_MAX: u32 = 4_096;
/// Default time that a handler may take.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// When a message is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ack {
    /// When the handler has succeeded and everything it sent is confirmed.
    #[default]
    After,
    /// By the handler itself, with `Settle`.
    Manual,
    /// As soon as it arrives. A crash in the handler loses it.
    OnReceive,
}

/// What a subscriber wants of a delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeliveryMode {
    /// Nothing is lost: a message comes again until it is handled, and may come twice.
    #[default]
    AtLeastOnce,
    /// A message comes once or never. It is acknowledged as it arrives, a failed attempt is not
    /// repeated and nothing is kept of it.
    AtMostOnce,
}

/// Which group a subscriber belongs to. The members of a group share the messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupOption {
    /// Every running instance is a group of its own: each gets every message.
    EachInstance,
    /// This group.
    Named(&'static str),
    /// The group called like the service.
    #[default]
    Service,
}

/// How far order by key reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrderedBy {
    /// Messages of one key are handled in order, across all instances.
    Key,
    /// Messages of one key are handled in order within one process; two processes may handle two
    /// messages of one key at once.
    KeyInProcess,
}

/// From where a subscription that begins to exist reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// From the oldest message that the broker still has. RabbitMQ's queues hold nothing from before
    /// they were made: there it is the same as [`Start::New`], and the plan warns of it.
    Earliest,
    /// From the moment it was first applied.
    #[default]
    New,
}

/// What is done about queues, exchanges and topics at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopologyMode {
    /// Make what is missing. A difference to what is there is an error that shows it.
    #[default]
    Apply,
    /// Touch and check nothing.
    Off,
    /// Make nothing; what is missing is an error. Needs no permission to configure.
    Verify,
}

/// How failed attempts are repeated.
///
/// The wait before attempt n is `first * factor^(n-2)`, at most `max`, with jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// All attempts, the first one included; at least 1.
    pub attempts: u32,
    /// The wait before the second attempt.
    pub first: Duration,
    /// The longest wait.
    pub max: Duration,
    /// By what the wait grows each time; at least 1.
    pub factor: f64,
}

impl RetryPolicy {
    /// Five attempts, after 200 ms, doubling, at most 30 s.
    pub const DEFAULT: Self = Self {
        attempts: 5,
        first: Duration::from_millis(200),
        max: Duration::from_secs(30),
        factor: 2.0,
    };

    /// One attempt.
    pub const NONE: Self = Self {
        attempts: 1,
        ..Self::DEFAULT
    };

    /// The wait before attempt `attempt` (from 2), without jitter.
    #[must_use]
    pub fn wait_before(&self, attempt: u32) -> Duration {
        let backoff = Backoff::new(self.first, self.max).with_factor(self.factor);
        backoff.longest(attempt.saturating_sub(1))
    }

    /// The longest time from the first attempt to the last, handlers not counted.
    #[must_use]
    pub fn total_wait(&self) -> Duration {
        (2..=self.attempts.min(10_000)).fold(Duration::ZERO, |sum, attempt| {
            sum.saturating_add(self.wait_before(attempt))
        })
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The parts of a [`RetryPolicy`] that a subscriber sets; the others come from the broker's section
/// of the configuration, then from the default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RetryOptions {
    /// All attempts, the first one included; at least 1.
    pub attempts: Option<u32>,
    /// The wait before the second attempt.
    pub first: Option<Duration>,
    /// The longest wait.
    pub max: Option<Duration>,
    /// By what the wait grows each time; at least 1.
    pub factor: Option<f64>,
}

impl RetryOptions {
    /// Nothing set.
    pub const UNSET: Self = Self {
        attempts: None,
        first: None,
        max: None,
        factor: None,
    };

    /// One attempt.
    pub const NONE: Self = Self {
        attempts: Some(1),
        ..Self::UNSET
    };

    /// With this number of attempts, the first one included.
    #[must_use]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// With this wait before the second attempt.
    #[must_use]
    pub const fn first(mut self, first: Duration) -> Self {
        self.first = Some(first);
        self
    }

    /// With this longest wait.
    #[must_use]
    pub const fn max(mut self, max: Duration) -> Self {
        self.max = Some(max);
        self
    }

    /// With this growth; at least 1.
    #[must_use]
    pub const fn factor(mut self, factor: f64) -> Self {
        self.factor = Some(factor);
        self
    }

    /// `base` with what is set here.
    #[must_use]
    pub fn over(&self, base: RetryPolicy) -> RetryPolicy {
        RetryPolicy {
            attempts: self.attempts.unwrap_or(base.attempts),
            first: self.first.unwrap_or(base.first),
            max: self.max.unwrap_or(base.max),
            factor: self.factor.unwrap_or(base.factor),
        }
    }
}

/// How batches are formed: when `max` messages are there, or `wait` after the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchOptions {
    /// Most messages in a batch; at least 1.
    pub max: u32,
    /// Longest wait for further messages.
    pub wait: Duration,
}

impl BatchOptions {
    /// Batches of at most `max` messages, formed at the latest `wait` after the first one arrived.
    #[must_use]
    pub const fn new(max: u32, wait: Duration) -> Self {
        Self { max, wait }
    }
}

/// How many messages may be started in a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// In which time.
    pub per: Duration,
}

impl Rate {
    /// At most `count` messages in each `per`.
    #[must_use]
    pub const fn new(count: u32, per: Duration) -> Self {
        Self { count, per }
    }
}

/// The kind of a RabbitMQ exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExchangeKind {
    /// By equal routing key.
    Direct,
    /// To every bound queue.
    Fanout,
    /// By headers.
    Headers,
    /// By a pattern over the routing key.
    Topic,
}

/// The kind of a RabbitMQ queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueKind {
    /// One node; fast, gone with the node's disk.
    Classic,
    /// Replicated; the default.
    Quorum,
}

/// One extra argument of a RabbitMQ queue, consumer or binding.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Argument {
    /// A truth value.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A text.
    Text(&'static str),
}

/// Where Kafka keeps a message until its next attempt, for waits of a second and more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KafkaRetry {
    /// In the process, which needs no topics. What waits is handed out again from the start when the
    /// partition moves, and no message behind it is committed meanwhile.
    InLane,
    /// In topics of the subscription's own, one for each delay.
    #[default]
    Topics,
}

/// What only Kafka understands of a subscriber: `#[subscriber(kafka(..))]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaOptions {
    /// The consumer group, in place of the group's name with the prefix.
    pub group_id: Option<&'static str>,
    /// A regular expression over the topics of the cluster, in place of the topic.
    pub pattern: Option<&'static str>,
    /// Partitions of the topic, if it is made; at least 1.
    pub partitions: Option<u16>,
    /// Replicas of its topics, if they are made; at least 1.
    pub replication: Option<u16>,
    /// Where a message waits for its next attempt.
    pub retry: Option<KafkaRetry>,
}

impl KafkaOptions {
    /// Nothing set.
    pub const UNSET: Self = Self {
        group_id: None,
        pattern: None,
        partitions: None,
        replication: None,
        retry: None,
    };

    /// With this consumer group.
    #[must_use]
    pub const fn group_id(mut self, name: &'static str) -> Self {
        self.group_id = Some(name);
        self
    }

    /// With every topic that this regular expression matches.
    #[must_use]
    pub const fn pattern(mut self, pattern: &'static str) -> Self {
        self.pattern = Some(pattern);
        self
    }

    /// With this many partitions of the topic, if it is made; at least 1.
    #[must_use]
    pub const fn partitions(mut self, count: u16) -> Self {
        self.partitions = Some(count);
        self
    }

    /// With this many replicas of its topics, if they are made; at least 1.
    #[must_use]
    pub const fn replication(mut self, count: u16) -> Self {
        self.replication = Some(count);
        self
    }

    /// With waits for the next attempt there.
    #[must_use]
    pub const fn retry(mut self, place: KafkaRetry) -> Self {
        self.retry = Some(place);
        self
    }
}

/// What only RabbitMQ understands of a subscriber: `#[subscriber(rabbitmq(..))]`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RabbitMqOptions {
    /// The queue's name, in place of `{group}.{topic}`.
    pub queue: Option<&'static str>,
    /// The kind of the queue.
    pub queue_kind: Option<QueueKind>,
    /// The exchange to bind to, in place of the configured one; empty for no binding at all.
    pub exchange: Option<&'static str>,
    /// The kind of that exchange.
    pub exchange_kind: Option<ExchangeKind>,
    /// The binding key, in place of the topic; AMQP's `*` and `#` are allowed.
    pub binding: Option<&'static str>,
    /// Highest priority of a classic queue, 1 to 255.
    pub max_priority: Option<u8>,
    /// Messages that are fetched ahead, in place of twice the concurrency; at least 1.
    pub prefetch: Option<u16>,
    /// Extra arguments of the queue.
    pub arguments: &'static [(&'static str, Argument)],
    /// Arguments of the binding, as a headers exchange wants them.
    pub binding_arguments: &'static [(&'static str, Argument)],
}

impl RabbitMqOptions {
    /// Nothing set.
    pub const UNSET: Self = Self {
        queue: None,
        queue_kind: None,
        exchange: None,
        exchange_kind: None,
        binding: None,
        max_priority: None,
        prefetch: None,
        arguments: &[],
        binding_arguments: &[],
    };

    /// With this queue.
    #[must_use]
    pub const fn queue(mut self, name: &'static str) -> Self {
        self.queue = Some(name);
        self
    }

    /// With a queue of this kind.
    #[must_use]
    pub const fn queue_kind(mut self, kind: QueueKind) -> Self {
        self.queue_kind = Some(kind);
        self
    }

    /// With this exchange; empty for no binding at all.
    #[must_use]
    pub const fn exchange(mut self, name: &'static str) -> Self {
        self.exchange = Some(name);
        self
    }

    /// With an exchange of this kind.
    #[must_use]
    pub const fn exchange_kind(mut self, kind: ExchangeKind) -> Self {
        self.exchange_kind = Some(kind);
        self
    }

    /// With this binding key.
    #[must_use]
    pub const fn binding(mut self, key: &'static str) -> Self {
        self.binding = Some(key);
        self
    }

    /// With priorities up to this one, 1 to 255. Only a classic queue has them.
    #[must_use]
    pub const fn max_priority(mut self, priority: u8) -> Self {
        self.max_priority = Some(priority);
        self
    }

    /// With this many messages fetched ahead; at least 1.
    #[must_use]
    pub const fn prefetch(mut self, count: u16) -> Self {
        self.prefetch = Some(count);
        self
    }

    /// With these extra arguments of the queue.
    #[must_use]
    pub const fn arguments(mut self, arguments: &'static [(&'static str, Argument)]) -> Self {
        self.arguments = arguments;
        self
    }

    /// With these arguments of the binding.
    #[must_use]
    pub const fn binding_arguments(
        mut self,
        arguments: &'static [(&'static str, Argument)],
    ) -> Self {
        self.binding_arguments = arguments;
        self
    }
}

/// What only Redis understands of a subscriber: `#[subscriber(redis(..))]`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RedisOptions {
    /// The stream (or, with Pub/Sub, the channel), in place of the one called like the topic.
    pub stream: Option<&'static str>,
    /// The consumer group on it, in place of the subscriber's group.
    pub group: Option<&'static str>,
}

impl RedisOptions {
    /// Nothing set.
    pub const UNSET: Self = Self {
        stream: None,
        group: None,
    };

    /// With this stream.
    #[must_use]
    pub const fn stream(mut self, name: &'static str) -> Self {
        self.stream = Some(name);
        self
    }

    /// With this consumer group.
    #[must_use]
    pub const fn group(mut self, name: &'static str) -> Self {
        self.group = Some(name);
        self
    }
}

/// Everything that a subscriber can say about itself.
///
/// ```
/// use std::time::Duration;
/// use interline::messaging::{OrderedBy, SubscriberOptions};
///
/// const OPTIONS: SubscriberOptions = SubscriberOptions::UNSET
///     .concurrency(8)
///     .ordered_by(OrderedBy::Key)
///     .timeout(Duration::from_secs(10));
/// assert_eq!(OPTIONS.concurrency, Some(8));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SubscriberOptions {
    /// The stable name, for configuration, metrics and derived ids; the function's unless given.
    pub name: Option<&'static str>,
    /// The broker, by its name in the configuration; unless given, the one that the routes name.
    pub broker: Option<&'static str>,
    /// The group.
    pub group: GroupOption,
    /// Messages handled at once, or lanes where order is kept; 1 to 4 096.
    pub concurrency: Option<u32>,
    /// Whether messages of one key are handled in order.
    pub ordered_by: Option<OrderedBy>,
    /// How batches are formed.
    pub batch: Option<BatchOptions>,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// How failed attempts are repeated.
    pub retry: Option<RetryOptions>,
    /// Whether a message that is given up is kept. `false` drops it.
    pub dead_letter: Option<bool>,
    /// When a message is acknowledged.
    pub ack: Option<Ack>,
    /// Whether a message may be lost rather than come twice.
    pub delivery: Option<DeliveryMode>,
    /// What is done with a message that there is no handler for.
    pub on_unknown: Option<OnUnknown>,
    /// From where a new subscription reads.
    pub start: Option<Start>,
    /// How many messages may be started in a span of time.
    pub rate: Option<Rate>,
    /// When too many failures stop the fetching; `None` for never.
    pub breaker: Option<BreakerOptions>,
    /// What is done about queues and exchanges at start.
    pub topology: Option<TopologyMode>,
    /// The codec for messages without a content-type, by name.
    pub codec: Option<&'static str>,
    /// What only Kafka understands.
    pub kafka: Option<KafkaOptions>,
    /// What only RabbitMQ understands.
    pub rabbitmq: Option<RabbitMqOptions>,
    /// What only Redis understands.
    pub redis: Option<RedisOptions>,
}

/// When a subscription's breaker opens, as far as somebody has said.
///
/// It stops the fetching of the subscription, not its connection; messages that were fetched and not
/// started go back untouched. After a wait one message is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct BreakerOptions {
    /// The share of failed attempts that opens it, above 0 and at most 1.
    pub ratio: Option<f64>,
    /// The share says nothing before this many attempts.
    pub minimum: Option<u32>,
    /// Over how long the share is taken.
    pub window: Option<Duration>,
    /// How long it stays open at first; twice as long each further time.
    pub wait: Option<Duration>,
    /// How long it stays open at most.
    pub max: Option<Duration>,
}

impl BreakerOptions {
    /// Nothing set.
    pub const UNSET: Self = Self {
        ratio: None,
        minimum: None,
        window: None,
        wait: None,
        max: None,
    };

    /// With this share of failed attempts.
    #[must_use]
    pub const fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = Some(ratio);
        self
    }

    /// Not before this many attempts.
    #[must_use]
    pub const fn minimum(mut self, minimum: u32) -> Self {
        self.minimum = Some(minimum);
        self
    }

    /// Over this time.
    #[must_use]
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = Some(window);
        self
    }

    /// Open for this long at first.
    #[must_use]
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Open for this long at most.
    #[must_use]
    pub const fn max(mut self, max: Duration) -> Self {
        self.max = Some(max);
        self
    }

    /// `base` with what is set here.
    #[must_use]
    pub fn over(&self, base: BreakerPolicy) -> BreakerPolicy {
        BreakerPolicy {
            ratio: self.ratio.unwrap_or(base.ratio),
            minimum: self.minimum.unwrap_or(base.minimum),
            window: self.window.unwrap_or(base.window),
            wait: self.wait.unwrap_or(base.wait),
            max: self.max.unwrap_or(base.max),
        }
    }
}

/// When a subscription's breaker opens, decided.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BreakerPolicy {
    /// The share of failed attempts that opens it.
    pub ratio: f64,
    /// The share says nothing before this many attempts.
    pub minimum: u32,
    /// Over how long the share is taken.
    pub window: Duration,
    /// How long it stays open at first.
    pub wait: Duration,
    /// How long it stays open at most.
    pub max: Duration,
}

impl BreakerPolicy {
    /// Half of at least 20 attempts within 30 s; open for 10 s, then for up to 2 min.
    pub const DEFAULT: Self = Self {
        ratio: 0.5,
        minimum: 20,
        window: Duration::from_secs(30),
        wait: Duration::from_secs(10),
        max: Duration::from_secs(120),
    };
}

macro_rules! setters {
    ($($(#[doc = $doc:literal])+ $field:ident: $kind:ty;)+) => {$(
        $(#[doc = $doc])+
        #[must_use]
        pub const fn $field(mut self, $field: $kind) -> Self {
            self.$field = Some($field);
            self
        }
    )+};
}

impl SubscriberOptions {
    /// Nothing set.
    pub const UNSET: Self = Self {
        name: None,
        broker: None,
        group: GroupOption::Service,
        concurrency: None,
        ordered_by: None,
        batch: None,
        timeout: None,
        retry: None,
        dead_letter: None,
        ack: None,
        delivery: None,
        on_unknown: None,
        start: None,
        rate: None,
        breaker: None,
        topology: None,
        codec: None,
        kafka: None,
        rabbitmq: None,
        redis: None,
    };

    /// In this group.
    #[must_use]
    pub const fn group(mut self, group: GroupOption) -> Self {
        self.group = group;
        self
    }

    setters! {
        /// With this stable name.
        name: &'static str;
        /// On this broker.
        broker: &'static str;
        /// With this many messages handled at once; 1 to 4 096.
        concurrency: u32;
        /// With order by key.
        ordered_by: OrderedBy;
        /// In batches.
        batch: BatchOptions;
        /// With this much time for one attempt.
        timeout: Duration;
        /// With these retries.
        retry: RetryOptions;
        /// Keeping (or, with `false`, dropping) what is given up.
        dead_letter: bool;
        /// Acknowledged then.
        ack: Ack;
        /// Delivered like this.
        delivery: DeliveryMode;
        /// Doing this with messages that there is no handler for.
        on_unknown: OnUnknown;
        /// Beginning there.
        start: Start;
        /// At this rate.
        rate: Rate;
        /// Stopping to fetch when too much fails.
        breaker: BreakerOptions;
        /// With this treatment of queues and exchanges.
        topology: TopologyMode;
        /// With this codec for messages without a content-type.
        codec: &'static str;
        /// With what only Kafka understands.
        kafka: KafkaOptions;
        /// With what only RabbitMQ understands.
        rabbitmq: RabbitMqOptions;
        /// With what only Redis understands.
        redis: RedisOptions;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_by_the_factor_up_to_the_maximum() {
        let policy = RetryPolicy {
            attempts: 6,
            first: Duration::from_secs(1),
            max: Duration::from_secs(5),
            factor: 2.0,
        };
        let waits: Vec<_> = (2..=6)
            .map(|attempt| policy.wait_before(attempt).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        assert_eq!(policy.total_wait(), Duration::from_secs(17));
        assert_eq!(policy.wait_before(u32::MAX), Duration::from_secs(5));
        assert_eq!(RetryPolicy::NONE.total_wait(), Duration::ZERO);
    }
}
