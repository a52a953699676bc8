//! Asking: a message whose sender waits for a typed reply.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{CommunicationError, CommunicationErrorKind};
use crate::message::{CodecRef, Codecs, Encoded, Incoming, Message, Outgoing, headers::name};

use super::BoxFuture;
use super::fault::Fault;
use super::payload::choose_codec;
use super::publish::{PublishError, PublishErrorKind};
use super::publisher::Publisher;

/// A request under way to its reply; awaiting it sends the request.
///
/// [`Publisher::request`] makes it.
#[must_use = "a request is sent when it is awaited"]
pub struct Call<R> {
    publisher: Publisher,
    prepared: Result<Outgoing, PublishError>,
    limit: Option<Duration>,
    reply: PhantomData<fn() -> R>,
}

impl<R> Call<R> {
    pub(super) fn new(publisher: Publisher, prepared: Result<Outgoing, PublishError>) -> Self {
        Self {
            publisher,
            prepared,
            limit: None,
            reply: PhantomData,
        }
    }

    /// Waits for the reply for at most this long, from now on, in place of the broker's
    /// `request_timeout`.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }
}

impl<R: Message> IntoFuture for Call<R> {
    type Output = Result<R, RequestError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let outgoing = self.prepared?;
            if outgoing.due.is_some() {
                let text = "a request is sent now: nobody would wait for the reply to a later one";
                let kind = PublishErrorKind::Unsupported;
                return Err(PublishError::new(kind, outgoing.topic, text).into());
            }
            let topic = outgoing.topic.to_string();
            let answer = {
                let now = self.publisher.now();
                self.publisher.port().request(outgoing, self.limit, now)
            };
            let answer = answer.await?;
            answer.read(&topic)
        })
    }
}

impl<R> fmt::Debug for Call<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("prepared", &self.prepared)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// What came to the reply address of a request, with what it takes to read it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The reply, or a fault.
    pub incoming: Incoming,
    /// All codecs.
    pub codecs: Arc<Codecs>,
    /// The codec for a reply that does not name its own.
    pub codec: CodecRef,
}

impl Answer {
    /// An answer.
    #[must_use]
    pub fn new(incoming: Incoming, codecs: Arc<Codecs>, codec: CodecRef) -> Self {
        Self {
            incoming,
            codecs,
            codec,
        }
    }

    fn read<R: Message>(&self, topic: &str) -> Result<R, RequestError> {
        let incoming = &self.incoming;
        let contract = R::CONTRACT;
        let unreadable =
            |text: String| RequestError::new(RequestErrorKind::Decode, topic.to_owned(), text);
        match incoming.message_type().as_deref() {
            Some(Fault::MESSAGE_TYPE) => {
                return Err(RequestError::of_fault(topic, Fault::read(incoming)));
            }
            Some(other) if other != contract.name => {
                return Err(unreadable(format!(
                    "it was answered with a `{other}`, and its contract names `{}` as the reply",
                    contract.name
                )));
            }
            _ => {}
        }
        let codec = choose_codec(incoming, &self.codec, &self.codecs).map_err(unreadable)?;
        let encoded = Encoded::new(codec, &incoming.body, &incoming.headers, &incoming.topic);
        R::decode(encoded).map_err(|error| {
            unreadable(format!("the reply is not a `{}`", contract.name)).with_source(error)
        })
    }
}

/// What kind of failure a [`RequestError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestErrorKind {
    /// The connection that the reply was to come on was lost. The request may be handled all the
    /// same.
    ChannelLost,
    /// The app is shutting down.
    Closed,
    /// There is a reply, and it cannot be read.
    Decode,
    /// Who was asked could not answer; [`RequestError::fault`] says why.
    Fault,
    /// The request was not published; the source says why.
    Publish,
    /// No reply came in time. The request may be handled all the same.
    Timeout,
    /// As many calls as may be were waiting for their replies, and none ended in time.
    TooManyCalls,
    /// The kind of broker carries no replies.
    Unsupported,
}

