//! MessagePack, with field names, so that fields can be added.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CodecError;

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Bytes, CodecError> {
    rmp_serde::to_vec_named(value)
        .map(Bytes::from)
        .map_err(|error| {
            CodecError::new("msgpack", "the value cannot be written").with_source(error)
        })
}

/// Reads the whole body: bytes left over mean that it was something else.
pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    let mut deserializer = rmp_serde::Deserializer::new(body);
    let value = T::deserialize(&mut deserializer)
        .map_err(|error| CodecError::new("msgpack", error.to_string()))?;
    match deserializer.into_inner().len() {
        0 => Ok(value),
        left => Err(CodecError::new(
            "msgpack",
            format!("{left} bytes are left after the value"),
        )),
    }
}

pub(super) fn reads(media: &str) -> bool {
    [
        "application/msgpack",
        "application/x-msgpack",
        "application/vnd.msgpack",
    ]
    .iter()
    .any(|known| media.eq_ignore_ascii_case(known))
}
