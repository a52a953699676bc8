//! Headers and AMQP properties, both ways and total: nothing that a foreign client writes can fail.

use std::borrow::Cow;
use std::collections::BTreeMap;
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
    let mut properties = properties.with_delivery_mode(PERSISTENT);
    let mut fields = Vec::with_capacity(headers.len());
    for (name, value) in headers.iter() {
        if let Some(add) = property(name) {
            properties = add(properties, value);
        }
        if let Ok(name) = ShortString::try_new(name) {
            fields.push((name, to_amqp(value)));
        }
    }
    // Made from all of them at once, a table takes half the comparisons.
    let table: BTreeMap<_, _> = fields.into_iter().collect();
    properties.with_headers(table.into())
}

/// How a header gets to the property that AMQP has for it.
fn property(name: &str) -> Option<fn(BasicProperties, &HeaderValue) -> BasicProperties> {
    macro_rules! text {
        ($with:ident) => {
            |properties, value| match short(value) {
                Some(value) => properties.$with(value),
                None => properties,
            }
        };
    }
    // Few names are as long as one of these.
    let is = |known: &str| name == known || name.eq_ignore_ascii_case(known);
    Some(match name.len() {
        6 if is(name::SENDER) => text!(with_app_id),
        10 if is(name::MESSAGE_ID) => text!(with_message_id),
        12 if is(name::CONTENT_TYPE) => text!(with_content_type),
        12 if is(name::MESSAGE_TYPE) => text!(with_type),
        12 if is(name::PUBLISHED_AT) => |properties, value| {
            let time = value.to_text().and_then(|text| parse_time(&text));
            match time {
                Some(time) => properties.with_timestamp(unix_seconds(time)),
                None => properties,
            }
        },
        14 if is(name::CORRELATION_ID) => text!(with_correlation_id),
        _ => return None,
    })
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

fn short(value: &HeaderValue) -> Option<ShortString> {
    ShortString::try_new(value.to_text()?.into_owned()).ok()
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
mod tests;
