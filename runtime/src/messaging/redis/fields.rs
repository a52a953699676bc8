//! An entry of a stream: the body in one field, each header in one of its own, readable in
//! `redis-cli`. Reading is total: nothing that a foreign program writes can fail.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::message::headers::name;
use crate::message::{HeaderValue, Headers};

/// Begins the field of a header that is text.
const TEXT: &str = "h:";
/// Begins the field of a header of another type, which follows up to the next colon.
const TYPED: &str = "h.";
/// The field of the headers that have none of their own, as a table.
const FURTHER: &str = "h.table:";
/// Most headers with a field of their own: a script that moves a message passes all fields at once,
/// and the server's Lua takes 8 000 values.
const OWN_FIELD_MAX: usize = 3_000;
/// How long a message is worth delivering, in milliseconds from its entry's id.
pub(super) const TTL: &str = "ttl";
/// The content type that a body made of foreign fields has.
const JSON: &str = "application/json";

/// A field and its value, in the order of the entry.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// An entry as a message.
#[derive(Debug, PartialEq)]
pub(super) struct Read {
    pub(super) body: Bytes,
    pub(super) headers: Headers,
    pub(super) ttl: Option<u64>,
}

/// Writes the fields of a message, one after the other, into `add`: at most 6 004 names and values.
pub(super) fn write(
    payload_field: &str,
    body: &[u8],
    headers: &Headers,
    mut add: impl FnMut(&[u8]),
) {
    let mut field = String::with_capacity(48);
    add(payload_field.as_bytes());
    add(body);
    for (name, value) in headers.iter().take(OWN_FIELD_MAX) {
        field.clear();
        let kind = kind(value);
        // Writing into a string cannot fail.
        let _ = match kind {
            "" => write!(field, "{TEXT}{name}"),
            kind => write!(field, "{TYPED}{kind}:{name}"),
        };
        add(field.as_bytes());
        match value {
            HeaderValue::Text(text) => add(text.as_bytes()),
            HeaderValue::Bytes(bytes) => add(bytes),
            HeaderValue::Null => add(b""),
            HeaderValue::List(values) => {
                let values: Vec<_> = values.iter().map(Nested::of).collect();
                add(&json(&values));
            }
            HeaderValue::Table(values) => add(&json(&Nested::table(values))),
            HeaderValue::Bool(_)
            | HeaderValue::Float(_)
            | HeaderValue::Int(_)
            | HeaderValue::Timestamp(_)
            | HeaderValue::UInt(_) => add(value.to_text().unwrap_or_default().as_bytes()),
        }
    }
    if headers.len() > OWN_FIELD_MAX {
        let further = headers.iter().skip(OWN_FIELD_MAX);
        let further: Vec<_> = further
            .map(|(name, value)| (name, Nested::of(value)))
            .collect();
        add(FURTHER.as_bytes());
        add(&json(&further));
    }
}

/// Reads an entry. Without the payload's field, the body is a JSON object of all fields.
pub(super) fn read(payload_field: &str, fields: Fields) -> Read {
    let has_payload = fields
        .iter()
        .any(|(field, _)| field == payload_field.as_bytes());
    let mut headers = Headers::with_capacity(fields.len());
    let (mut body, mut ttl) = (Bytes::new(), None);
    let mut foreign = serde_json::Map::new();
    for (field, value) in fields {
        if field == payload_field.as_bytes() {
            body = value.into();
            continue;
        }
        let text = String::from_utf8_lossy(&field);
        if let Some((name, value)) = header(&text, &value) {
            headers.set(name, value);
        } else if text == FURTHER {
            if let Some(HeaderValue::Table(further)) = typed("table", &value) {
                further
                    .into_iter()
                    .filter(|(name, _)| !name.is_empty())
                    .for_each(|(name, value)| headers.set(name, value));
            }
        } else if has_payload {
            if field == TTL.as_bytes() {
                ttl = std::str::from_utf8(&value)
                    .ok()
                    .and_then(|ms| ms.parse().ok());
            }
        } else {
            foreign.insert(text.into_owned(), foreign_value(value));
        }
    }
    if !has_payload && !foreign.is_empty() {
        body = serde_json::Value::Object(foreign).to_string().into();
        if !headers.contains(name::CONTENT_TYPE) {
            headers.set(name::CONTENT_TYPE, JSON);
        }
    }
    Read { body, headers, ttl }
}

/// A foreign value: text where it is that, else the list of its bytes.
fn foreign_value(value: Vec<u8>) -> serde_json::Value {
    match String::from_utf8(value) {
        Ok(text) => text.into(),
        Err(error) => error.into_bytes().into(),
    }
}

