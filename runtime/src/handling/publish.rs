//! The port through which everything is published, and how it fails.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::{CommunicationError, CommunicationErrorKind};
use crate::message::{CodecRef, MessageId, Outgoing};

use super::BoxFuture;
use super::request::{Answer, RequestError, RequestErrorKind};

/// Publishes prepared messages. The engine implements it; handlers reach it through
/// [`Publisher`](super::Publisher).
pub trait PublishPort: Send + Sync + 'static {
    /// The codec for a message of `topic`: the one that `named` asks for, else the one that is
    /// configured for the broker that the topic is routed to.
    ///
    /// # Errors
    /// [`PublishErrorKind::Encode`] if there is no such codec, [`PublishErrorKind::UnknownBroker`] if
    /// there is no such broker.
    fn codec(
        &self,
        topic: &str,
        broker: Option<&str>,
        named: Option<&str>,
    ) -> Result<CodecRef, PublishError>;

    /// Publishes and waits for the broker's confirmation, within a limit.
    fn publish(&self, outgoing: Outgoing) -> BoxFuture<'_, Result<Receipt, PublishError>>;

    /// Publishes a request and waits for its answer, for `limit` from now or as long as the broker's
    /// configuration says. `now` is the wall time.
    fn request(
        &self,
        outgoing: Outgoing,
        limit: Option<Duration>,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Answer, RequestError>> {
        let _ = (limit, now);
        let text = "nothing here carries replies";
        let kind = RequestErrorKind::Unsupported;
        let error = RequestError::new(kind, outgoing.topic, text);
        Box::pin(std::future::ready(Err(error)))
    }

    /// Takes a message back that is published at a later time; whether it was still there.
    fn cancel<'a>(
        &'a self,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<bool, CommunicationError>> {
        let text = format!("`{}` cannot be taken back here", receipt.id);
        let error = CommunicationError::new(CommunicationErrorKind::Publish, text);
        Box::pin(std::future::ready(Err(error)))
    }
}

/// The broker has the message and keeps it as safely as it can.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Receipt {
    /// The message's identity.
    pub id: MessageId,
    /// The broker that confirmed, by its name in the configuration.
    pub broker: Arc<str>,
}

impl Receipt {
    /// A confirmation by `broker`.
    #[must_use]
    pub fn new(id: MessageId, broker: Arc<str>) -> Self {
        Self { id, broker }
    }
}

/// What kind of failure a [`PublishError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PublishErrorKind {
    /// The channel or connection was lost before the confirmation came. The broker may have the
    /// message.
    ChannelLost,
    /// The app is shutting down.
    Closed,
    /// The value has no form in the codec, or there is no such codec.
    Encode,
    /// The broker refused it.
    Nacked,
    /// Too much is already on its way to a broker that does not take it.
    QueueFull,
    /// No confirmation came in time. The broker may have the message.
    Timeout,
    /// Larger than the limit.
    TooLarge,
    /// The topic is not valid.
    Topic,
    /// No broker of that name is configured.
    UnknownBroker,
    /// The kind of broker cannot do what was asked: hold a message until later, carry a reply.
    Unsupported,
    /// Nobody listens, and the contract does not say that this is fine.
    Unroutable,
}

impl PublishErrorKind {
    /// The code, as it stands in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChannelLost => "channel_lost",
            Self::Closed => "closed",
            Self::Encode => "encode",
            Self::Nacked => "nacked",
            Self::QueueFull => "queue_full",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::Topic => "topic",
            Self::UnknownBroker => "unknown_broker",
            Self::Unroutable => "unroutable",
            Self::Unsupported => "unsupported",
        }
    }
}

/// A publish that was not confirmed.
///
/// Where the outcome is unknown it carries the prepared message:
/// [`Publisher::resend`](super::Publisher::resend) sends it again with the same identity.
pub struct PublishError(Box<Details>);

struct Details {
    kind: PublishErrorKind,
    topic: String,
    message: String,
    outgoing: Option<Outgoing>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl PublishError {
    /// An error of this kind for a message of `topic`; `message` says what is wrong.
    #[must_use]
    pub fn new(
        kind: PublishErrorKind,
        topic: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        let (topic, message) = (topic.into(), message.into());
        Self(Box::new(Details {
            kind,
            topic,
            message,
            outgoing: None,
            source: None,
        }))
    }

    /// With the error that led to it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// With the message, so that it can be sent again.
    #[must_use]
    pub fn with_outgoing(mut self, outgoing: Outgoing) -> Self {
        self.0.outgoing = Some(outgoing);
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> PublishErrorKind {
        self.0.kind
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.0.topic
    }

    /// Whether the broker may have the message all the same.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(
            self.0.kind,
            PublishErrorKind::ChannelLost | PublishErrorKind::Timeout
        )
    }

    /// Whether it makes sense to send the same message again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        use PublishErrorKind::{ChannelLost, Nacked, QueueFull, Timeout, Unroutable};
        matches!(
            self.0.kind,
            ChannelLost | Nacked | QueueFull | Timeout | Unroutable
        )
    }

    /// The prepared message, to be given to [`Publisher::resend`](super::Publisher::resend).
    #[must_use]
    pub fn into_outgoing(self) -> Option<Outgoing> {
        self.0.outgoing
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` was not published: {}",
            self.0.topic, self.0.message
        )
    }
}

impl fmt::Debug for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishError")
            .field("kind", &self.0.kind)
            .field("topic", &self.0.topic)
            .field("message", &self.0.message)
            .field("id", &self.0.outgoing.as_ref().map(|outgoing| &outgoing.id))
            .field("source", &self.0.source)
            .finish()
    }
}

impl Error for PublishError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<PublishError> for CommunicationError {
    fn from(error: PublishError) -> Self {
        let kind = match error.kind() {
            PublishErrorKind::Closed => CommunicationErrorKind::Shutdown,
            _ => CommunicationErrorKind::Publish,
        };
        let (retryable, timeout) = (
            error.is_retryable(),
            error.kind() == PublishErrorKind::Timeout,
        );
        Self::from_source(kind, error)
            .with_retryable(retryable)
            .with_timeout(timeout)
    }
}
