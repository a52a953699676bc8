//! Publishing: the handle that users hold, and what can be said beside the message.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::clock::{Clock, Rng};
use crate::error::CommunicationError;
use crate::message::{
    Encoder, HeaderValue, Headers, Incoming, Message, MessageId, Outgoing, ReplyAddress, Request,
    check_topic, format_time, headers::name,
};
use crate::observability::{Correlation, TraceContext};

use super::BoxFuture;
#[cfg(feature = "http")]
use super::errand::Errand;
use super::fault::Fault;
use super::publish::{PublishError, PublishErrorKind, PublishPort, Receipt};
use super::request::Call;

/// Publishes messages. Cheap to clone.
///
/// A handler takes it as an argument; it then passes on correlation and trace of the message that is
/// being handled. Outside of handlers it comes from the running app.
///
/// ```
/// use interline::prelude::*;
///
/// #[derive(Message, Serialize, Deserialize)]
/// #[message(topic = "audit.noted", subscribers = optional)]
/// struct Noted { text: String }
///
/// async fn note(publisher: &Publisher) -> Result<(), PublishError> {
///     publisher.publish(&Noted { text: "hello".into() }).await?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
    cause: Option<Arc<Cause>>,
}

struct Shared {
    port: Arc<dyn PublishPort>,
    service: Arc<str>,
    clock: Arc<dyn Clock>,
    rng: Rng,
    /// The last millisecond that was written, and how.
    written: Mutex<(u64, Arc<str>)>,
}

impl Shared {
    /// A time as it stands in a header. What is published within one millisecond shares it.
    fn written(&self, unix_millis: u64) -> Arc<str> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.0 != unix_millis {
            let time = UNIX_EPOCH + Duration::from_millis(unix_millis);
            *written = (unix_millis, format_time(time).into());
        }
        Arc::clone(&written.1)
    }
}

struct Cause {
    correlation: Correlation,
    trace: TraceContext,
}

