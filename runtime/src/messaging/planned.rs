//! What the plan hands to the engine: subscriptions and handlers with everything decided.

use std::sync::Arc;
use std::time::Duration;

use crate::handling::{Handler, OnUnknown};
use crate::message::{CodecRef, Contract, Location};

use super::options::{Ack, BatchOptions, BreakerPolicy, OrderedBy, Rate, RetryPolicy};
use super::port::Subscription;

/// One subscription, its settings, and the handlers that share it by message type.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlannedSubscription {
    /// What the adapter sees.
    pub subscription: Arc<Subscription>,
    /// The broker, by its name in the configuration.
    pub broker: Arc<str>,
    /// Messages handled at once, or lanes where order is kept.
    pub concurrency: u32,
    /// Whether messages of one key are handled in order.
    pub ordered_by: Option<OrderedBy>,
    /// How batches are formed; then there is exactly one handler, a batch handler.
    pub batch: Option<BatchOptions>,
    /// How many messages may be started in a span of time.
    pub rate: Option<Rate>,
    /// When too many failures stop the fetching.
    pub breaker: Option<BreakerPolicy>,
    /// When messages are acknowledged.
    pub ack: Ack,
    /// What is done with a message that no handler takes.
    pub on_unknown: OnUnknown,
    /// The handlers; at least one.
    pub handlers: Vec<PlannedHandler>,
}

impl PlannedSubscription {
    /// A subscription without handlers yet, with defaults elsewhere.
    #[must_use]
    pub fn new(subscription: Arc<Subscription>, broker: Arc<str>) -> Self {
        Self {
            subscription,
            broker,
            concurrency: super::options::CONCURRENCY_DEFAULT,
            ordered_by: None,
            batch: None,
            rate: None,
            breaker: None,
            ack: Ack::After,
            on_unknown: OnUnknown::DeadLetter,
            handlers: Vec::new(),
        }
    }
}

/// One handler with its settings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlannedHandler {
    /// The stable name.
    pub name: Arc<str>,
    /// The service it belongs to.
    pub service: Arc<str>,
    /// The contracts it takes; empty if it takes anything.
    pub contracts: Vec<&'static Contract>,
    /// The bound handler.
    pub handler: Handler,
    /// The codec for messages without a content-type.
    pub codec: CodecRef,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How failed attempts are repeated.
    pub retry: RetryPolicy,
    /// Whether it answers the one who asked, with a fault too.
    pub replies: bool,
    /// What is done with what it cannot read although it takes anything.
    pub on_unknown: OnUnknown,
    /// Where it was written.
    pub location: Location,
}

impl PlannedHandler {
    /// A handler with defaults where nothing was said.
    #[must_use]
    pub fn new(
        name: Arc<str>,
        service: Arc<str>,
        handler: Handler,
        codec: CodecRef,
        location: Location,
    ) -> Self {
        Self {
            name,
            service,
            contracts: Vec::new(),
            handler,
            codec,
            timeout: super::options::TIMEOUT_DEFAULT,
            retry: RetryPolicy::DEFAULT,
            replies: false,
            on_unknown: OnUnknown::DeadLetter,
            location,
        }
    }
}
