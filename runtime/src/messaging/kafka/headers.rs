//! Headers both ways. A record's header is bytes; text stands as it is, and the types of other values
//! travel in one header beside them, so that they come back as they were.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::{BufMut, Bytes};
use rdkafka::message::{BorrowedHeaders, Header, Headers as _, OwnedHeaders};

use crate::message::headers::name;
use crate::message::{HeaderValue, Headers};

/// The types of the headers that are not text: `name=b;other=i`.
const TYPES: &str = "x-header-types";
/// How deep lists and tables may nest.
const DEPTH_MAX: usize = 16;

/// Our headers as those of a record.
pub(super) fn write(headers: &Headers) -> OwnedHeaders {
    let mut record = OwnedHeaders::new_with_capacity(headers.len() + 1);
    let mut types = String::new();
    for (name, value) in headers.iter() {
        if name.eq_ignore_ascii_case(TYPES) || name.contains('\0') {
            continue;
        }
        let (kind, bytes): (Option<char>, Option<Cow<'_, [u8]>>) = match value {
            HeaderValue::Text(text) => (None, Some(Cow::Borrowed(text.as_bytes()))),
            HeaderValue::Null => (None, None),
            HeaderValue::Bool(value) => (Some('b'), owned(value.to_string())),
            HeaderValue::Int(value) => (Some('i'), owned(value.to_string())),
            HeaderValue::UInt(value) => (Some('u'), owned(value.to_string())),
            HeaderValue::Float(value) => (Some('f'), owned(value.to_string())),
            HeaderValue::Timestamp(value) => (Some('s'), owned(value.to_string())),
            // Bytes that read as text would come back as text.
            HeaderValue::Bytes(bytes) => {
                let kind = std::str::from_utf8(bytes).is_ok().then_some('y');
                (kind, Some(Cow::Borrowed(&bytes[..])))
            }
            HeaderValue::List(_) | HeaderValue::Table(_) => {
                let mut nested = Vec::new();
                put(&mut nested, value, 0);
                (Some('n'), Some(Cow::Owned(nested)))
            }
        };
        if let Some(kind) = kind {
            let separator = if types.is_empty() { "" } else { ";" };
            // Writing to a text cannot fail.
            let _ = write!(types, "{separator}{name}={kind}");
        }
        record = record.insert(Header {
            key: name,
            value: bytes.as_deref(),
        });
    }
    if !types.is_empty() {
        record = record.insert(Header {
            key: TYPES,
            value: Some(types.as_str()),
        });
    }
    record
}

fn owned(text: String) -> Option<Cow<'static, [u8]>> {
    Some(Cow::Owned(text.into_bytes()))
}

/// The headers of a record. Total: what is not as we write it comes as text or bytes.
pub(super) fn read(record: Option<&BorrowedHeaders>) -> Headers {
    let Some(record) = record else {
        return Headers::new();
    };
    let count = record.count();
    let mut headers = Headers::with_capacity(count + 1);
    let mut types = None;
    for at in 0..count {
        // The library panics over a name that is not UTF-8; such a header is nobody's we know.
        let found = catch_unwind(AssertUnwindSafe(|| record.try_get(at)));
        let Ok(Some(Header { key, value })) = found else {
            continue;
        };
        if key == TYPES {
            types = value.and_then(|value| std::str::from_utf8(value).ok());
            continue;
        }
        let value = match value {
            None => HeaderValue::Null,
            Some(value) => plain(value),
        };
        headers.set(interned(key), value);
    }
    for (name, kind) in types
        .into_iter()
        .flat_map(|types| types.split(';'))
        .filter_map(|one| one.rsplit_once('='))
    {
        let typed = headers.get(name).and_then(|value| typed(value, kind));
        if let Some(typed) = typed {
            headers.set(name.to_owned(), typed);
        }
    }
    headers
}

fn plain(value: &[u8]) -> HeaderValue {
    match std::str::from_utf8(value) {
        Ok(text) => HeaderValue::Text(text.to_owned().into()),
        Err(_) => HeaderValue::Bytes(Bytes::copy_from_slice(value)),
    }
}

/// A value with its type, if it is one of it.
fn typed(value: &HeaderValue, kind: &str) -> Option<HeaderValue> {
    let bytes = match value {
        HeaderValue::Text(text) => text.as_bytes(),
        HeaderValue::Bytes(bytes) => bytes,
        _ => return None,
    };
    let text = || std::str::from_utf8(bytes).ok();
    Some(match kind {
        "b" => HeaderValue::Bool(text()?.parse().ok()?),
        "i" => HeaderValue::Int(text()?.parse().ok()?),
        "u" => HeaderValue::UInt(text()?.parse().ok()?),
        "f" => HeaderValue::Float(text()?.parse().ok()?),
        "s" => HeaderValue::Timestamp(text()?.parse().ok()?),
        "y" => HeaderValue::Bytes(Bytes::copy_from_slice(bytes)),
        "n" => {
            let (value, rest) = take(bytes, 0)?;
            rest.is_empty().then_some(value)?
        }
        _ => return None,
    })
}