impl Publisher {
    /// A publisher for `service` through `port`.
    #[must_use]
    pub fn new(
        port: Arc<dyn PublishPort>,
        service: Arc<str>,
        clock: Arc<dyn Clock>,
        rng: Rng,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                port,
                service,
                written: Mutex::new((0, format_time(UNIX_EPOCH).into())),
                clock,
                rng,
            }),
            cause: None,
        }
    }

    /// Publishes `message` (`&message`, or a [`Publish`] with more to say) and waits for the broker's
    /// confirmation.
    ///
    /// # Errors
    /// [`PublishError`]; its kind says whether the broker may have the message all the same.
    // Boxed, so that the argument's type is not part of the future's: a value that cannot be published is
    // then one error, at the value.
    pub fn publish(
        &self,
        message: impl Publishable,
    ) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        match message.prepare(self) {
            Ok(outgoing) => self.shared.port.publish(outgoing),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// Publishes bytes to a topic that is known only at run time. The headers say what the bytes
    /// are; without a `content-type` a subscriber falls back to its own codec.
    ///
    /// # Errors
    /// [`PublishError`], also if `topic` is not a valid topic.
    pub async fn publish_raw(
        &self,
        topic: impl Into<String>,
        body: impl Into<Bytes>,
        headers: Headers,
    ) -> Result<Receipt, PublishError> {
        let topic = topic.into();
        check_topic(&topic).map_err(|error| {
            PublishError::new(PublishErrorKind::Topic, &*topic, error.to_string())
        })?;
        let given = headers
            .text(name::MESSAGE_ID)
            .and_then(|id| MessageId::parse(&id));
        let unix_millis = self.shared.clock.unix_millis();
        let id = given.unwrap_or_else(|| MessageId::generate_at(unix_millis, &self.shared.rng));
        let mut outgoing = Outgoing::new(topic, id, body.into());
        outgoing.key = headers.text(name::MESSAGE_KEY).map(Cow::into_owned);
        outgoing.headers = headers;
        self.stamp(&mut outgoing, unix_millis, false);
        self.shared.port.publish(outgoing).await
    }

    /// Publishes a message again whose outcome was unknown, with the same identity.
    ///
    /// # Errors
    /// [`PublishError`], as for [`Publisher::publish`].
    pub async fn resend(&self, outgoing: Outgoing) -> Result<Receipt, PublishError> {
        self.shared.port.publish(outgoing).await
    }

    /// Asks: publishes `message`, whose contract names a reply, and waits for that reply. Await the
    /// returned [`Call`]; [`Call::timeout`] limits the wait.
    ///
    /// Every group that listens gets the request; the first reply counts, and later ones are dropped
    /// and counted. The deadline travels along, so that a responder can drop what nobody waits for any
    /// more.
    ///
    /// ```
    /// # use interline::prelude::*;
    /// # use std::time::Duration;
    /// # #[derive(Message, Serialize, Deserialize)]
    /// # #[message(topic = "quotes.asked", reply = Quote)]
    /// # struct QuoteAsk { sku: String }
    /// # #[derive(Message, Serialize, Deserialize)]
    /// # #[message(topic = "quotes.given")]
    /// # struct Quote { cents: u64 }
    /// async fn price(publisher: &Publisher) -> Result<u64, RequestError> {
    ///     let ask = QuoteAsk { sku: "tea".into() };
    ///     let quote = publisher.request(&ask).timeout(Duration::from_millis(800)).await?;
    ///     Ok(quote.cents)
    /// }
    /// ```
    pub fn request<P>(&self, message: P) -> Call<<P::Message as Request>::Reply>
    where
        P: Publishable,
        P::Message: Request,
    {
        Call::new(self.clone(), message.prepare(self))
    }

    /// Takes a message back that was published for a later time; the receipt is that of its
    /// [`publish`](Self::publish). Returns whether it was still there.
    ///
    /// ```
    /// # use interline::prelude::*;
    /// # use std::time::Duration;
    /// # #[derive(Message, Serialize, Deserialize)]
    /// # #[message(topic = "carts.reminder")]
    /// # struct Reminder { cart: u64 }
    /// # async fn example(publisher: &Publisher) -> interline::Result<()> {
    /// let reminder = Publish::new(Reminder { cart: 7 }).after(Duration::from_secs(3_600));
    /// let receipt = publisher.publish(reminder).await?;
    /// assert!(publisher.cancel(&receipt).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the broker cannot take messages back (RabbitMQ), or cannot be asked.
    pub async fn cancel(&self, receipt: &Receipt) -> Result<bool, CommunicationError> {
        self.shared.port.cancel(receipt).await
    }

    /// The service that publishes.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.shared.service
    }

    pub(crate) fn rng(&self) -> &Rng {
        &self.shared.rng
    }

    pub(super) fn port(&self) -> &Arc<dyn PublishPort> {
        &self.shared.port
    }

    pub(super) fn now(&self) -> SystemTime {
        self.shared.clock.now()
    }

    /// The fault that answers `request`; `None` if it does not ask for a reply.
    pub(crate) fn fault(&self, request: &Incoming, fault: &Fault) -> Option<Outgoing> {
        // A repeat after a crash sends the same fault again.
        let id = request.id.derive(&format!("{}#fault", fault.handler), 0);
        let topic = request.topic.to_string();
        let mut outgoing = Outgoing::new(topic, id, Bytes::new());
        fault.write(&mut outgoing.headers);
        let mut outgoing = answering(request, outgoing)?;
        self.stamp(&mut outgoing, self.shared.clock.unix_millis(), false);
        Some(outgoing)
    }

    pub(crate) fn caused_by(&self, correlation: Correlation, trace: TraceContext) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            cause: Some(Arc::new(Cause { correlation, trace })),
        }
    }

    /// Adds the headers that every message carries, each unless it is there; with `blank` none is.
    /// Without a message that is handled it may be a request that goes on with this one.
    fn stamp(&self, outgoing: &mut Outgoing, unix_millis: u64, blank: bool) {
        let id = outgoing.id.shared();
        if !blank {
            outgoing.headers.set(name::MESSAGE_ID, Arc::clone(&id));
        }
        let cause = self.cause.as_deref();
        let mut headers = outgoing.headers.filling(blank);
        if blank {
            headers.fill(name::MESSAGE_ID, || Arc::clone(&id).into());
        }
        headers.fill(name::PUBLISHED_AT, || {
            self.shared.written(unix_millis).into()
        });
        headers.fill(name::SENDER, || Arc::clone(&self.shared.service).into());
        let Some(cause) = cause else {
            #[cfg(feature = "http")]
            if let Some(errand) = Errand::current() {
                headers.fill(name::CORRELATION_ID, || {
                    errand.correlation_id.clone().into()
                });
                errand.trace.write(&mut outgoing.headers);
                return;
            }
            headers.fill(name::CORRELATION_ID, || id.into());
            let root = || TraceContext::root(&self.shared.rng).traceparent().into();
            headers.fill(name::TRACEPARENT, root);
            return;
        };
        headers.fill(name::CORRELATION_ID, || {
            cause.correlation.correlation_id.clone().into()
        });
        headers.fill(name::CAUSATION_ID, || {
            cause.correlation.causation_id.shared().into()
        });
        cause.trace.write(&mut outgoing.headers);
    }

    /// Prepares a message; `id` is used where neither the message nor the caller has one.
    pub(crate) fn prepare<M: Message>(
        &self,
        message: &M,
        options: PublishOptions,
        id: impl FnOnce() -> Option<MessageId>,
    ) -> Result<Outgoing, PublishError> {
        let contract = M::CONTRACT;
        let topic = match options.topic {
            Some(topic) => Cow::Owned(topic),
            None => message.topic().map_err(|error| {
                PublishError::new(PublishErrorKind::Topic, contract.topic, error.to_string())
            })?,
        };
        if !contract.is_sound(&topic) {
            check_topic(&topic).map_err(|error| {
                PublishError::new(PublishErrorKind::Topic, &*topic, error.to_string())
            })?;
        }
        let unix_millis = self.shared.clock.unix_millis();
        let encode_error =
            |text: String| PublishError::new(PublishErrorKind::Encode, &*topic, text);
        let id = match message.id() {
            Some(text) => MessageId::parse(&text).ok_or_else(|| {
                encode_error(format!(
                    "`{text}` cannot be a message id: 1 to 128 printable characters"
                ))
            })?,
            None => id().unwrap_or_else(|| MessageId::generate_at(unix_millis, &self.shared.rng)),
        };
        let codec = self
            .shared
            .port
            .codec(&topic, options.broker.as_deref(), contract.codec)?;
        // Who else could add some: the caller, and a codec of the user's.
        let blank = options.headers.is_empty() && codec.is_built_in();
        let mut headers = Headers::with_capacity(12 + options.headers.len());
        let mut own = headers.filling(true);
        own.fill(name::CONTENT_TYPE, || codec.content_type().into());
        own.fill(name::MESSAGE_TYPE, || contract.name.into());
        own.fill(name::MESSAGE_VERSION, || contract.version.into());
        headers.extend(
            options
                .headers
                .iter()
                .map(|(name, value)| (name.to_owned(), value.clone())),
        );
        let body = message
            .encode(Encoder::new(&codec, &topic, &mut headers))
            .map_err(|error| {
                encode_error(format!(
                    "`{}` has no form in {}",
                    contract.name,
                    codec.name()
                ))
                .with_source(error)
            })?;
        let mut outgoing = Outgoing::new(topic, id, body);
        outgoing.headers = headers;
        outgoing.follow(contract);
        outgoing.key = options.key.or_else(|| message.key());
        if let Some(key) = &outgoing.key {
            outgoing.headers.set(name::MESSAGE_KEY, key.clone());
        }
        outgoing.ttl = options.ttl.or(outgoing.ttl);
        outgoing.priority = options.priority.or(outgoing.priority);
        outgoing.broker = options.broker.map(Cow::Owned);
        outgoing.due = options.due.map(|due| due.time(self.now()));
        if let Some(due) = outgoing.due {
            outgoing.headers.set(name::SCHEDULED_FOR, format_time(due));
        }
        outgoing.rabbitmq.exchange = options.exchange.map(Cow::Owned);
        outgoing.rabbitmq.routing_key = options.routing_key.map(Cow::Owned);
        outgoing.redis.stream = options.stream.map(Cow::Owned);
        self.stamp(&mut outgoing, unix_millis, blank);
        Ok(outgoing)
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("service", &self.shared.service)
            .finish_non_exhaustive()
    }
}

