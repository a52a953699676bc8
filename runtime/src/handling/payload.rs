//! Payloads: the first argument of a handler.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::message::{
    CodecError, CodecRef, Codecs, Contract, Encoded, Headers, Incoming, Message, headers::name,
};

use super::outcome::{Failed, Fate, Outcome, Reason};
use super::scope::{OnUnknown, Scope, SubscriberContext};

/// What a subscriber can take as its payload: a message, or an enum that derives `Messages`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the payload of a subscriber",
    label = "this type does not implement `Message`",
    note = "derive it: #[derive(Message, Serialize, Deserialize)] #[message(topic = \"..\")]",
    note = "for messages of others, name the topic: #[subscriber(topic = \"..\", on_unknown = dead_letter)]"
)]
pub trait Payload: Sized + Send + 'static {
    /// The contracts of the messages it can be.
    const CONTRACTS: &'static [&'static Contract];

    /// Whether [`decode`](Payload::decode) asks for the type of the message: else nobody looks for it.
    #[doc(hidden)]
    const READS_TYPE: bool = true;

    /// Reads it; `message_type` is the header of that name.
    ///
    /// # Errors
    /// [`PayloadError`] if it is none of its messages, or cannot be read.
    fn decode(encoded: Encoded<'_>, message_type: Option<&str>) -> Result<Self, PayloadError>;
}

/// Why a payload could not be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum PayloadError {
    /// The body is not a form of the message.
    Codec(CodecError),
    /// The message is of a type that the payload does not include.
    Unknown,
}

impl From<CodecError> for PayloadError {
    fn from(error: CodecError) -> Self {
        Self::Codec(error)
    }
}

#[diagnostic::do_not_recommend]
impl<M: Message> Payload for M {
    const CONTRACTS: &'static [&'static Contract] = &[M::CONTRACT];
    const READS_TYPE: bool = false;

    fn decode(encoded: Encoded<'_>, _: Option<&str>) -> Result<Self, PayloadError> {
        Ok(M::decode(encoded)?)
    }
}

/// A message as it arrived: bytes and headers, nothing decoded.
#[derive(Clone, Debug)]
pub struct Raw(Arc<Incoming>);

impl Raw {
    /// Wraps a message, for a call in a unit test.
    #[must_use]
    pub fn new(incoming: Arc<Incoming>) -> Self {
        Self(incoming)
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.0.headers
    }

    /// The topic it was published to.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.0.topic
    }
}

/// Reads a payload with a contract.
///
/// # Errors
/// The outcome of a message that cannot be read.
#[doc(hidden)]
pub fn message<P: Payload>(incoming: &Incoming, scope: &Scope) -> Result<P, Outcome> {
    let context = scope.context();
    let encoded = encoded(incoming, context, |wanted| {
        unreadable(wanted, incoming, P::CONTRACTS)
    })?;
    let message_type = P::READS_TYPE.then(|| incoming.message_type()).flatten();
    match P::decode(encoded, message_type.as_deref()) {
        Ok(payload) => Ok(payload),
        Err(PayloadError::Codec(error)) => {
            Err(unreadable(&error.to_string(), incoming, P::CONTRACTS))
        }
        Err(PayloadError::Unknown) => Err(unknown_type(incoming, context.on_unknown)),
    }
}

/// Reads a payload of others: any type that serde can read.
///
/// # Errors
/// The outcome of a message that cannot be read: what the subscriber says of the unknown.
#[doc(hidden)]
pub fn foreign<T: DeserializeOwned>(incoming: &Incoming, scope: &Scope) -> Result<T, Outcome> {
    let context = scope.context();
    let encoded = encoded(incoming, context, |text| {
        undecodable(text, context.on_unknown)
    })?;
    encoded
        .serde()
        .map_err(|error| undecodable(&error.to_string(), context.on_unknown))
}

/// Reads a Protocol Buffers payload of others.
///
/// # Errors
/// The outcome of a message that cannot be read: what the subscriber says of the unknown.
#[cfg(feature = "protobuf")]
#[doc(hidden)]
pub fn foreign_protobuf<T: prost::Message + Default>(
    incoming: &Incoming,
    scope: &Scope,
) -> Result<T, Outcome> {
    let context = scope.context();
    let encoded = encoded(incoming, context, |text| {
        undecodable(text, context.on_unknown)
    })?;
    encoded
        .protobuf()
        .map_err(|error| undecodable(&error.to_string(), context.on_unknown))
}

