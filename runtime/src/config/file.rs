use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::fault::{Fault, Faults};
use super::origin::Origin;
use super::path::KeyPath;
use super::redact::{REDACTED, is_sensitive_key, redact_url};
use super::value::{Content, DEPTH_MAX, Node, Table};

/// A configuration is written by hand; whatever is longer is the wrong file.
const FILE_BYTES_MAX: usize = 1 << 20;

/// One slip can make a parser complain many times.
const SYNTAX_FAULTS_MAX: usize = 20;

/// The text of a file, or nothing and a fault. `optional` files may be missing.
pub(super) fn read(path: &Path, name: &str, optional: bool, faults: &mut Faults) -> Option<String> {
    let bytes = match read_bounded(path) {
        Ok(bytes) => bytes,
        Err(cause) if optional && cause.kind() == io::ErrorKind::NotFound => return None,
        Err(cause) => {
            let message = format!("cannot be read: {cause}");
            faults.push(Fault::new(start_of(name), "", message).with_cause(cause));
            return None;
        }
    };
    if bytes.len() > FILE_BYTES_MAX {
        faults.push(too_long(name));
        return None;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes());
            let origin = Lines::new(name, &text).origin(valid);
            faults.push(Fault::new(origin, "", "is not UTF-8 text"));
            None
        }
    }
}

/// A longer line is not shown; it would not help.
const EXCERPT_BYTES_MAX: usize = 160;

/// Reads TOML; what is wrong with it goes to `faults`, with the line.
pub(super) fn parse(name: &str, text: &str, faults: &mut Faults) -> Table {
    if text.len() > FILE_BYTES_MAX {
        faults.push(too_long(name));
        return Table::new();
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::new(name, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors.iter().take(SYNTAX_FAULTS_MAX) {
        let at = error.span().map_or(text.len(), |span| span.start);
        let message = format!("is not TOML: {}", error.message());
        faults.push(Fault::new(lines.origin(at), "", message).with_excerpt(lines.excerpt(at)));
    }
    let mut reader = Reader { lines, faults };
    reader.table(document.into_inner(), &KeyPath::default())
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too long from one that just fits.
    File::open(path)?
        .take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn too_long(name: &str) -> Fault {
    Fault::new(start_of(name), "", "is longer than 1 MiB")
}

fn start_of(name: &str) -> Origin {
    Origin::File {
        name: Arc::from(name),
        line: 1,
        column: 1,
    }
}

struct Reader<'a> {
    lines: Lines<'a>,
    faults: &'a mut Faults,
}

impl Reader<'_> {
    fn table(&mut self, table: DeTable<'_>, path: &KeyPath) -> Table {
        table
            .into_iter()
            .filter_map(|(key, value)| {
                let here = path.child(key.get_ref());
                let origin = self.lines.origin(key.span().start);
                let node = self.node(value.into_inner(), origin, &here)?;
                Some((DeString::into_owned(key.into_inner()), node))
            })
            .collect()
    }

    fn node(&mut self, value: DeValue<'_>, origin: Origin, path: &KeyPath) -> Option<Node> {
        if path.keys().len() > DEPTH_MAX {
            drop_flat(value);
            let message = format!("is nested deeper than {DEPTH_MAX} levels");
            self.faults
                .push(Fault::new(origin, path.to_string(), message));
            return None;
        }
        let content = match value {
            DeValue::String(text) => Content::Text(text.into_owned()),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Content::Integer(number),
                    Err(_) => return self.out_of_range(origin, path),
                }
            }
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => Content::Float(number),
                Err(_) => return self.out_of_range(origin, path),
            },
            DeValue::Boolean(truth) => Content::Boolean(truth),
            // No setting is a date; as a text it can still be shown in a message.
            DeValue::Datetime(date) => Content::Text(date.to_string()),
            DeValue::Array(items) => Content::List(self.list(items, path)),
            DeValue::Table(table) => Content::Table(self.table(table, path)),
        };
        Some(Node { origin, content })
    }

    fn list<'i>(
        &mut self,
        items: impl IntoIterator<Item = Spanned<DeValue<'i>>>,
        path: &KeyPath,
    ) -> Vec<Node> {
        items
            .into_iter()
            .enumerate()
            .filter_map(|(index, item)| {
                let origin = self.lines.origin(item.span().start);
                self.node(item.into_inner(), origin, &path.child(&index.to_string()))
            })
            .collect()
    }

    fn out_of_range(&mut self, origin: Origin, path: &KeyPath) -> Option<Node> {
        let message = "is a number outside of 64 bits";
        self.faults
            .push(Fault::new(origin, path.to_string(), message));
        None
    }
}

