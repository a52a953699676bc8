//! What only RabbitMQ understands of a subscriber.

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
