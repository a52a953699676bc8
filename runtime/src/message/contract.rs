//! The contract of a message type: what publisher and subscriber agree on, written once.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

use super::codec::{CodecError, Encoded, Encoder};
use super::topic::{self, TopicError};

/// Where in the source something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The file, as the compiler names it.
    pub file: &'static str,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The static part of a message type's contract. `#[derive(Message)]` writes it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Contract {
    /// The name on the wire (header `message-type`); the type's own name unless given.
    pub name: &'static str,
    /// The topic, or a template with `{field}` segments.
    pub topic: &'static str,
    /// The version, from 1. It changes only when old readers cannot read the new form.
    pub version: u32,
    /// Whether the message has a key, so that order can be kept.
    pub keyed: bool,
    /// The codec, by name; `None` leaves it to the broker's configuration.
    pub codec: Option<&'static str>,
    /// How long a message is worth delivering; `None` for ever.
    pub ttl: Option<Duration>,
    /// The priority, 0 to 255, on brokers that have one.
    pub priority: Option<u8>,
    /// Whether it is fine that nobody listens.
    pub subscribers_optional: bool,
    /// Where the type was declared.
    pub location: Location,
    /// The topic, where it was found to be one as it stands.
    sound: Option<&'static str>,
}

impl Contract {
    /// A contract with the given name, topic (or template) and place of declaration; version 1,
    /// unkeyed, everything else unset.
    #[must_use]
    pub const fn new(name: &'static str, topic: &'static str, location: Location) -> Self {
        Self {
            name,
            topic,
            version: 1,
            keyed: false,
            codec: None,
            ttl: None,
            priority: None,
            subscribers_optional: false,
            location,
            sound: if topic::is_plain(topic) {
                Some(topic)
            } else {
                None
            },
        }
    }

    /// Whether `topic` is this contract's own, which is a valid topic: then nobody has to look at each
    /// of its characters again.
    pub(crate) fn is_sound(&self, topic: &str) -> bool {
        self.sound.is_some_and(|sound| std::ptr::eq(sound, topic))
    }

    /// With this version, from 1.
    #[must_use]
    pub const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// With a key.
    #[must_use]
    pub const fn keyed(mut self) -> Self {
        self.keyed = true;
        self
    }

    /// With this codec, by name.
    #[must_use]
    pub const fn codec(mut self, name: &'static str) -> Self {
        self.codec = Some(name);
        self
    }

    /// With this time to live.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// With this priority.
    #[must_use]
    pub const fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Publishing without a subscriber is fine.
    #[must_use]
    pub const fn subscribers_optional(mut self) -> Self {
        self.subscribers_optional = true;
        self
    }
}

/// A type that travels: its topic, key, id and version are its contract.
///
/// Derive it; the attribute `#[message(..)]` holds the contract.
///
/// ```
/// use interline::prelude::*;
///
/// #[derive(Message, Serialize, Deserialize)]
/// #[message(topic = "orders.placed", key = order_id)]
/// pub struct OrderPlaced {
///     pub order_id: String,
///     pub total_cents: u64,
/// }
///
/// assert_eq!(OrderPlaced::CONTRACT.topic, "orders.placed");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message",
    label = "this type does not implement `Message`",
    note = "derive it: #[derive(Message, Serialize, Deserialize)] #[message(topic = \"..\")]"
)]
pub trait Message: Sized + Send + Sync + 'static {
    /// The static part of the contract.
    const CONTRACT: &'static Contract;

    /// The topic of this message: the contract's, with its placeholders filled in.
    ///
    /// # Errors
    /// [`TopicError::Field`] if a field holds what cannot be a topic's segment.
    fn topic(&self) -> Result<Cow<'static, str>, TopicError> {
        Ok(Cow::Borrowed(Self::CONTRACT.topic))
    }

    /// The key of this message: messages of one key can be handled in order.
    fn key(&self) -> Option<String> {
        None
    }

    /// The identity of this message, if one of its fields holds it.
    fn id(&self) -> Option<String> {
        None
    }

    /// Writes the message with the codec that was chosen for it.
    ///
    /// # Errors
    /// [`CodecError`] if the value has no form in that codec.
    fn encode(&self, encoder: Encoder<'_>) -> Result<Bytes, CodecError>;

    /// Reads the message with the codec that its content-type names, from any version it knows.
    ///
    /// # Errors
    /// [`CodecError`] if the body is not a form of this message.
    fn decode(encoded: Encoded<'_>) -> Result<Self, CodecError>;
}

/// A message that asks: its contract names the reply. `#[derive(Message)]` implements it where
/// `reply = ..` is written.
#[diagnostic::on_unimplemented(
    message = "`{Self}` names no reply, so nobody can be asked with it",
    label = "the contract of this message names no reply",
    note = "name it: #[message(topic = \"..\", reply = Quote)]"
)]
pub trait Request: Message {
    /// What it is answered with.
    type Reply: Message;
}

/// A message that is answered with an `R`: the same as [`Request`] with `R` as its reply, in a form
/// that can be asked about.
#[diagnostic::on_unimplemented(
    message = "`{R}` is not the reply that the contract of `{Self}` names",
    label = "this is not the reply of `{Self}`",
    note = "the contract names it: #[message(topic = \"..\", reply = {R})]"
)]
pub trait AnsweredBy<R> {}

/// A message with a key. `#[derive(Message)]` implements it where `key = ..` is written.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no key, so its messages have no order to keep",
    label = "this message has no key",
    note = "name the field: #[message(topic = \"..\", key = order_id)]"
)]
pub trait Keyed: Message {}
