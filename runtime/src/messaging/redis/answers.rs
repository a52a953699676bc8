//! The server's answers about entries, taken apart without copying a body.

use std::sync::Arc;

use redis::Value;

use super::fields::Fields;
use super::out::Source;

/// An entry as it was read. `None` for its fields if it was trimmed meanwhile.
pub(super) struct Found {
    pub(super) source: Source,
    pub(super) id: Arc<str>,
    /// How often it was handed out.
    pub(super) count: u64,
    pub(super) fields: Option<Fields>,
}

/// The entries of an `XREADGROUP`, of which those of `retries` are told apart by the stream's name.
pub(super) fn read(answer: Value, retries: &str) -> Vec<Found> {
    let mut all = Vec::new();
    let mut add = |stream: Value, entries: Value| {
        let source = match stream {
            Value::BulkString(name) if name == retries.as_bytes() => Source::Retries,
            Value::SimpleString(name) if name == retries => Source::Retries,
            _ => Source::Stream,
        };
        for entry in list(entries) {
            if let Some((id, fields)) = pair(entry) {
                all.extend(found(source, id, 1, fields));
            }
        }
    };
    match answer {
        Value::Map(streams) => {
            for (stream, entries) in streams {
                add(stream, entries);
            }
        }
        Value::Array(streams) => {
            for stream in streams {
                if let Some((stream, entries)) = pair(stream) {
                    add(stream, entries);
                }
            }
        }
        _ => {}
    }
    all
}

/// The entries of a sweep, and how many were trimmed.
pub(super) fn swept(answer: Value) -> Option<(Vec<Found>, i64)> {
    let (entries, gone) = pair(answer)?;
    let entries = list(entries).into_iter().filter_map(|entry| {
        let mut parts = list(entry).into_iter();
        let source = match parts.next()? {
            Value::Int(2) => Source::Retries,
            _ => Source::Stream,
        };
        let id = parts.next()?;
        let Value::Int(count) = parts.next()? else {
            return None;
        };
        let count = u64::try_from(count).unwrap_or(1);
        found(source, id, count, parts.next()?)
    });
    let entries = entries.collect();
    match gone {
        Value::Int(gone) => Some((entries, gone)),
        _ => Some((entries, 0)),
    }
}

/// The entries of an `XRANGE`.
pub(super) fn range(answer: Value) -> Vec<(Arc<str>, Fields)> {
    let entries = list(answer).into_iter().filter_map(|entry| {
        let (id, fields) = pair(entry)?;
        let found = found(Source::Stream, id, 1, fields)?;
        Some((found.id, found.fields?))
    });
    entries.collect()
}

fn found(source: Source, id: Value, count: u64, fields: Value) -> Option<Found> {
    Some(Found {
        source,
        id: text(id)?,
        count,
        fields: match fields {
            Value::Nil => None,
            fields => Some(pairs(fields)),
        },
    })
}

fn pairs(fields: Value) -> Fields {
    if let Value::Map(fields) = fields {
        let fields = fields.into_iter();
        return fields
            .map(|(field, value)| (bytes(field), bytes(value)))
            .collect();
    }
    let mut parts = list(fields).into_iter().map(bytes);
    std::iter::from_fn(|| Some((parts.next()?, parts.next()?))).collect()
}

/// The items of a list; nothing for anything else.
pub(super) fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        _ => Vec::new(),
    }
}

pub(super) fn pair(value: Value) -> Option<(Value, Value)> {
    let mut items = list(value).into_iter();
    Some((items.next()?, items.next()?))
}

pub(super) fn text(value: Value) -> Option<Arc<str>> {
    match value {
        Value::BulkString(bytes) => Some(std::str::from_utf8(&bytes).ok()?.into()),
        Value::SimpleString(text) => Some(text.into()),
        _ => None,
    }
}

fn bytes(value: Value) -> Vec<u8> {
    match value {
        Value::BulkString(bytes) => bytes,
        Value::SimpleString(text) => text.into_bytes(),
        Value::Int(number) => number.to_string().into_bytes(),
        _ => Vec::new(),
    }
}