/// Takes a value apart level by level: dropping it whole would recurse as deep as it is nested.
fn drop_flat(value: DeValue<'_>) {
    let mut waiting = vec![value];
    while let Some(value) = waiting.pop() {
        match value {
            DeValue::Array(items) => waiting.extend(items.into_iter().map(Spanned::into_inner)),
            DeValue::Table(table) => {
                waiting.extend(table.into_iter().map(|(_, value)| value.into_inner()));
            }
            _ => {}
        }
    }
}

/// Where each line of a text begins.
struct Lines<'a> {
    name: Arc<str>,
    text: &'a str,
    starts: Vec<usize>,
    /// The characters before each multiple of [`STRIDE`] bytes, so that a column costs the same
    /// in a file that is one line.
    characters: Vec<usize>,
}

const STRIDE: usize = 1 << 10;

impl<'a> Lines<'a> {
    fn new(name: &str, text: &'a str) -> Self {
        let newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        let mut characters = vec![0];
        for block in text.as_bytes().chunks(STRIDE) {
            let before = characters.last().copied().unwrap_or_default();
            characters.push(before + count_characters(block));
        }
        Self {
            name: Arc::from(name),
            text,
            starts: std::iter::once(0).chain(newlines).collect(),
            characters,
        }
    }

    fn origin(&self, at: usize) -> Origin {
        let (line, column) = self.position(at);
        let number = |index: usize| u32::try_from(index + 1).unwrap_or(u32::MAX);
        Origin::File {
            name: Arc::clone(&self.name),
            line: number(line),
            column: number(column),
        }
    }

    /// Line and column in characters, both from 0.
    fn position(&self, at: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= at) - 1;
        let column = self.characters_before(at) - self.characters_before(self.starts[line]);
        (line, column)
    }

    fn characters_before(&self, at: usize) -> usize {
        let block = at.min(self.text.len()) / STRIDE;
        let rest = &self.text.as_bytes()[block * STRIDE..at.min(self.text.len())];
        self.characters[block] + count_characters(rest)
    }

    fn line(&self, line: usize) -> &'a str {
        let end = self
            .starts
            .get(line + 1)
            .map_or(self.text.len(), |next| *next);
        self.text[self.starts[line]..end].trim_end_matches(['\n', '\r'])
    }

    /// The line with a mark below the mistake. A value that may be a secret is not shown: whoever
    /// forgot a quote must not find the password in the log.
    fn excerpt(&self, at: usize) -> Option<String> {
        let (line, column) = self.position(at);
        let text = self.line(line);
        if text.trim().is_empty() || text.len() > EXCERPT_BYTES_MAX {
            return None;
        }
        let shown = self.without_secrets(line);
        if shown == text {
            let mark = "^";
            Some(format!("{shown}\n{mark:>width$}", width = column + 1))
        } else {
            Some(shown)
        }
    }

    fn without_secrets(&self, line: usize) -> String {
        let text = self.line(line);
        if let Some((before, _)) = text.split_once('=') {
            // An inline table has its keys behind the first `=`, so the whole line is searched.
            if names_a_secret(text) {
                return format!("{before}= {REDACTED}");
            }
        }
        if self.continues_a_secret(line) {
            return REDACTED.to_owned();
        }
        redact_url(text)
    }

    /// True when the line may be a part of a value that began further up.
    fn continues_a_secret(&self, line: usize) -> bool {
        const LOOKED_BACK_MAX: usize = 1_000;
        let mut above = (0..line).rev().map(|line| self.line(line));
        let Some(text) = above
            .by_ref()
            .take(LOOKED_BACK_MAX)
            .find(|text| text.contains('='))
        else {
            return above.next().is_some();
        };
        let value = text.split_once('=').map_or("", |(_, value)| value.trim());
        text.len() > EXCERPT_BYTES_MAX || (names_a_secret(text) && !is_closed(value))
    }
}

/// Each character of UTF-8 has one byte that does not continue another.
fn count_characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count()
}

/// True when the value surely ends on its line.
fn is_closed(value: &str) -> bool {
    let quoted = ['"', '\''].into_iter().any(|quote| {
        value
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
            .is_some_and(|inner| !inner.contains(quote))
    });
    quoted || value.starts_with('{') && value.ends_with('}')
}

