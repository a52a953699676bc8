//! Headers and AMQP properties, both ways and total: nothing that a foreign client writes can fail.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, ByteArray, FieldArray, FieldTable, ShortString};

use crate::message::headers::name;
use crate::message::{HeaderValue, Headers, format_time, parse_time};

/// Written by the broker when it moves a message. On a copy of ours they would steer the broker's
/// search for cycles, or tell a history that is not the copy's.
const BROKER_MADE: &[&str] = &["x-death", "x-delivery-count", "x-opt-deaths"];
const BROKER_MADE_PREFIXES: &[&str] = &["x-first-death-", "x-last-death-"];
/// Additional routing keys of a foreign publisher. A copy that kept them would reach other queues.
const ROUTING: &[&str] = &["cc", "bcc"];

const PERSISTENT: u8 = 2;
/// The last second that RFC 3339 can write; some clients send milliseconds in a field for seconds.
const YEAR_9999: u64 = 253_402_300_799;

/// The headers of a delivery. Properties that Interline has headers for become headers where the
/// table lacks them.
pub(super) fn read(properties: &BasicProperties) -> Headers {
    let table = properties.headers().as_ref().map(FieldTable::inner);
    let mut all = Vec::with_capacity(table.map_or(0, |table| table.len()) + 4);
    for (name, value) in table.into_iter().flatten() {
        all.push((interned(name.as_str()), from_amqp(value)));
    }
    // The table is in order and its names differ, but perhaps by case only.
    let mut headers = if all.iter().all(|(name, _)| is_lower(name)) {
        Headers::of_distinct(all)
    } else {
        all.into_iter().collect()
    };
    let texts = [
        (name::CONTENT_TYPE, properties.content_type()),
        (name::MESSAGE_ID, properties.message_id()),
        (name::MESSAGE_TYPE, properties.kind()),
        (name::CORRELATION_ID, properties.correlation_id()),
        (name::SENDER, properties.app_id()),
        (name::REPLY_TO, properties.reply_to()),
    ];
    for (name, value) in texts {
        if let Some(value) = value.as_ref().map(ShortString::as_str)
            && !value.is_empty()
            && !headers.contains(name)
        {
            headers.set(name, value.to_owned());
        }
    }
    if let Some(seconds) = properties
        .timestamp()
        .filter(|seconds| *seconds <= YEAR_9999)
        && !headers.contains(name::PUBLISHED_AT)
    {
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        headers.set(name::PUBLISHED_AT, format_time(time));
    }
    headers
}

/// The properties of a message of ours: what AMQP has a field for goes there too, so that foreign
/// consumers find it.
pub(super) fn write(headers: &Headers, properties: BasicProperties) -> BasicProperties {
    let mut properties = properties
        .with_headers(table(headers))
        .with_delivery_mode(PERSISTENT);
    if let Some(value) = short(headers, name::CONTENT_TYPE) {
        properties = properties.with_content_type(value);
    }
    if let Some(value) = short(headers, name::MESSAGE_ID) {
        properties = properties.with_message_id(value);
    }
    if let Some(value) = short(headers, name::MESSAGE_TYPE) {
        properties = properties.with_type(value);
    }
    if let Some(value) = short(headers, name::CORRELATION_ID) {
        properties = properties.with_correlation_id(value);
    }
    if let Some(value) = short(headers, name::SENDER) {
        properties = properties.with_app_id(value);
    }
    let published = headers.text(name::PUBLISHED_AT);
    if let Some(time) = published.and_then(|text| parse_time(&text)) {
        properties = properties.with_timestamp(unix_seconds(time));
    }
    properties
}

