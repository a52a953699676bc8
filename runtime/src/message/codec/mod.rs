//! Codecs: bytes, headers and topic to a value and back.
//!
//! The built-in ones (`json`, `msgpack`, `protobuf`) are called directly; a user's own implements
//! [`Codec`] and is given to the `App`. Which one is used to write is decided by the message's
//! contract or the broker's configuration; to read, by the `content-type` header.

#[cfg(feature = "json")]
mod json;
#[cfg(feature = "msgpack")]
mod msgpack;
mod port;
#[cfg(feature = "protobuf")]
pub(crate) mod protobuf;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use port::{Codec, Slot, Value};

use super::headers::{Headers, name};

/// Why a value could not be written or read. Its text never holds the payload.
#[derive(Debug)]
pub struct CodecError {
    codec: Arc<str>,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl CodecError {
    /// An error of the codec `codec` that says what is wrong in `message`.
    #[must_use]
    pub fn new(codec: &str, message: impl Into<String>) -> Self {
        Self {
            codec: codec.into(),
            message: message.into(),
            source: None,
        }
    }

    /// With the error that led to it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The name of the codec.
    #[must_use]
    pub fn codec(&self) -> &str {
        &self.codec
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.codec, self.message)
    }
}

impl Error for CodecError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// One codec, built-in or a user's.
#[derive(Clone)]
pub struct CodecRef(Kind);

#[derive(Clone)]
enum Kind {
    #[cfg(feature = "json")]
    Json,
    #[cfg(feature = "msgpack")]
    MsgPack,
    #[cfg(feature = "protobuf")]
    Protobuf,
    Custom(Arc<dyn Codec>),
}

impl CodecRef {
    /// A user's codec.
    #[must_use]
    pub fn custom(codec: impl Codec) -> Self {
        Self(Kind::Custom(Arc::new(codec)))
    }

    /// The name by which contracts and the configuration choose it.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.0 {
            #[cfg(feature = "json")]
            Kind::Json => "json",
            #[cfg(feature = "msgpack")]
            Kind::MsgPack => "msgpack",
            #[cfg(feature = "protobuf")]
            Kind::Protobuf => "protobuf",
            Kind::Custom(codec) => codec.name(),
        }
    }

    /// The media type that it writes.
    #[must_use]
    pub fn content_type(&self) -> std::borrow::Cow<'static, str> {
        match &self.0 {
            #[cfg(feature = "json")]
            Kind::Json => "application/json".into(),
            #[cfg(feature = "msgpack")]
            Kind::MsgPack => "application/msgpack".into(),
            #[cfg(feature = "protobuf")]
            Kind::Protobuf => "application/x-protobuf".into(),
            Kind::Custom(codec) => codec.content_type().to_owned().into(),
        }
    }

    /// Whether it is one of ours, which leave the headers alone.
    pub(crate) fn is_built_in(&self) -> bool {
        !matches!(self.0, Kind::Custom(_))
    }

    /// Whether this is, to the letter, the media type that it writes: the common case, without the
    /// search.
    pub(crate) fn writes(&self, content_type: &str) -> bool {
        match &self.0 {
            Kind::Custom(codec) => codec.content_type() == content_type,
            #[cfg(any(feature = "json", feature = "msgpack", feature = "protobuf"))]
            _ => self.content_type() == content_type,
        }
    }

    /// Whether it reads bodies of this media type. Parameters (`; charset=utf-8`) do not count.
    #[must_use]
    pub fn reads(&self, content_type: &str) -> bool {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        match &self.0 {
            #[cfg(feature = "json")]
            Kind::Json => json::reads(media),
            #[cfg(feature = "msgpack")]
            Kind::MsgPack => msgpack::reads(media),
            #[cfg(feature = "protobuf")]
            Kind::Protobuf => protobuf::reads(media),
            Kind::Custom(codec) => codec.reads(media),
        }
    }

    fn encode_serde<T: Serialize>(
        &self,
        value: &T,
        context: &mut Context<'_>,
    ) -> Result<Bytes, CodecError> {
        match &self.0 {
            #[cfg(feature = "json")]
            Kind::Json => json::encode(value),
            #[cfg(feature = "msgpack")]
            Kind::MsgPack => msgpack::encode(value),
            #[cfg(feature = "protobuf")]
            Kind::Protobuf => Err(protobuf::not_protobuf()),
            Kind::Custom(codec) => {
                codec.encode(Value::serde(value), context.topic, context.headers)
            }
        }
    }

    fn decode_serde<T: DeserializeOwned>(&self, encoded: Encoded<'_>) -> Result<T, CodecError> {
        match &self.0 {
            #[cfg(feature = "json")]
            Kind::Json => json::decode(encoded.body),
            #[cfg(feature = "msgpack")]
            Kind::MsgPack => msgpack::decode(encoded.body),
            #[cfg(feature = "protobuf")]
            Kind::Protobuf => Err(protobuf::not_protobuf()),
            Kind::Custom(codec) => port::decode_serde(&**codec, encoded),
        }
    }
}

impl fmt::Debug for CodecRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CodecRef").field(&self.name()).finish()
    }
}