/// A value inside a list or table: a letter for its type, its length, its bytes.
fn put(to: &mut Vec<u8>, value: &HeaderValue, depth: usize) {
    if depth > DEPTH_MAX {
        return put(to, &HeaderValue::Null, 0);
    }
    let (kind, bytes): (u8, Vec<u8>) = match value {
        HeaderValue::Null => (b'0', Vec::new()),
        HeaderValue::Bool(value) => (b'b', vec![u8::from(*value)]),
        HeaderValue::Bytes(bytes) => (b'y', bytes.to_vec()),
        HeaderValue::Float(value) => (b'f', value.to_bits().to_be_bytes().into()),
        HeaderValue::Int(value) => (b'i', value.to_be_bytes().into()),
        HeaderValue::UInt(value) => (b'u', value.to_be_bytes().into()),
        HeaderValue::Timestamp(value) => (b's', value.to_be_bytes().into()),
        HeaderValue::Text(text) => (b't', text.as_bytes().into()),
        HeaderValue::List(values) => {
            let mut inner = Vec::new();
            values
                .iter()
                .for_each(|value| put(&mut inner, value, depth + 1));
            (b'l', inner)
        }
        HeaderValue::Table(values) => {
            let mut inner = Vec::new();
            for (name, value) in values {
                put(&mut inner, &HeaderValue::from(name.clone()), depth + 1);
                put(&mut inner, value, depth + 1);
            }
            (b'm', inner)
        }
    };
    to.put_u8(kind);
    // A header is far below the four gigabytes that this can count.
    to.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    to.extend_from_slice(&bytes);
}

fn take(from: &[u8], depth: usize) -> Option<(HeaderValue, &[u8])> {
    if depth > DEPTH_MAX + 1 {
        return None;
    }
    let (kind, rest) = from.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (bytes, rest) = rest.split_at_checked(length)?;
    let eight = || <[u8; 8]>::try_from(bytes).ok();
    let all = || {
        let (mut left, mut values) = (bytes, Vec::new());
        while !left.is_empty() {
            let (value, next) = take(left, depth + 1)?;
            values.push(value);
            left = next;
        }
        Some(values)
    };
    let value = match kind {
        b'0' => HeaderValue::Null,
        b'b' => HeaderValue::Bool(*bytes.first()? != 0),
        b'y' => HeaderValue::Bytes(Bytes::copy_from_slice(bytes)),
        b'f' => HeaderValue::Float(f64::from_bits(u64::from_be_bytes(eight()?))),
        b'i' => HeaderValue::Int(i64::from_be_bytes(eight()?)),
        b'u' => HeaderValue::UInt(u64::from_be_bytes(eight()?)),
        b's' => HeaderValue::Timestamp(u64::from_be_bytes(eight()?)),
        b't' => HeaderValue::from(std::str::from_utf8(bytes).ok()?.to_owned()),
        b'l' => HeaderValue::List(all()?),
        b'm' => {
            let mut pairs = Vec::new();
            let mut values = all()?.into_iter();
            while let Some(name) = values.next() {
                pairs.push((name.to_text()?.into_owned(), values.next()?));
            }
            HeaderValue::Table(pairs)
        }
        _ => return None,
    };
    Some((value, rest))
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

    #[test]
    fn what_we_write_reads_the_same_again() {
        let nested = HeaderValue::Table(vec![
            ("flag".to_owned(), HeaderValue::Bool(false)),
            (
                "list".to_owned(),
                HeaderValue::List(vec![HeaderValue::Null, HeaderValue::UInt(u64::MAX)]),
            ),
        ]);
        let headers: Headers = [
            ("flag", HeaderValue::Bool(true)),
            ("raw", HeaderValue::Bytes(Bytes::from_static(b"\xff\0"))),
            ("raw-text", HeaderValue::Bytes(Bytes::from_static(b"text"))),
            ("float", HeaderValue::Float(1.25)),
            ("int", HeaderValue::Int(-7)),
            ("uint", HeaderValue::UInt(u64::MAX)),
            ("null", HeaderValue::Null),
            ("nested", nested),
            ("text", HeaderValue::from("ü")),
            ("empty", HeaderValue::from("")),
            ("time", HeaderValue::Timestamp(3)),
        ]
        .into_iter()
        .collect();
        assert_eq!(read(Some(write(&headers).as_borrowed())), headers);
    }

    #[test]
    fn others_find_readable_text() {
        let headers: Headers = [("count", HeaderValue::Int(7))].into_iter().collect();
        let record = write(&headers);
        let first = record.as_borrowed().get(0);
        assert_eq!((first.key, first.value), ("count", Some(&b"7"[..])));
    }

    #[test]
    fn foreign_nonsense_does_not_fail() {
        let record = OwnedHeaders::new()
            .insert(Header {
                key: "count",
                value: Some("seven"),
            })
            .insert(Header {
                key: "count",
                value: Some("eight"),
            })
            .insert(Header {
                key: "deep",
                value: Some(&b"l\0\0\0\x09l\0\0\0\x04"[..]),
            })
            .insert(Header {
                key: TYPES,
                value: Some("count=i;deep=n;absent=b;;=;x"),
            });
        let headers = read(Some(record.as_borrowed()));
        assert_eq!(headers.text("count").as_deref(), Some("eight"));
        assert_eq!(headers.len(), 2);
        assert!(read(None).is_empty());
    }
}