/// The properties of a copy: those of the original, with `headers` in place of its own. What would
/// make the copy expire, bounce or spread is left out.
pub(super) fn copy(
    original: &BasicProperties,
    headers: &Headers,
    keep_history: bool,
) -> BasicProperties {
    let mut headers = headers.clone();
    headers.retain(|name, _| {
        let is = |known: &&str| name.eq_ignore_ascii_case(known);
        let made = || {
            let starts = |prefix: &&str| {
                name.get(..prefix.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            };
            BROKER_MADE.iter().any(is) || BROKER_MADE_PREFIXES.iter().any(starts)
        };
        !ROUTING.iter().any(is) && (keep_history || !made())
    });
    // The server checks the user id against the connection's user, and an expiration would end the
    // wait of a retry early or delete a dead letter.
    let mut kept = BasicProperties::default();
    if let Some(value) = original.content_encoding() {
        kept = kept.with_content_encoding(value.clone());
    }
    if let Some(value) = original.priority() {
        kept = kept.with_priority(*value);
    }
    if let Some(value) = original.reply_to() {
        kept = kept.with_reply_to(value.clone());
    }
    if let Some(value) = original.cluster_id() {
        kept = kept.with_cluster_id(value.clone());
    }
    if let Some(value) = original.timestamp() {
        kept = kept.with_timestamp(*value);
    }
    let written = write(&headers, kept);
    // A foreign content type and the like, where a header of another value took its place.
    let originals = [
        original.content_type(),
        original.message_id(),
        original.kind(),
        original.correlation_id(),
        original.app_id(),
    ];
    let [content_type, message_id, kind, correlation_id, app_id] =
        originals.map(|value| value.clone().filter(|value| !value.as_str().is_empty()));
    let mut written = written;
    if let Some(value) = content_type {
        written = written.with_content_type(value);
    }
    if let Some(value) = message_id {
        written = written.with_message_id(value);
    }
    if let Some(value) = kind {
        written = written.with_type(value);
    }
    if let Some(value) = correlation_id {
        written = written.with_correlation_id(value);
    }
    if let Some(value) = app_id {
        written = written.with_app_id(value);
    }
    written
}

/// The first header name that AMQP cannot carry; names have at most 255 bytes there.
pub(super) fn unfit_name(headers: &Headers) -> Option<&str> {
    headers
        .iter()
        .map(|(name, _)| name)
        .find(|name| name.len() > lapin::types::MAX_SHORT_STRING_LENGTH)
}

fn table(headers: &Headers) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in headers.iter() {
        if let Ok(name) = ShortString::try_new(name) {
            table.insert(name, to_amqp(value));
        }
    }
    table
}

fn short(headers: &Headers, name: &str) -> Option<ShortString> {
    ShortString::try_new(headers.text(name)?.into_owned()).ok()
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A header's value as a field. Numbers beyond AMQP's signed 64 bits travel as text.
pub(super) fn to_amqp(value: &HeaderValue) -> AMQPValue {
    match value {
        HeaderValue::Bool(value) => AMQPValue::Boolean(*value),
        HeaderValue::Bytes(bytes) => AMQPValue::ByteArray(ByteArray::from(&bytes[..])),
        HeaderValue::Float(value) => AMQPValue::Double(*value),
        HeaderValue::Int(value) => AMQPValue::LongLongInt(*value),
        HeaderValue::List(values) => AMQPValue::FieldArray(FieldArray::from(
            values.iter().map(to_amqp).collect::<Vec<_>>(),
        )),
        HeaderValue::Null => AMQPValue::Void,
        HeaderValue::Table(values) => {
            let mut table = FieldTable::default();
            for (name, value) in values {
                if let Ok(name) = ShortString::try_new(name.as_str()) {
                    table.insert(name, to_amqp(value));
                }
            }
            AMQPValue::FieldTable(table)
        }
        HeaderValue::Text(text) => AMQPValue::LongString(text.as_bytes().into()),
        HeaderValue::Timestamp(seconds) => AMQPValue::Timestamp(*seconds),
        HeaderValue::UInt(value) => match i64::try_from(*value) {
            Ok(value) => AMQPValue::LongLongInt(value),
            Err(_) => AMQPValue::LongString(value.to_string().into_bytes().into()),
        },
    }
}

/// A field as a header's value. A decimal becomes text, which keeps every digit.
pub(super) fn from_amqp(value: &AMQPValue) -> HeaderValue {
    match value {
        AMQPValue::Boolean(value) => HeaderValue::Bool(*value),
        AMQPValue::ShortShortInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::ShortShortUInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::ShortInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::ShortUInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::LongInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::LongUInt(value) => HeaderValue::Int(i64::from(*value)),
        AMQPValue::LongLongInt(value) => HeaderValue::Int(*value),
        AMQPValue::Float(value) => HeaderValue::Float(f64::from(*value)),
        AMQPValue::Double(value) => HeaderValue::Float(*value),
        AMQPValue::DecimalValue(decimal) => {
            HeaderValue::from(decimal_text(decimal.scale, decimal.value))
        }
        AMQPValue::ShortString(text) => HeaderValue::from(text.as_str().to_owned()),
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => HeaderValue::from(text.to_owned()),
            Err(_) => HeaderValue::Bytes(Bytes::copy_from_slice(text.as_bytes())),
        },
        AMQPValue::FieldArray(values) => {
            HeaderValue::List(values.as_slice().iter().map(from_amqp).collect())
        }
        AMQPValue::Timestamp(seconds) => HeaderValue::Timestamp(*seconds),
        AMQPValue::FieldTable(table) => HeaderValue::Table(
            table
                .into_iter()
                .map(|(name, value)| (name.as_str().to_owned(), from_amqp(value)))
                .collect(),
        ),
        AMQPValue::ByteArray(bytes) => HeaderValue::Bytes(Bytes::copy_from_slice(bytes.as_slice())),
        AMQPValue::Void => HeaderValue::Null,
    }
}