struct Context<'a> {
    topic: &'a str,
    headers: &'a mut Headers,
}

/// Writes one message: the chosen codec with the place it writes for.
pub struct Encoder<'a> {
    codec: &'a CodecRef,
    context: Context<'a>,
}

impl<'a> Encoder<'a> {
    /// An encoder for a message of `topic`; the codec may add to `headers`.
    #[must_use]
    pub fn new(codec: &'a CodecRef, topic: &'a str, headers: &'a mut Headers) -> Self {
        Self {
            codec,
            context: Context { topic, headers },
        }
    }

    /// Writes a value that serde knows.
    ///
    /// # Errors
    /// [`CodecError`] if the value has no form in the codec.
    pub fn serde<T: Serialize>(mut self, value: &T) -> Result<Bytes, CodecError> {
        self.codec.encode_serde(value, &mut self.context)
    }

    /// Writes a Protocol Buffers message.
    ///
    /// # Errors
    /// [`CodecError`] if the codec is not one for Protocol Buffers.
    #[cfg(feature = "protobuf")]
    #[doc(hidden)]
    pub fn protobuf<T: prost::Message>(self, value: &T) -> Result<Bytes, CodecError> {
        match &self.codec.0 {
            Kind::Protobuf => Ok(protobuf::encode(value)),
            Kind::Custom(codec) => codec.encode(
                Value::protobuf(value),
                self.context.topic,
                self.context.headers,
            ),
            #[allow(
                unreachable_patterns,
                reason = "without the other codecs nothing is left"
            )]
            _ => Err(protobuf::only_protobuf(self.codec.name())),
        }
    }
}

impl fmt::Debug for Encoder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder")
            .field("codec", self.codec)
            .finish_non_exhaustive()
    }
}

/// One message as it arrived, with the codec that reads it.
#[derive(Clone, Copy, Debug)]
pub struct Encoded<'a> {
    codec: &'a CodecRef,
    /// The body.
    pub body: &'a Bytes,
    /// The headers.
    pub headers: &'a Headers,
    /// The topic it was published to.
    pub topic: &'a str,
}

impl<'a> Encoded<'a> {
    /// A message to be read with `codec`.
    #[must_use]
    pub fn new(codec: &'a CodecRef, body: &'a Bytes, headers: &'a Headers, topic: &'a str) -> Self {
        Self {
            codec,
            body,
            headers,
            topic,
        }
    }

    /// The version of its contract, where the sender wrote one.
    #[must_use]
    pub fn version(&self) -> Option<u32> {
        self.headers
            .get(name::MESSAGE_VERSION)?
            .to_u64()?
            .try_into()
            .ok()
    }

    /// Reads a value that serde knows.
    ///
    /// # Errors
    /// [`CodecError`] if the body is not one.
    pub fn serde<T: DeserializeOwned>(self) -> Result<T, CodecError> {
        self.codec.decode_serde(self)
    }

    /// Reads a Protocol Buffers message.
    ///
    /// # Errors
    /// [`CodecError`] if the body is not one, or the codec is not one for Protocol Buffers.
    #[cfg(feature = "protobuf")]
    #[doc(hidden)]
    pub fn protobuf<T: prost::Message + Default>(self) -> Result<T, CodecError> {
        match &self.codec.0 {
            Kind::Protobuf => protobuf::decode(self.body),
            Kind::Custom(codec) => port::decode_protobuf(&**codec, self),
            #[allow(
                unreachable_patterns,
                reason = "without the other codecs nothing is left"
            )]
            _ => Err(protobuf::only_protobuf(self.codec.name())),
        }
    }
}

/// The codecs of one app: the built-in ones that are switched on, then the user's.
#[derive(Clone, Debug)]
pub struct Codecs {
    known: Vec<CodecRef>,
}

impl Codecs {
    /// The built-in codecs.
    #[must_use]
    pub fn built_in() -> Self {
        Self {
            known: vec![
                #[cfg(feature = "json")]
                CodecRef(Kind::Json),
                #[cfg(feature = "msgpack")]
                CodecRef(Kind::MsgPack),
                #[cfg(feature = "protobuf")]
                CodecRef(Kind::Protobuf),
            ],
        }
    }

    /// Adds a user's codec. It wins over an earlier one of the same name or media type.
    pub fn add(&mut self, codec: impl Codec) {
        self.known.push(CodecRef::custom(codec));
    }

    /// The codec called `name`.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&CodecRef> {
        self.known.iter().rev().find(|codec| codec.name() == name)
    }

    /// The codec that reads `content_type`.
    #[must_use]
    pub fn by_content_type(&self, content_type: &str) -> Option<&CodecRef> {
        self.known
            .iter()
            .rev()
            .find(|codec| codec.reads(content_type))
    }

    /// The codec that is used when nobody names one: JSON if it is switched on, else the first.
    #[must_use]
    pub fn default_codec(&self) -> Option<&CodecRef> {
        self.known.first()
    }

    /// The names of all codecs.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(CodecRef::name)
    }
}

#[cfg(test)]
mod tests;
