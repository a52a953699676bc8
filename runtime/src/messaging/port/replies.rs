//! Requests and their replies: what an adapter adds so that an answer finds the one who asked.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::handling::{BoxFuture, PublishError};
use crate::message::{Incoming, Outgoing};

use super::{BrokerError, BrokerErrorKind, MessageBroker};

/// Sends requests of one app to one broker, and listens for the replies.
///
/// [`MessageBroker::requests`] makes it, at the first request of the app; it lives as long as the
/// connection of the app does. The engine pairs replies with requests, limits how long a call waits
/// and how many wait, and reads faults; the adapter only carries.
pub trait Requests: Send + Sync {
    /// Publishes a request to its topic, and waits for the confirmation as
    /// [`MessageBroker::publish`] does. The adapter adds what leads the answer back here: the header
    /// `reply-to` (see [`ReplyAddress`](crate::message::ReplyAddress)), or the broker's own field for
    /// it. Where the broker has a field for a correlation id, it holds the id of the request, so that
    /// a foreign responder, which copies that field, is understood.
    ///
    /// Returns the epoch of the listening end that the answer will come to; see
    /// [`ReplyEvent::Lost`].
    ///
    /// A reply can come before this returns.
    ///
    /// # Errors
    /// As for [`MessageBroker::publish`]; `ChannelLost` also where the listening end was lost before
    /// the request was confirmed, so that its answer cannot come.
    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Result<u64, PublishError>>;

    /// Stops listening.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// What happens at the end that listens for replies.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReplyEvent {
    /// The listening end of this epoch, and of all before it, is gone: answers to requests that were
    /// sent with it will not come. The next request is sent with a new one. Never reported where
    /// replies survive a loss of the connection.
    Lost {
        /// The epoch that [`Requests::send`] returned.
        epoch: u64,
    },
    /// A message came to the reply address. It is paired with its request by the header
    /// `in-reply-to`, and where that is missing by `correlation-id` (an adapter fills it from the
    /// broker's own field, where the header is missing).
    Reply(Incoming),
}

/// Where [`ReplyEvent`]s go. The engine takes them at once; the channel is bounded.
pub type ReplyEvents = mpsc::Sender<ReplyEvent>;

/// The answer of an adapter without replies.
pub(super) fn no_requests(
    broker: &(impl MessageBroker + ?Sized),
) -> Result<Arc<dyn Requests>, BrokerError> {
    let text = format!(
        "brokers of kind `{}` carry no replies; send the request through another broker",
        broker.kind()
    );
    Err(BrokerError::new(
        BrokerErrorKind::Unsupported,
        broker.name(),
        text,
    ))
}
