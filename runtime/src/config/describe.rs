use std::fmt::{self, Write as _};

use super::path::{KeyPath, write_quoted};
use super::redact::{REDACTED, is_sensitive_key, redact_text};
use super::value::{Content, Node, Table};

/// How much of a text is quoted in a message.
const QUOTED_MAX: usize = 80;

/// What a value is, for a sentence: "`0`", "the text `ten`", "a list". Secrets are hidden.
pub(super) fn shown(path: &KeyPath, node: &Node) -> String {
    let hidden = is_sensitive_key(path.last());
    match &node.content {
        Content::Text(_) if hidden => "a text".to_owned(),
        Content::Text(text) if text.is_empty() => "an empty text".to_owned(),
        Content::Text(text) => format!("the text `{}`", quoted(path.last(), text)),
        Content::Integer(_) | Content::Float(_) if hidden => "a number".to_owned(),
        Content::Integer(number) => format!("`{number}`"),
        Content::Float(number) => format!("`{number:?}`"),
        Content::Boolean(truth) => format!("`{truth}`"),
        Content::List(_) => "a list".to_owned(),
        Content::Table(_) => "a section".to_owned(),
    }
}

/// A text of a value for a message: without secrets, on one line, not too long.
pub(super) fn quoted(key: &str, text: &str) -> String {
    let redacted = redact_text(key, text);
    let mut line: String = redacted.chars().take(QUOTED_MAX).collect();
    if line.len() < redacted.len() {
        line.push_str("..");
    }
    line.replace(|c: char| c.is_control(), " ")
}

/// One `key = value` for each value of the table, as in a TOML file, with the value's origin.
pub(super) fn describe(table: &Table) -> String {
    let mut lines = Vec::new();
    collect(table, &KeyPath::default(), &mut |path, node| {
        let mut setting = format!("{path} = ");
        // Writing into a string cannot fail.
        let _ = write_value(&mut setting, path.last(), node);
        lines.push((setting, node.origin.to_string()));
    });
    // One long value must not push every comment off the screen.
    let width = lines
        .iter()
        .map(|(setting, _)| setting.chars().count())
        .filter(|length| *length <= 60)
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for (setting, origin) in lines {
        let _ = writeln!(text, "{setting:<width$}  # {origin}");
    }
    text
}

/// Every value that is not itself a section, in the order of the keys.
pub(super) fn collect(table: &Table, path: &KeyPath, each: &mut impl FnMut(&KeyPath, &Node)) {
    for (key, node) in table {
        let here = path.child(key);
        match &node.content {
            Content::Table(inner) if !inner.is_empty() => collect(inner, &here, each),
            _ => each(&here, node),
        }
    }
}

pub(super) fn write_value(out: &mut impl fmt::Write, key: &str, node: &Node) -> fmt::Result {
    match &node.content {
        Content::Text(text) => write_quoted(out, &redact_text(key, text)),
        Content::List(items) => {
            out.write_char('[')?;
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.write_str(", ")?;
                }
                write_value(out, key, item)?;
            }
            out.write_char(']')
        }
        Content::Table(inner) => {
            out.write_char('{')?;
            for (index, (name, item)) in inner.iter().enumerate() {
                out.write_str(if index > 0 { ", " } else { " " })?;
                write!(out, "{} = ", KeyPath::default().child(name))?;
                write_value(out, name, item)?;
            }
            out.write_str(if inner.is_empty() { "}" } else { " }" })
        }
        _ if is_sensitive_key(key) => write_quoted(out, REDACTED),
        Content::Integer(number) => write!(out, "{number}"),
        Content::Float(number) => write!(out, "{number:?}"),
        Content::Boolean(truth) => write!(out, "{truth}"),
    }
}