/// A payload that may be absent: an empty body (a tombstone) is `None`.
///
/// # Errors
/// That of `read`.
#[doc(hidden)]
pub fn tombstone<T>(
    incoming: &Incoming,
    read: impl FnOnce() -> Result<T, Outcome>,
) -> Result<Option<T>, Outcome> {
    if incoming.body.is_empty() {
        Ok(None)
    } else {
        read().map(Some)
    }
}

/// Chooses the codec by the content-type, or the subscriber's own where there is none.
fn encoded<'a>(
    incoming: &'a Incoming,
    context: &'a SubscriberContext,
    refuse: impl FnOnce(&str) -> Outcome,
) -> Result<Encoded<'a>, Outcome> {
    let codec = choose_codec(incoming, &context.codec, &context.codecs);
    let codec = codec.map_err(|text| refuse(&text))?;
    Ok(Encoded::new(
        codec,
        &incoming.body,
        &incoming.headers,
        &incoming.topic,
    ))
}

/// The codec that the content-type names; `own` where it names none.
pub(super) fn choose_codec<'a>(
    incoming: &Incoming,
    own: &'a CodecRef,
    codecs: &'a Codecs,
) -> Result<&'a CodecRef, String> {
    let Some(content_type) = incoming.headers.text(name::CONTENT_TYPE) else {
        return Ok(own);
    };
    if own.writes(&content_type) {
        return Ok(own);
    }
    // What a client writes that does not know or care says nothing about the body.
    let media = content_type.split(';').next().unwrap_or_default().trim();
    if media.is_empty() || media.eq_ignore_ascii_case("application/octet-stream") {
        return Ok(own);
    }
    if own.reads(&content_type) {
        return Ok(own);
    }
    codecs.by_content_type(&content_type).ok_or_else(|| {
        let known: Vec<_> = codecs.names().collect();
        format!(
            "no codec reads content-type `{content_type}` (codecs: {})",
            known.join(", ")
        )
    })
}

/// A body that is not what the contract says. A newer version may become readable when this service
/// is updated, so it is tried again first.
fn unreadable(text: &str, incoming: &Incoming, contracts: &[&'static Contract]) -> Outcome {
    let version = incoming
        .headers
        .get(name::MESSAGE_VERSION)
        .and_then(|value| value.to_u64());
    let ours = incoming
        .message_type()
        .and_then(|wire| contracts.iter().find(|contract| contract.name == wire))
        .or(contracts.first().filter(|_| contracts.len() == 1));
    match (version, ours) {
        (Some(theirs), Some(contract)) if theirs > u64::from(contract.version) => {
            let text = format!(
                "version {theirs} of `{}` is newer than ours ({}): {text}",
                contract.name, contract.version
            );
            let failed = Failed::new(Reason::NewerVersion, "CodecError", text);
            Outcome::failed(Fate::Retry { after: None }, failed)
        }
        _ => undecodable(text, OnUnknown::DeadLetter),
    }
}

fn undecodable(text: &str, on_unknown: OnUnknown) -> Outcome {
    Outcome::failed(
        fate_of(on_unknown),
        Failed::new(Reason::Decode, "CodecError", text),
    )
}

/// A message whose type no handler takes.
pub(crate) fn unknown_type(incoming: &Incoming, on_unknown: OnUnknown) -> Outcome {
    let text = match incoming.message_type() {
        Some(wire) => format!("no handler takes messages of type `{wire}`"),
        None => "the message does not say its type, and there are several handlers".to_owned(),
    };
    Outcome::failed(
        fate_of(on_unknown),
        Failed::new(Reason::NoHandler, "NoHandler", text),
    )
}

fn fate_of(on_unknown: OnUnknown) -> Fate {
    match on_unknown {
        OnUnknown::DeadLetter => Fate::DeadLetter,
        OnUnknown::Skip => Fate::Discard,
    }
}