impl RequestErrorKind {
    /// The code, as it stands in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChannelLost => "channel_lost",
            Self::Closed => "closed",
            Self::Decode => "decode",
            Self::Fault => "fault",
            Self::Publish => "publish",
            Self::Timeout => "timeout",
            Self::TooManyCalls => "too_many_calls",
            Self::Unsupported => "unsupported",
        }
    }
}

/// A request without a reply.
pub struct RequestError(Box<Details>);

struct Details {
    kind: RequestErrorKind,
    topic: String,
    message: String,
    fault: Option<Fault>,
    retryable: bool,
    unknown: bool,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl RequestError {
    /// An error of this kind for a request of `topic`; `message` says what is wrong.
    #[must_use]
    pub fn new(
        kind: RequestErrorKind,
        topic: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        use RequestErrorKind::{ChannelLost, Timeout, TooManyCalls};
        Self(Box::new(Details {
            kind,
            topic: topic.into(),
            message: message.into(),
            fault: None,
            retryable: matches!(kind, ChannelLost | Timeout | TooManyCalls),
            unknown: matches!(kind, ChannelLost | Timeout),
            source: None,
        }))
    }

    fn of_fault(topic: &str, fault: Fault) -> Self {
        let mut error = Self::new(RequestErrorKind::Fault, topic, fault.to_string());
        error.0.retryable = fault.is_retryable();
        error.0.fault = Some(fault);
        error
    }

    /// The request was not sent.
    #[must_use]
    pub(crate) fn not_sent(mut self) -> Self {
        self.0.unknown = false;
        self
    }

    /// Whether the same request can succeed later.
    #[must_use]
    pub(crate) fn retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// With the error that led to it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> RequestErrorKind {
        self.0.kind
    }

    /// The topic of the request.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.0.topic
    }

    /// What the one who was asked says, if it answered with a fault.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        self.0.fault.as_ref()
    }

    /// Whether the same request can succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// Whether the request may be, or have been, handled all the same.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.0.unknown
    }

    /// Whether no reply came in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.0.kind == RequestErrorKind::Timeout
    }
}

impl From<PublishError> for RequestError {
    fn from(error: PublishError) -> Self {
        let kind = match error.kind() {
            PublishErrorKind::Closed => RequestErrorKind::Closed,
            PublishErrorKind::Unsupported => RequestErrorKind::Unsupported,
            _ => RequestErrorKind::Publish,
        };
        let mut request = Self::new(kind, error.topic(), error.to_string());
        request.0.retryable = error.is_retryable();
        request.0.unknown = error.is_unknown();
        request.with_source(error)
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.kind {
            // The text of a failed publish names the topic itself.
            RequestErrorKind::Publish => f.write_str(&self.0.message),
            _ => write!(
                f,
                "the request to `{}` has no reply: {}",
                self.0.topic, self.0.message
            ),
        }
    }
}

impl fmt::Debug for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestError")
            .field("kind", &self.0.kind)
            .field("topic", &self.0.topic)
            .field("message", &self.0.message)
            .field("fault", &self.0.fault)
            .field("source", &self.0.source)
            .finish()
    }
}

impl Error for RequestError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<RequestError> for CommunicationError {
    fn from(error: RequestError) -> Self {
        let kind = match error.kind() {
            RequestErrorKind::Closed => CommunicationErrorKind::Shutdown,
            RequestErrorKind::Timeout => CommunicationErrorKind::Timeout,
            _ => CommunicationErrorKind::Publish,
        };
        let (retryable, timeout) = (error.is_retryable(), error.is_timeout());
        Self::from_source(kind, error)
            .with_retryable(retryable)
            .with_timeout(timeout)
    }
}

/// The name of the header is part of how a request is told from other messages.
pub(crate) fn is_request(incoming: &Incoming) -> bool {
    incoming.headers.contains(name::REPLY_TO)
}
