//! The port for a user's own codec, and the erased values that cross it.

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserializer, Serialize, Serializer};

use super::{CodecError, Encoded};
use crate::message::headers::Headers;

/// Writes and reads message bodies in a form of the user's own: encrypted, compressed, with a
/// schema registry, or simply another format.
///
/// ```
/// use interline::message::{Codec, CodecError, Encoded, Slot, Value};
/// # use interline::Headers;
///
/// /// JSON with the bytes reversed.
/// struct Reversed;
///
/// impl Codec for Reversed {
///     fn name(&self) -> &str { "reversed" }
///     fn content_type(&self) -> &str { "application/x-reversed" }
///     fn encode(&self, value: Value<'_>, _: &str, _: &mut Headers) -> Result<bytes::Bytes, CodecError> {
///         let mut text = serde_json::to_vec(&value)
///             .map_err(|error| CodecError::new("reversed", error.to_string()))?;
///         text.reverse();
///         Ok(text.into())
///     }
///     fn decode(&self, encoded: Encoded<'_>, slot: &mut Slot<'_>) -> Result<(), CodecError> {
///         let text: Vec<u8> = encoded.body.iter().rev().copied().collect();
///         slot.fill(&mut serde_json::Deserializer::from_slice(&text))
///             .map_err(|error| CodecError::new("reversed", error.to_string()))
///     }
/// }
/// ```
pub trait Codec: Send + Sync + 'static {
    /// The name by which contracts and the configuration choose it.
    fn name(&self) -> &str;

    /// The media type that it writes.
    fn content_type(&self) -> &str;

    /// Whether it reads this media type (given without parameters).
    fn reads(&self, content_type: &str) -> bool {
        content_type.eq_ignore_ascii_case(self.content_type())
    }

    /// Writes `value` for `topic`; `headers` are those the message will carry.
    ///
    /// # Errors
    /// [`CodecError`] if the value has no form in this codec.
    fn encode(
        &self,
        value: Value<'_>,
        topic: &str,
        headers: &mut Headers,
    ) -> Result<Bytes, CodecError>;

    /// Reads a message into `slot`.
    ///
    /// # Errors
    /// [`CodecError`] if the body is not a form of the type that is wanted.
    fn decode(&self, encoded: Encoded<'_>, slot: &mut Slot<'_>) -> Result<(), CodecError>;
}

/// A value to write, its type erased. It serializes as the value does.
#[derive(Clone, Copy)]
pub struct Value<'a>(Form<'a>);

#[derive(Clone, Copy)]
enum Form<'a> {
    Serde(&'a dyn erased_serde::Serialize),
    #[cfg(feature = "protobuf")]
    Protobuf(&'a dyn super::protobuf::Erased),
}

impl<'a> Value<'a> {
    pub(super) fn serde<T: Serialize>(value: &'a T) -> Self {
        Self(Form::Serde(value))
    }

    #[cfg(feature = "protobuf")]
    pub(super) fn protobuf<T: prost::Message>(value: &'a T) -> Self {
        Self(Form::Protobuf(value))
    }

    /// The value in its Protocol Buffers form, if it is a message of that kind.
    #[must_use]
    pub fn to_protobuf(&self) -> Option<Bytes> {
        match self.0 {
            Form::Serde(_) => None,
            #[cfg(feature = "protobuf")]
            Form::Protobuf(value) => Some(value.encode()),
        }
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Form::Serde(value) => erased_serde::serialize(value, serializer),
            #[cfg(feature = "protobuf")]
            Form::Protobuf(_) => Err(serde::ser::Error::custom(
                "a Protocol Buffers message has no serde form; use `Value::to_protobuf`",
            )),
        }
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value(..)")
    }
}

/// Where a codec puts the value that it read.
pub struct Slot<'a>(&'a mut dyn Fill);

impl Slot<'_> {
    /// Reads the value from `deserializer`.
    ///
    /// # Errors
    /// The deserializer's own, if what it holds is not the type that is wanted.
    pub fn fill<'de, D: Deserializer<'de>>(&mut self, deserializer: D) -> Result<(), D::Error> {
        let mut erased = <dyn erased_serde::Deserializer<'_>>::erase(deserializer);
        self.0.serde(&mut erased).map_err(serde::de::Error::custom)
    }

    /// Reads the value from its Protocol Buffers form.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not one, or the type is not a message of that kind.
    pub fn fill_protobuf(&mut self, bytes: &Bytes) -> Result<(), CodecError> {
        self.0.protobuf(bytes)
    }
}

impl fmt::Debug for Slot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot(..)")
    }
}

trait Fill {
    fn serde(
        &mut self,
        deserializer: &mut dyn erased_serde::Deserializer<'_>,
    ) -> Result<(), erased_serde::Error>;
    fn protobuf(&mut self, bytes: &Bytes) -> Result<(), CodecError>;
}

struct SerdeSlot<T>(Option<T>);

impl<T: DeserializeOwned> Fill for SerdeSlot<T> {
    fn serde(
        &mut self,
        deserializer: &mut dyn erased_serde::Deserializer<'_>,
    ) -> Result<(), erased_serde::Error> {
        self.0 = Some(erased_serde::deserialize(deserializer)?);
        Ok(())
    }

    fn protobuf(&mut self, _: &Bytes) -> Result<(), CodecError> {
        Err(CodecError::new(
            "protobuf",
            "this type is not a Protocol Buffers message",
        ))
    }
}

pub(super) fn decode_serde<T: DeserializeOwned>(
    codec: &dyn Codec,
    encoded: Encoded<'_>,
) -> Result<T, CodecError> {
    let mut slot = SerdeSlot(None);
    codec.decode(encoded, &mut Slot(&mut slot))?;
    slot.0.ok_or_else(|| {
        CodecError::new(codec.name(), "the codec reported success but gave no value")
    })
}

#[cfg(feature = "protobuf")]
struct ProtobufSlot<T>(Option<T>);

#[cfg(feature = "protobuf")]
impl<T: prost::Message + Default> Fill for ProtobufSlot<T> {
    fn serde(
        &mut self,
        _: &mut dyn erased_serde::Deserializer<'_>,
    ) -> Result<(), erased_serde::Error> {
        Err(serde::de::Error::custom(
            "a Protocol Buffers message has no serde form",
        ))
    }

    fn protobuf(&mut self, bytes: &Bytes) -> Result<(), CodecError> {
        self.0 = Some(super::protobuf::decode(bytes)?);
        Ok(())
    }
}

#[cfg(feature = "protobuf")]
pub(super) fn decode_protobuf<T: prost::Message + Default>(
    codec: &dyn Codec,
    encoded: Encoded<'_>,
) -> Result<T, CodecError> {
    let mut slot = ProtobufSlot(None);
    codec.decode(encoded, &mut Slot(&mut slot))?;
    slot.0.ok_or_else(|| {
        CodecError::new(codec.name(), "the codec reported success but gave no value")
    })
}
