//! What `#[derive(Message)]` and `#[derive(Messages)]` call.
//!
//! Every bound on a type of the user's is stated once, as the bound of an associated type or as a
//! supertrait; generated bodies then go through functions that are generic over the implementing
//! type. So a missing bound is one error, on the user's own tokens. The traits of those bounds have no
//! supertraits but methods: a compiler would report the supertrait instead.

use std::borrow::Cow;
use std::fmt::Display;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::handling::{Payload, PayloadError};
use crate::message::{CodecError, Contract, Encoded, Encoder, Message, TopicError, render_topic};

/// A type that serde writes and reads.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be written and read as a message",
    label = "this type does not implement `Serialize` and `Deserialize`",
    note = "derive both: #[derive(Message, Serialize, Deserialize)]"
)]
pub trait Serde: Sized {
    /// Writes it.
    ///
    /// # Errors
    /// [`CodecError`] if it has no form in the codec.
    fn encode(&self, encoder: Encoder<'_>) -> Result<Bytes, CodecError>;

    /// Reads it.
    ///
    /// # Errors
    /// [`CodecError`] if the body is not one.
    fn decode(encoded: Encoded<'_>) -> Result<Self, CodecError>;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Serde for T {
    fn encode(&self, encoder: Encoder<'_>) -> Result<Bytes, CodecError> {
        encoder.serde(self)
    }

    fn decode(encoded: Encoded<'_>) -> Result<Self, CodecError> {
        encoded.serde()
    }
}

/// Messages that are written with serde.
pub mod serde_form {
    use super::{Bytes, CodecError, Encoded, Encoder, Serde};

    /// A message that is written with serde.
    pub trait Form: Serde {}

    /// Writes it.
    ///
    /// # Errors
    /// [`CodecError`] if it has no form in the codec.
    pub fn encode<T: Form>(message: &T, encoder: Encoder<'_>) -> Result<Bytes, CodecError> {
        message.encode(encoder)
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`CodecError`] if the body is not one.
    pub fn decode<T: Form>(encoded: Encoded<'_>) -> Result<T, CodecError> {
        T::decode(encoded)
    }
}

/// Messages that are written as Protocol Buffers. Its name is what a missing feature shows.
#[cfg(feature = "protobuf")]
pub mod needs_feature_protobuf {
    use super::{Bytes, CodecError, Encoded, Encoder};
    use crate::handling::{Outcome, Scope, foreign_protobuf};
    use crate::message::Incoming;

    /// The feature is on.
    pub const ON: () = ();

    /// A type that prost writes and reads.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` is not a Protocol Buffers message",
        label = "this type does not implement `prost::Message`",
        note = "derive it: #[derive(Message, prost::Message)], or use another codec"
    )]
    pub trait Protobuf: Sized {
        /// Writes it.
        ///
        /// # Errors
        /// [`CodecError`] if the codec is not one for Protocol Buffers.
        fn encode(&self, encoder: Encoder<'_>) -> Result<Bytes, CodecError>;

        /// Reads it.
        ///
        /// # Errors
        /// [`CodecError`] if the body is not one.
        fn decode(encoded: Encoded<'_>) -> Result<Self, CodecError>;

        /// Reads one of others.
        ///
        /// # Errors
        /// The outcome of a message that cannot be read.
        fn foreign(incoming: &Incoming, scope: &Scope) -> Result<Self, Outcome>;
    }

    #[diagnostic::do_not_recommend]
    impl<T: prost::Message + Default> Protobuf for T {
        fn encode(&self, encoder: Encoder<'_>) -> Result<Bytes, CodecError> {
            encoder.protobuf(self)
        }

        fn decode(encoded: Encoded<'_>) -> Result<Self, CodecError> {
            encoded.protobuf()
        }

        fn foreign(incoming: &Incoming, scope: &Scope) -> Result<Self, Outcome> {
            foreign_protobuf(incoming, scope)
        }
    }

    /// A message that is written as Protocol Buffers.
    pub trait Form: Protobuf {}

    /// Writes it.
    ///
    /// # Errors
    /// [`CodecError`] if the codec is not one for Protocol Buffers.
    pub fn encode<T: Form>(message: &T, encoder: Encoder<'_>) -> Result<Bytes, CodecError> {
        Protobuf::encode(message, encoder)
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`CodecError`] if the body is not one.
    pub fn decode<T: Form>(encoded: Encoded<'_>) -> Result<T, CodecError> {
        <T as Protobuf>::decode(encoded)
    }

    /// The payload of a handler of Protocol Buffers messages of others.
    pub trait TakesForeign {
        /// Its type.
        type Payload: Protobuf;
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// The outcome of a message that cannot be read.
    pub fn read<H: TakesForeign>(
        incoming: &Incoming,
        scope: &Scope,
    ) -> Result<H::Payload, Outcome> {
        H::Payload::foreign(incoming, scope)
    }
}

/// Its name is what a missing feature shows.
#[cfg(feature = "json")]
pub mod needs_feature_json {
    /// The feature is on.
    pub const ON: () = ();
}

/// Its name is what a missing feature shows.
#[cfg(feature = "msgpack")]
pub mod needs_feature_msgpack {
    /// The feature is on.
    pub const ON: () = ();

    /// Adds the body of a request.
    #[cfg(feature = "http")]
    pub fn body<T: crate::__private::needs_feature_http::Written + ?Sized>(
        call: crate::http::Call,
        value: &T,
    ) -> crate::http::Call {
        call.msgpack(value)
    }
}

/// A type that can stand as a text in a key, an id or a topic.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot stand as a text in a key, an id or a topic",
    label = "this type does not implement `Display`",
    note = "implement `std::fmt::Display` for it, or name another field"
)]
pub trait Shown: Sized {
    /// As something to render.
    fn shown(&self) -> &dyn Display;
}

#[diagnostic::do_not_recommend]
impl<T: Display> Shown for T {
    fn shown(&self) -> &dyn Display {
        self
    }
}

/// The field number `N` of a message that its contract names.
pub trait ShownField<const N: usize> {
    /// Its type.
    type Field: Shown;
}

/// The field as a text.
pub fn text<H: ShownField<N>, const N: usize>(field: &H::Field) -> Option<String> {
    Some(field.shown().to_string())
}

/// The field as something to render.
pub fn shown<H: ShownField<N>, const N: usize>(field: &H::Field) -> &dyn Display {
    field.shown()
}

/// Renders a topic's template.
///
/// # Errors
/// [`TopicError`] if a value cannot be a segment.
pub fn render(
    topic: &'static str,
    fields: &[(&'static str, &dyn Display)],
) -> Result<Cow<'static, str>, TopicError> {
    render_topic(topic, fields)
}

/// An older version of a message, which `from(N = Old)` names.
pub trait Older<const VERSION: u32> {
    /// The message that it becomes.
    type Newer: From<Self::Message>;
    /// The older message.
    type Message: Message;
}

/// Reads a message of an older version, if that is the version it says it has.
///
/// # Errors
/// [`CodecError`] if the body is not one.
pub fn upcast<H: Older<VERSION>, const VERSION: u32>(
    encoded: Encoded<'_>,
) -> Option<Result<H::Newer, CodecError>> {
    (encoded.version() == Some(VERSION))
        .then(|| <H::Message as Message>::decode(encoded).map(H::Newer::from))
}

/// The variant number `N` of an enum of messages.
pub trait Variant<const N: usize> {
    /// The message that it holds.
    type Message: Message;
}

/// The contract of a variant's message.
#[must_use]
pub const fn variant_contract<H: Variant<N>, const N: usize>() -> &'static Contract {
    H::Message::CONTRACT
}

/// Reads a variant's message, if that is what the message says it is.
///
/// # Errors
/// [`PayloadError`] if the body is not one.
pub fn variant<H: Variant<N>, const N: usize>(
    encoded: Encoded<'_>,
    message_type: Option<&str>,
) -> Option<Result<H::Message, PayloadError>> {
    (message_type == Some(H::Message::CONTRACT.name))
        .then(|| <H::Message as Payload>::decode(encoded, message_type))
}

/// Reads the message of the only variant, whatever it says it is.
///
/// # Errors
/// [`PayloadError`] if the body is not one.
pub fn only_variant<H: Variant<N>, const N: usize>(
    encoded: Encoded<'_>,
) -> Result<H::Message, PayloadError> {
    Ok(<H::Message as Message>::decode(encoded)?)
}