fn header(field: &str, value: &[u8]) -> Option<(Cow<'static, str>, HeaderValue)> {
    if let Some(name) = field.strip_prefix(TEXT) {
        return (!name.is_empty()).then(|| (interned(name), text(value)));
    }
    let (kind, name) = field.strip_prefix(TYPED)?.split_once(':')?;
    if name.is_empty() {
        return None;
    }
    // A value that is not what its field says stays what it is: text, or bytes.
    let typed = typed(kind, value).unwrap_or_else(|| text(value));
    Some((interned(name), typed))
}

fn text(value: &[u8]) -> HeaderValue {
    match std::str::from_utf8(value) {
        Ok(text) => HeaderValue::Text(text.to_owned().into()),
        Err(_) => HeaderValue::Bytes(Bytes::copy_from_slice(value)),
    }
}

fn kind(value: &HeaderValue) -> &'static str {
    match value {
        HeaderValue::Bool(_) => "bool",
        HeaderValue::Bytes(_) => "bytes",
        HeaderValue::Float(_) => "float",
        HeaderValue::Int(_) => "int",
        HeaderValue::List(_) => "list",
        HeaderValue::Null => "null",
        HeaderValue::Table(_) => "table",
        HeaderValue::Text(_) => "",
        HeaderValue::Timestamp(_) => "time",
        HeaderValue::UInt(_) => "uint",
    }
}

fn typed(kind: &str, value: &[u8]) -> Option<HeaderValue> {
    let text = || std::str::from_utf8(value).ok();
    Some(match kind {
        "bool" => HeaderValue::Bool(text()?.parse().ok()?),
        "bytes" => HeaderValue::Bytes(Bytes::copy_from_slice(value)),
        "float" => HeaderValue::Float(text()?.parse().ok()?),
        "int" => HeaderValue::Int(text()?.parse().ok()?),
        "list" => {
            let values: Vec<Nested> = serde_json::from_slice(value).ok()?;
            HeaderValue::List(values.into_iter().map(HeaderValue::from).collect())
        }
        "null" => HeaderValue::Null,
        "table" => {
            let values: Vec<(String, Nested)> = serde_json::from_slice(value).ok()?;
            let values = values.into_iter();
            HeaderValue::Table(values.map(|(name, value)| (name, value.into())).collect())
        }
        "time" => HeaderValue::Timestamp(text()?.parse().ok()?),
        "uint" => HeaderValue::UInt(text()?.parse().ok()?),
        _ => return None,
    })
}

/// A value inside a list or table, with its type: `{"int":1}`, `{"text":"a"}`, `"null"`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Nested {
    Bool(bool),
    Bytes(Vec<u8>),
    Float(f64),
    Int(i64),
    List(Vec<Nested>),
    Null,
    Table(Vec<(String, Nested)>),
    Text(String),
    Time(u64),
    UInt(u64),
}

impl Nested {
    fn of(value: &HeaderValue) -> Self {
        match value {
            HeaderValue::Bool(value) => Self::Bool(*value),
            HeaderValue::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            HeaderValue::Float(value) => Self::Float(*value),
            HeaderValue::Int(value) => Self::Int(*value),
            HeaderValue::List(values) => Self::List(values.iter().map(Self::of).collect()),
            HeaderValue::Null => Self::Null,
            HeaderValue::Table(values) => Self::Table(Self::table(values)),
            HeaderValue::Text(text) => Self::Text(text.as_str().to_owned()),
            HeaderValue::Timestamp(value) => Self::Time(*value),
            HeaderValue::UInt(value) => Self::UInt(*value),
        }
    }

    fn table(values: &[(String, HeaderValue)]) -> Vec<(String, Self)> {
        let values = values.iter();
        values
            .map(|(name, value)| (name.clone(), Self::of(value)))
            .collect()
    }
}

impl From<Nested> for HeaderValue {
    fn from(nested: Nested) -> Self {
        match nested {
            Nested::Bool(value) => Self::Bool(value),
            Nested::Bytes(bytes) => Self::Bytes(bytes.into()),
            Nested::Float(value) => Self::Float(value),
            Nested::Int(value) => Self::Int(value),
            Nested::List(values) => Self::List(values.into_iter().map(Self::from).collect()),
            Nested::Null => Self::Null,
            Nested::Table(values) => {
                let values = values.into_iter();
                Self::Table(values.map(|(name, value)| (name, value.into())).collect())
            }
            Nested::Text(text) => Self::from(text),
            Nested::Time(value) => Self::Timestamp(value),
            Nested::UInt(value) => Self::UInt(value),
        }
    }
}