fn decimal_text(scale: u8, value: u32) -> String {
    let scale = usize::from(scale);
    let digits = format!("{value:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    if scale == 0 {
        whole.to_owned()
    } else {
        format!("{whole}.{fraction}")
    }
}

fn is_lower(name: &str) -> bool {
    !name.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Our own names come without an allocation.
fn interned(text: &str) -> Cow<'static, str> {
    const NAMES: &[&str] = &[
        name::ATTEMPT,
        name::BAGGAGE,
        name::CAUSATION_ID,
        name::CONTENT_TYPE,
        name::CORRELATION_ID,
        name::FIRST_FAILURE,
        name::MESSAGE_ID,
        name::MESSAGE_KEY,
        name::MESSAGE_TYPE,
        name::MESSAGE_VERSION,
        name::DEADLINE,
        name::IN_REPLY_TO,
        name::PUBLISHED_AT,
        name::REPLY_TO,
        name::SENDER,
        name::TOPIC,
        name::TRACEPARENT,
        name::TRACESTATE,
    ];
    let known = |known: &&&str| known.len() == text.len() && **known == text;
    match NAMES.iter().find(known) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::DecimalValue;

    fn every_field() -> FieldTable {
        let mut inner = FieldTable::default();
        inner.insert("in".into(), AMQPValue::ShortInt(-3));
        let mut table = FieldTable::default();
        let fields = [
            ("bool", AMQPValue::Boolean(true)),
            ("i8", AMQPValue::ShortShortInt(-1)),
            ("u8", AMQPValue::ShortShortUInt(255)),
            ("u16", AMQPValue::ShortUInt(65_535)),
            ("i32", AMQPValue::LongInt(-5)),
            ("u32", AMQPValue::LongUInt(u32::MAX)),
            ("i64", AMQPValue::LongLongInt(i64::MIN)),
            ("f32", AMQPValue::Float(0.5)),
            ("f64", AMQPValue::Double(2.5)),
            (
                "decimal",
                AMQPValue::DecimalValue(DecimalValue {
                    scale: 3,
                    value: 45,
                }),
            ),
            ("text", AMQPValue::LongString("é".into())),
            ("raw", AMQPValue::LongString(vec![0xff, 0xfe].into())),
            (
                "list",
                AMQPValue::FieldArray(vec![AMQPValue::Void, AMQPValue::Boolean(false)].into()),
            ),
            ("time", AMQPValue::Timestamp(7)),
            ("table", AMQPValue::FieldTable(inner)),
            ("bytes", AMQPValue::ByteArray(vec![1, 2].into())),
            ("void", AMQPValue::Void),
        ];
        for (name, value) in fields {
            table.insert(name.into(), value);
        }
        table
    }

    #[test]
    fn every_field_type_of_amqp_becomes_a_header() {
        let headers = read(&BasicProperties::default().with_headers(every_field()));
        let expected = [
            ("bool", HeaderValue::Bool(true)),
            ("i8", HeaderValue::Int(-1)),
            ("u8", HeaderValue::Int(255)),
            ("u16", HeaderValue::Int(65_535)),
            ("i32", HeaderValue::Int(-5)),
            ("u32", HeaderValue::Int(4_294_967_295)),
            ("i64", HeaderValue::Int(i64::MIN)),
            ("f32", HeaderValue::Float(0.5)),
            ("f64", HeaderValue::Float(2.5)),
            ("decimal", HeaderValue::from("0.045")),
            ("text", HeaderValue::from("é")),
            ("raw", HeaderValue::Bytes(Bytes::from_static(&[0xff, 0xfe]))),
            (
                "list",
                HeaderValue::List(vec![HeaderValue::Null, HeaderValue::Bool(false)]),
            ),
            ("time", HeaderValue::Timestamp(7)),
            (
                "table",
                HeaderValue::Table(vec![("in".into(), HeaderValue::Int(-3))]),
            ),
            ("bytes", HeaderValue::Bytes(Bytes::from_static(&[1, 2]))),
            ("void", HeaderValue::Null),
        ];
        assert_eq!(headers.len(), expected.len());
        for (name, value) in expected {
            assert_eq!(headers.get(name), Some(&value), "{name}");
        }
    }

    #[test]
    fn what_we_write_reads_the_same_again() {
        let headers: Headers = [
            ("flag", HeaderValue::Bool(false)),
            ("bytes", HeaderValue::Bytes(Bytes::from_static(b"\x00\xff"))),
            ("float", HeaderValue::Float(1.25)),
            ("int", HeaderValue::Int(-9)),
            ("list", HeaderValue::List(vec![HeaderValue::Int(1)])),
            ("null", HeaderValue::Null),
            ("text", HeaderValue::from("ü")),
            ("time", HeaderValue::Timestamp(3)),
        ]
        .into_iter()
        .collect();
        let again = read(&write(&headers, BasicProperties::default()));
        for (name, value) in headers.iter() {
            assert_eq!(again.get(name), Some(value), "{name}");
        }
        assert_eq!(
            to_amqp(&HeaderValue::UInt(u64::MAX)),
            AMQPValue::LongString("18446744073709551615".into())
        );
        assert_eq!(to_amqp(&HeaderValue::UInt(5)), AMQPValue::LongLongInt(5));
    }

    #[test]
    fn properties_of_foreign_publishers_become_headers_where_the_table_lacks_them() {
        let mut table = FieldTable::default();
        table.insert(
            "message-id".into(),
            AMQPValue::LongString("from-table".into()),
        );
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_message_id("from-property".into())
            .with_type("Placed".into())
            .with_correlation_id("c-1".into())
            .with_timestamp(1_700_000_000)
            .with_headers(table);
        let headers = read(&properties);
        assert_eq!(
            headers.text(name::CONTENT_TYPE).as_deref(),
            Some("application/json")
        );
        assert_eq!(
            headers.text(name::MESSAGE_ID).as_deref(),
            Some("from-table")
        );
        assert_eq!(headers.text(name::MESSAGE_TYPE).as_deref(), Some("Placed"));
        assert_eq!(headers.text(name::CORRELATION_ID).as_deref(), Some("c-1"));
        assert_eq!(
            headers.text(name::PUBLISHED_AT).as_deref(),
            Some("2023-11-14T22:13:20.000Z")
        );
        let odd = BasicProperties::default().with_timestamp(u64::MAX);
        assert!(!read(&odd).contains(name::PUBLISHED_AT));
    }

    #[test]
    fn a_copy_keeps_the_original_and_drops_what_would_make_it_go_astray() {
        let original = BasicProperties::default()
            .with_content_type("text/x-odd".into())
            .with_content_encoding("gzip".into())
            .with_priority(3)
            .with_reply_to("answers".into())
            .with_expiration("1000".into())
            .with_user_id("somebody".into());
        let headers: Headers = [
            ("x-death", HeaderValue::List(vec![])),
            ("x-first-death-queue", HeaderValue::from("q")),
            ("CC", HeaderValue::List(vec![HeaderValue::from("other")])),
            ("mine", HeaderValue::from("1")),
        ]
        .into_iter()
        .collect();
        let copied = copy(&original, &headers, false);
        assert_eq!(
            copied.content_type().as_ref().unwrap().as_str(),
            "text/x-odd"
        );
        assert_eq!(copied.content_encoding().as_ref().unwrap().as_str(), "gzip");
        assert_eq!(copied.reply_to().as_ref().unwrap().as_str(), "answers");
        assert_eq!(
            (*copied.priority(), *copied.delivery_mode()),
            (Some(3), Some(2))
        );
        assert_eq!((copied.expiration(), copied.user_id()), (&None, &None));
        let names: Vec<_> = copied.headers().as_ref().unwrap().inner().keys().collect();
        assert_eq!(names, [&ShortString::from("mine")]);
        let kept = copy(&original, &headers, true);
        assert!(kept.headers().as_ref().unwrap().contains_key("x-death"));
        assert!(!kept.headers().as_ref().unwrap().contains_key("CC"));
    }
}