fn names_a_secret(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
        .any(is_sensitive_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(text: &str) -> String {
        let mut faults = Faults::new();
        parse("f.toml", text, &mut faults);
        faults.into_result().unwrap_err().to_string()
    }

    fn origins(text: &str) -> Vec<String> {
        let mut faults = Faults::new();
        let table = parse("f.toml", text, &mut faults);
        assert!(faults.is_empty(), "{faults:?}");
        let mut found = Vec::new();
        super::super::describe::collect(&table, &KeyPath::default(), &mut |path, node| {
            found.push(format!("{path} {}", node.origin));
        });
        found
    }

    #[test]
    fn every_key_knows_its_line_and_column() {
        let text = "top = 1\n\n[brokers.main]\n  url = 'x'\r\n  tls.ca = 'y'\n\"ü\" = { a = 1, b = [2] }\n";
        assert_eq!(
            origins(text),
            [
                "brokers.main.tls.ca f.toml:5:7",
                "brokers.main.url f.toml:4:3",
                "brokers.main.\"ü\".a f.toml:6:9",
                "brokers.main.\"ü\".b f.toml:6:16",
                "top f.toml:1:1",
            ]
        );
        assert_eq!(origins("\u{feff}a = 1"), ["a f.toml:1:1"]);
        let long = format!("\n\"{}\" = {{ b = 1 }}", "ü€".repeat(5_000));
        assert!(origins(&long)[0].ends_with(" f.toml:2:10008"));
        assert!(origins("").is_empty());
    }

    #[test]
    fn all_syntax_errors_are_reported_with_their_lines() {
        let report = faults_of("a = 1\nb = \nc = 2\nd = tru\na = 3\n");
        for place in ["f.toml:2:", "f.toml:4:", "f.toml:5:1  "] {
            assert!(report.contains(place), "{place} in {report}");
        }
        assert!(
            report.contains("is not TOML: duplicate key\n    | a = 3\n    | ^"),
            "{report}"
        );
    }

    #[test]
    fn the_offending_line_does_not_show_a_secret() {
        for text in [
            "password = \"canary",
            "password = canary",
            "sasl = { user = 'x', password = canary }",
            "[a]\ntoken = [\n  canary\n]",
            "client-secret = '''\n  canary",
            "url = \"amqp://user:canary@host",
            "url = amqp://user:canary@host",
            "password = \"abc\ncanary\"",
            "password = [\n  ['x'],\n  canary\n]",
            "password = \"\"\"\nabc\n\"\"\" canary",
        ] {
            let report = faults_of(text);
            assert!(!report.contains("canary"), "{text}: {report}");
            assert!(report.contains("f.toml:"), "{report}");
        }
    }

    #[test]
    fn the_line_behind_a_secret_is_shown() {
        let report = faults_of("password = 'x'\n[brokers.main\n");
        assert!(
            report.ends_with("\n    | [brokers.main\n    |              ^"),
            "{report}"
        );
    }

    #[test]
    fn a_flood_of_errors_is_cut() {
        let mut faults = Faults::new();
        parse("f.toml", &"= \n".repeat(5_000), &mut faults);
        assert_eq!(faults.len(), SYNTAX_FAULTS_MAX);
    }

    #[test]
    fn deep_nesting_is_a_fault_not_a_crash() {
        let keys = vec!["a"; DEPTH_MAX + 1].join(".");
        assert!(faults_of(&format!("{keys} = 1")).contains("is nested deeper than 32 levels"));
        faults_of(&format!("x = {}", "[".repeat(200_000)));
        faults_of(&format!("{} = 1", vec!["a"; 200_000].join(".")));
        let mut inline = "1".to_owned();
        for _ in 0..70 {
            inline = format!("{{ {} = {inline} }}", vec!["a"; 70].join("."));
        }
        assert!(faults_of(&format!("x = {inline}")).contains("nested deeper"));
        let fits = vec!["a"; DEPTH_MAX].join(".");
        assert_eq!(origins(&format!("{fits} = 1")).len(), 1);
    }

    #[test]
    fn numbers_outside_of_64_bits_are_faults() {
        assert_eq!(
            faults_of("a = 9223372036854775808"),
            "1 mistake in the configuration\nf.toml:1:1  a  is a number outside of 64 bits"
        );
    }

    #[test]
    fn a_text_that_is_too_long_is_refused() {
        let report = faults_of(&" ".repeat(FILE_BYTES_MAX + 1));
        assert_eq!(
            report,
            "1 mistake in the configuration\nf.toml:1:1  is longer than 1 MiB"
        );
    }
}
