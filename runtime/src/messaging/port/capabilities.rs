//! What a kind of broker can do.

use std::time::Duration;

use super::Scheduling;

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
    /// How long a delivery may be out before the broker takes it back; `None` without a limit.
    pub held_max: Option<Duration>,
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
        held_max: None,
    };
}
