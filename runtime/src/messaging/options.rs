//! What a subscriber can say about itself: plain data, written by `#[subscriber(..)]` or by hand.
//!
//! Everything is optional here. The plan fills in defaults and what the configuration overrides.

use std::time::Duration;

use crate::handling::OnUnknown;

mod breaker;
mod delivery;
mod on_kafka;
mod on_rabbitmq;
mod on_redis;
mod pace;
mod retry;
mod topology;

pub use breaker::{BreakerOptions, BreakerPolicy};
pub use delivery::{Ack, DeliveryMode, GroupOption, OrderedBy, Start};
pub use on_kafka::{KafkaOptions, KafkaRetry};
pub use on_rabbitmq::{Argument, ExchangeKind, QueueKind, RabbitMqOptions};
pub use on_redis::RedisOptions;
pub use pace::{BatchOptions, Rate};
pub use retry::{RetryOptions, RetryPolicy};
pub use topology::TopologyMode;

/// Default number of messages of a subscription that are handled at once.
pub const CONCURRENCY_DEFAULT: u32 = 16;
/// Most messages of a subscription that can be handled at once.
pub const CONCURRENCY_MAX: u32 = 4_096;
/// Default time that a handler may take.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

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