fn json<T: Serialize>(values: &[T]) -> Vec<u8> {
    // Numbers, texts and lists of them: only a float that is no number has no JSON form, and that
    // becomes null.
    serde_json::to_vec(values).unwrap_or_default()
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
        name::PUBLISHED_AT,
        name::SENDER,
        name::TOPIC,
        name::TRACEPARENT,
        name::TRACESTATE,
    ];
    match NAMES.iter().find(|known| **known == text) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(body: &[u8], headers: &Headers) -> Fields {
        let mut flat = Vec::new();
        write("payload", body, headers, |part| flat.push(part.to_vec()));
        let mut flat = flat.into_iter();
        std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect()
    }

    #[test]
    fn what_we_write_reads_the_same_again() {
        let headers: Headers = [
            ("flag", HeaderValue::Bool(false)),
            ("bytes", HeaderValue::Bytes(Bytes::from_static(b"\x00\xff"))),
            ("float", HeaderValue::Float(1.25)),
            ("int", HeaderValue::Int(-9)),
            (
                "list",
                HeaderValue::List(vec![HeaderValue::Int(1), HeaderValue::Null]),
            ),
            ("null", HeaderValue::Null),
            (
                "table",
                HeaderValue::Table(vec![
                    ("z".to_owned(), HeaderValue::from("é")),
                    ("a".to_owned(), HeaderValue::UInt(u64::MAX)),
                ]),
            ),
            ("text", HeaderValue::from("ü")),
            ("time", HeaderValue::Timestamp(3)),
            ("uint", HeaderValue::UInt(7)),
        ]
        .into_iter()
        .collect();
        let read = read("payload", written(b"\xff body", &headers));
        assert_eq!(&read.body[..], b"\xff body");
        assert_eq!(read.headers, headers);
    }

    #[test]
    fn what_a_script_could_not_pass_on_shares_a_field() {
        let name = |at: usize| format!("x-{at}");
        let headers: Headers = (0..OWN_FIELD_MAX + 2)
            .map(|at| (name(at), HeaderValue::Int(7)))
            .collect();
        let fields = written(b"{}", &headers);
        assert_eq!(fields.len(), OWN_FIELD_MAX + 2);
        let (field, value) = fields.last().expect("there are some");
        assert_eq!(field, FURTHER.as_bytes());
        assert_eq!(value, br#"[["x-3000",{"int":7}],["x-3001",{"int":7}]]"#);
        assert_eq!(read("payload", fields).headers, headers);
        // Nothing that a foreign program writes there can fail.
        let fields = [
            (FURTHER, "[[\"\",{\"int\":7}]]"),
            (FURTHER, "{"),
            ("payload", "x"),
        ];
        let fields = fields.map(|(field, value)| (field.into(), value.into()));
        assert_eq!(read("payload", fields.into()).headers.len(), 0);
    }

    #[test]
    fn text_headers_are_what_a_person_reads() {
        let headers: Headers = [(name::MESSAGE_ID, HeaderValue::from("m-1"))]
            .into_iter()
            .collect();
        let fields = written(b"{}", &headers);
        assert_eq!(fields[1], (b"h:message-id".to_vec(), b"m-1".to_vec()));
    }

    #[test]
    fn foreign_fields_become_a_json_object() {
        let fields = vec![
            (b"order".to_vec(), b"7".to_vec()),
            (b"raw".to_vec(), vec![0xff, 1]),
            (b"h:x-tenant".to_vec(), b"acme".to_vec()),
        ];
        let read = read("payload", fields);
        assert_eq!(&read.body[..], br#"{"order":"7","raw":[255,1]}"#);
        let text = |name| read.headers.text(name).map(Cow::into_owned);
        assert_eq!(text(name::CONTENT_TYPE).as_deref(), Some(JSON));
        assert_eq!(text("x-tenant").as_deref(), Some("acme"));
    }

    #[test]
    fn foreign_nonsense_does_not_fail() {
        let fields = vec![
            (b"payload".to_vec(), b"x".to_vec()),
            (b"h.int:n".to_vec(), b"many".to_vec()),
            (b"h.colour:c".to_vec(), b"red".to_vec()),
            (b"h.list:l".to_vec(), b"[".to_vec()),
            (b"h:".to_vec(), b"nameless".to_vec()),
            (b"ttl".to_vec(), b"soon".to_vec()),
            (vec![0xff], vec![0xff]),
        ];
        let read = read("payload", fields);
        assert_eq!(&read.body[..], b"x");
        assert_eq!(read.headers.len(), 3);
        assert_eq!(read.headers.get("n"), Some(&HeaderValue::from("many")));
        assert_eq!(read.ttl, None);
    }
}
