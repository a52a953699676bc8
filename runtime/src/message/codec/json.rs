//! JSON, the default.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CodecError;

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Bytes, CodecError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| CodecError::new("json", "the value cannot be written").with_source(error))
}

pub(super) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    // Known to be text as a whole, none of its strings is looked at again. What is not text may still
    // be read: where the type skips a value nobody asks.
    let read = match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    };
    read.map_err(|error| CodecError::new("json", error.to_string()))
}

/// `application/json`, and whatever is built on it: `application/cloudevents+json`.
pub(super) fn reads(media: &str) -> bool {
    let built_on = media
        .rsplit_once('+')
        .is_some_and(|(_, base)| base.eq_ignore_ascii_case("json"));
    built_on
        || ["application/json", "text/json"]
            .iter()
            .any(|known| media.eq_ignore_ascii_case(known))
}
