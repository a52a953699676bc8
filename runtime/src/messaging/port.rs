//! The port that every broker adapter implements: the engine decides what becomes of a message, the
//! adapter carries it out.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::handling::{BoxFuture, PublishError, PublishErrorKind};
use crate::message::{MessageId, Outgoing, ReplyAddress};

use super::durability::DurabilityConcern;

mod capabilities;
mod consumer;
mod context;
mod dead_letters;
mod error;
mod health;
mod inspection;
mod positions;
mod replies;
mod scheduling;
mod settlement;
mod subscription;
mod topology;
#[cfg(any(feature = "kafka", feature = "rabbitmq", feature = "redis"))]
mod unkept;

pub use capabilities::Capabilities;
pub use consumer::{Consumer, ConsumerState};
pub use context::BrokerContext;
pub use dead_letters::DeadLetterStore;
pub use error::{BrokerError, BrokerErrorKind};
pub use health::{BrokerHealth, ConnectionState};
pub use inspection::{Difference, Export, Inspection, Leftover};
pub use positions::{Position, PositionStore};
pub use replies::{ReplyEvent, ReplyEvents, Requests};
pub use scheduling::Scheduling;
pub use settlement::{Delivery, Settled, Settlement, Settler, Ticket};
pub use subscription::{
    Group, KafkaSubscription, RabbitMqSubscription, RedisSubscription, Subscription, default_ladder,
};
pub use topology::{Topology, TopologyPart};
#[cfg(any(feature = "kafka", feature = "rabbitmq", feature = "redis"))]
pub(crate) use unkept::{Copied, Unkept};

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

    /// Where subscriptions read: move that, replay a window. `None` if the broker keeps nothing that was
    /// read.
    fn positions(&self) -> Option<&dyn PositionStore> {
        None
    }
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

/// The outcome of the first attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Connected {
    /// The connection is up.
    Yes,
    /// The broker cannot be reached; the supervisor keeps trying.
    Retrying,
}
