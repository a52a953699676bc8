use super::*;

#[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq)]
struct Sample {
    id: u32,
    text: String,
}

fn sample() -> Sample {
    Sample {
        id: 7,
        text: "ä".to_owned(),
    }
}

fn round_trip(codec: &CodecRef) -> Result<Sample, CodecError> {
    let mut headers = Headers::new();
    let body = Encoder::new(codec, "t", &mut headers).serde(&sample())?;
    Encoded::new(codec, &body, &headers, "t").serde()
}

struct Reversed;

impl Codec for Reversed {
    fn name(&self) -> &str {
        "reversed"
    }
    fn content_type(&self) -> &str {
        "application/x-reversed"
    }
    fn encode(
        &self,
        value: Value<'_>,
        topic: &str,
        headers: &mut Headers,
    ) -> Result<Bytes, CodecError> {
        headers.set("x-codec-topic", topic.to_owned());
        let mut text = rmp_or_json(&value)?;
        text.reverse();
        Ok(text.into())
    }
    fn decode(&self, encoded: Encoded<'_>, slot: &mut Slot<'_>) -> Result<(), CodecError> {
        let text: Vec<u8> = encoded.body.iter().rev().copied().collect();
        fill(slot, &text)
    }
}

#[cfg(feature = "json")]
fn rmp_or_json(value: &Value<'_>) -> Result<Vec<u8>, CodecError> {
    serde_json::to_vec(value).map_err(|error| CodecError::new("reversed", error.to_string()))
}

#[cfg(feature = "json")]
fn fill(slot: &mut Slot<'_>, text: &[u8]) -> Result<(), CodecError> {
    slot.fill(&mut serde_json::Deserializer::from_slice(text))
        .map_err(|error| CodecError::new("reversed", error.to_string()))
}

#[cfg(not(feature = "json"))]
fn rmp_or_json(_: &Value<'_>) -> Result<Vec<u8>, CodecError> {
    Err(CodecError::new("reversed", "json is off"))
}

#[cfg(not(feature = "json"))]
fn fill(_: &mut Slot<'_>, _: &[u8]) -> Result<(), CodecError> {
    Err(CodecError::new("reversed", "json is off"))
}

#[cfg(feature = "json")]
#[test]
fn json_round_trips_and_refuses_what_is_not_json() {
    let codecs = Codecs::built_in();
    let json = codecs.by_name("json").unwrap();
    assert_eq!(round_trip(json).unwrap(), sample());
    for body in ["", "{", "{\"id\":1}", "{\"id\":1,\"text\":\"x\"} x"] {
        let body = Bytes::copy_from_slice(body.as_bytes());
        assert!(
            Encoded::new(json, &body, &Headers::new(), "t")
                .serde::<Sample>()
                .is_err()
        );
    }
    for media in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/cloud+json",
    ] {
        assert!(json.reads(media), "{media}");
    }
    assert!(!json.reads("text/plain"));
}

#[cfg(feature = "json")]
#[test]
fn json_that_is_not_all_text_is_read_where_nobody_asks_for_the_rest() {
    let codecs = Codecs::built_in();
    let json = codecs.by_name("json").unwrap();
    let read = |body: &'static [u8]| {
        let body = Bytes::from_static(body);
        Encoded::new(json, &body, &Headers::new(), "t").serde::<Sample>()
    };
    let beside = b"{\"id\":7,\"note\":\"\xff\",\"text\":\"\xc3\xa4\"}";
    assert_eq!(read(beside).unwrap(), sample());
    assert!(read(b"{\"id\":7,\"text\":\"\xff\"}").is_err());
}

#[cfg(feature = "msgpack")]
#[test]
fn msgpack_round_trips_and_refuses_truncated_and_trailing_bytes() {
    let codecs = Codecs::built_in();
    let codec = codecs.by_content_type("application/x-msgpack").unwrap();
    assert_eq!(round_trip(codec).unwrap(), sample());
    let mut headers = Headers::new();
    let body = Encoder::new(codec, "t", &mut headers)
        .serde(&sample())
        .unwrap();
    let truncated = body.slice(..body.len() - 1);
    assert!(
        Encoded::new(codec, &truncated, &headers, "t")
            .serde::<Sample>()
            .is_err()
    );
    let trailing = Bytes::from([&body[..], b"x"].concat());
    let error = Encoded::new(codec, &trailing, &headers, "t")
        .serde::<Sample>()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "msgpack: 1 bytes are left after the value"
    );
}

#[cfg(feature = "protobuf")]
#[test]
fn protobuf_takes_only_its_own_kind() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Proto {
        #[prost(uint32, tag = "1")]
        id: u32,
    }
    let codecs = Codecs::built_in();
    let codec = codecs.by_name("protobuf").unwrap();
    let mut headers = Headers::new();
    let body = Encoder::new(codec, "t", &mut headers)
        .protobuf(&Proto { id: 9 })
        .unwrap();
    let read: Proto = Encoded::new(codec, &body, &headers, "t")
        .protobuf()
        .unwrap();
    assert_eq!(read.id, 9);
    assert!(round_trip(codec).is_err());
    let bad = Bytes::from_static(b"\xff\xff");
    assert!(
        Encoded::new(codec, &bad, &headers, "t")
            .protobuf::<Proto>()
            .is_err()
    );
}

#[cfg(feature = "json")]
#[test]
fn a_users_codec_is_found_by_name_and_media_type_and_sees_topic_and_headers() {
    let mut codecs = Codecs::built_in();
    codecs.add(Reversed);
    let codec = codecs.by_content_type("application/x-reversed").unwrap();
    assert_eq!(codec.name(), "reversed");
    let mut headers = Headers::new();
    let body = Encoder::new(codec, "orders", &mut headers)
        .serde(&sample())
        .unwrap();
    assert_eq!(headers.text("x-codec-topic").as_deref(), Some("orders"));
    assert_eq!(body.first(), Some(&b'}'));
    assert_eq!(
        Encoded::new(codec, &body, &headers, "orders")
            .serde::<Sample>()
            .unwrap(),
        sample()
    );
}

#[test]
fn an_unknown_name_or_media_type_is_nobody() {
    let codecs = Codecs::built_in();
    assert!(codecs.by_name("yaml").is_none());
    assert!(codecs.by_content_type("text/plain").is_none());
}
