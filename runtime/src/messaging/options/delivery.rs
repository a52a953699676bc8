//! How messages reach a subscriber: group, order, acknowledgement, beginning.

/// When a message is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ack {
    /// When the handler has succeeded and everything it sent is confirmed.
    #[default]
    After,
    /// By the handler itself, with `Settle`.
    Manual,
    /// When its first attempt begins. A crash loses it from then on. As many attempts as `retry` says are
    /// made, all of them in this process; what fails in the last one is logged, told to the exception
    /// handlers and lost, as the broker has it no more. For a single attempt write `retry = none`, or
    /// [`DeliveryMode::AtMostOnce`].
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
