//! Protocol Buffers, for types that implement `prost::Message`.

use bytes::Bytes;

use super::CodecError;

/// A message whose type is erased, so that a user's codec can write it.
pub(super) trait Erased {
    fn encode(&self) -> Bytes;
}

impl<T: prost::Message> Erased for T {
    fn encode(&self) -> Bytes {
        self.encode_to_vec().into()
    }
}

pub(super) fn encode<T: prost::Message>(value: &T) -> Bytes {
    value.encode_to_vec().into()
}

pub(super) fn decode<T: prost::Message + Default>(body: &Bytes) -> Result<T, CodecError> {
    T::decode(body.clone()).map_err(|error| CodecError::new("protobuf", error.to_string()))
}

pub(super) fn not_protobuf() -> CodecError {
    CodecError::new(
        "protobuf",
        "this type is not a Protocol Buffers message; write `codec = protobuf` in its contract, or use another codec",
    )
}

pub(super) fn only_protobuf(codec: &str) -> CodecError {
    CodecError::new(
        codec,
        "a Protocol Buffers message can only be read and written as one",
    )
}

pub(super) fn reads(media: &str) -> bool {
    [
        "application/x-protobuf",
        "application/protobuf",
        "application/vnd.google.protobuf",
    ]
    .iter()
    .any(|known| media.eq_ignore_ascii_case(known))
}