/// A message that goes to the one who sent `request`; `None` if it does not ask for a reply.
pub(super) fn answering(request: &Incoming, mut outgoing: Outgoing) -> Option<Outgoing> {
    let address = ReplyAddress::parse(&request.headers.text(name::REPLY_TO)?)?;
    outgoing.address = Some(address);
    outgoing.broker = Some(Cow::Owned(request.origin.broker.to_string()));
    outgoing.subscribers_optional = true;
    outgoing
        .headers
        .set(name::IN_REPLY_TO, request.id.to_string());
    // As it came: whoever asked may know its request by nothing else.
    if let Some(correlation) = request.headers.get(name::CORRELATION_ID) {
        outgoing
            .headers
            .set(name::CORRELATION_ID, correlation.clone());
    }
    Some(outgoing)
}

/// When a message is published.
#[derive(Clone, Copy, Debug)]
enum Due {
    After(Duration),
    At(SystemTime),
}

impl Due {
    fn time(self, now: SystemTime) -> SystemTime {
        match self {
            Self::After(wait) => now.checked_add(wait).unwrap_or(now + WAIT_MAX),
            Self::At(time) => time,
        }
    }
}

/// What stands in for a wait that no clock can tell: longer than any broker holds a message.
const WAIT_MAX: Duration = Duration::from_secs(10_000 * 365 * 86_400);

/// What can be said beside a message; all of it optional.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublishOptions {
    topic: Option<String>,
    broker: Option<String>,
    key: Option<String>,
    headers: Headers,
    ttl: Option<Duration>,
    priority: Option<u8>,
    exchange: Option<String>,
    routing_key: Option<String>,
    due: Option<Due>,
    stream: Option<String>,
}

impl PublishOptions {
    pub(crate) fn on_broker(broker: &str) -> Self {
        Self {
            broker: Some(broker.to_owned()),
            ..Self::default()
        }
    }

    pub(crate) fn key(mut self, key: Option<String>) -> Self {
        self.key = key;
        self
    }

    pub(crate) fn has_key(&self) -> bool {
        self.key.is_some()
    }
}

/// A message with more to say: headers, another key, topic or broker, a later time.
///
/// ```
/// use interline::prelude::*;
/// # #[derive(Message, Serialize, Deserialize)]
/// # #[message(topic = "audit.noted", subscribers = optional)]
/// # struct Noted { text: String }
///
/// let note = Publish::new(Noted { text: "hello".into() })
///     .header("x-tenant", "acme")
///     .to("audit.noted.acme");
/// ```
#[derive(Clone, Debug)]
#[must_use = "a `Publish` does nothing until it is returned or given to a publisher"]
pub struct Publish<M> {
    message: M,
    options: PublishOptions,
}

impl<M: Message> Publish<M> {
    /// `message`, with nothing more to say yet.
    pub fn new(message: M) -> Self {
        Self {
            message,
            options: PublishOptions::default(),
        }
    }

    /// With this header.
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<HeaderValue>,
    ) -> Self {
        self.options.headers.set(name, value);
        self
    }

    /// With this key in place of the message's own.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.options.key = Some(key.into());
        self
    }

    /// To this topic in place of the contract's.
    pub fn to(mut self, topic: impl Into<String>) -> Self {
        self.options.topic = Some(topic.into());
        self
    }

    /// To this broker, by its name in the configuration, in place of the one that the routes name.
    pub fn broker(mut self, name: impl Into<String>) -> Self {
        self.options.broker = Some(name.into());
        self
    }

    /// Published when this time has passed, held by the broker until then. It is never early; how
    /// late it can be, and whether it outlives a restart, is among the broker's
    /// capabilities (`Capabilities::scheduling`). Where the broker cannot hold messages, publishing it is an
    /// error of kind [`Unsupported`](PublishErrorKind::Unsupported).
    pub fn after(mut self, wait: Duration) -> Self {
        self.options.due = Some(Due::After(wait));
        self
    }

    /// Published at this time, or now if it has passed; as for [`after`](Self::after).
    pub fn at(mut self, time: SystemTime) -> Self {
        self.options.due = Some(Due::At(time));
        self
    }

    /// Worth delivering for this long.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl = Some(ttl);
        self
    }

    /// With this priority, 0 to 255, on brokers that have one.
    pub fn priority(mut self, priority: u8) -> Self {
        self.options.priority = Some(priority);
        self
    }

    /// On RabbitMQ: to this exchange in place of the configured one.
    pub fn rabbitmq_exchange(mut self, exchange: impl Into<String>) -> Self {
        self.options.exchange = Some(exchange.into());
        self
    }

    /// On RabbitMQ: with this routing key in place of the topic.
    pub fn rabbitmq_routing_key(mut self, key: impl Into<String>) -> Self {
        self.options.routing_key = Some(key.into());
        self
    }

    /// On Redis: to this stream (or, with Pub/Sub, channel) in place of the one called like the topic.
    pub fn redis_stream(mut self, stream: impl Into<String>) -> Self {
        self.options.stream = Some(stream.into());
        self
    }

    /// The message.
    pub fn message(&self) -> &M {
        &self.message
    }

    pub(crate) fn into_parts(self) -> (M, PublishOptions) {
        (self.message, self.options)
    }
}

/// What a [`Publisher`] takes: `&message` or [`Publish`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be published",
    label = "expected a reference to a message, or `Publish`",
    note = "write `publisher.publish(&message)`, or derive `Message` for the type"
)]
pub trait Publishable: Send {
    /// The message.
    type Message: Message;

    /// Encodes the message with all its headers.
    #[doc(hidden)]
    fn prepare(self, publisher: &Publisher) -> Result<Outgoing, PublishError>;
}

impl<M: Message> Publishable for &M {
    type Message = M;

    fn prepare(self, publisher: &Publisher) -> Result<Outgoing, PublishError> {
        publisher.prepare(self, PublishOptions::default(), || None)
    }
}

impl<M: Message> Publishable for Publish<M> {
    type Message = M;

    fn prepare(self, publisher: &Publisher) -> Result<Outgoing, PublishError> {
        publisher.prepare(&self.message, self.options, || None)
    }
}
