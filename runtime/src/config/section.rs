use std::fmt::Display;
use std::ops::{Bound, RangeBounds};
use std::time::Duration;

use super::asked::not_a_table;
use super::describe::{quoted, shown};
use super::fault::{Fault, Faults};
use super::origin::Origin;
use super::path::KeyPath;
use super::redact::is_sensitive_key;
use super::secret::Secret;
use super::suggest::suggest;
use super::units::{HumanDuration, parse_duration, parse_size};
use super::value::{Content, Node, Table};

static ABSENT: Origin = Origin::Absent;

/// A table of the configuration, read key by key.
///
/// Each getter gives the value, or nothing when the key is absent or its value is wrong; what is
/// wrong is pushed into the [`Faults`], so that a reader carries on with its default and every
/// mistake is found in one run. A section that is not in the configuration reads like an empty
/// one.
///
/// A TOML file says by its syntax what a value is, and is held to it: `prefetch = "20"` is a
/// mistake. Text from elsewhere (environment, code, an embedded configuration) is parsed into
/// what the getter asks for.
///
/// ```
/// use std::time::Duration;
/// use interline::config::{Config, Faults};
///
/// let config = Config::new()
///     .with("brokers.main.url", "amqp://localhost")
///     .with("brokers.main.connect_timeout", Duration::from_secs(5));
/// let mut faults = Faults::new();
/// let broker = config.section("brokers.main");
///
/// assert_eq!(broker.string("url", &mut faults).as_deref(), Some("amqp://localhost"));
/// let timeout = broker.nonzero_duration("connect_timeout", &mut faults);
/// assert_eq!(timeout, Some(Duration::from_secs(5)));
/// assert_eq!(broker.integer::<u16>("prefetch", 1.., &mut faults), None);
/// assert!(faults.is_empty());
/// ```
#[derive(Clone)]
pub struct Section<'a> {
    path: KeyPath,
    table: Option<&'a Table>,
    origin: &'a Origin,
}

impl<'a> Section<'a> {
    /// The section's key as it would stand in a TOML file: `brokers.main`.
    pub fn path(&self) -> String {
        self.path.to_string()
    }

    /// The last part of the path: the name of a broker or a subscriber.
    pub fn name(&self) -> &str {
        self.path.last()
    }

    /// Where the section begins, or else the nearest section around it that is there;
    /// [`Origin::Absent`] when none is.
    pub fn origin(&self) -> &'a Origin {
        self.origin
    }

    /// False when the section is not in the configuration.
    pub fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// True when the key is in the section, whatever its value.
    pub fn contains(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// The keys of the section, in their order, for a section whose keys are the user's own words.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.table
            .into_iter()
            .flat_map(|table| table.keys().map(String::as_str))
    }

    /// A text.
    pub fn string(&self, key: &str, faults: &mut Faults) -> Option<String> {
        let node = self.value(key, faults)?;
        match &node.content {
            Content::Text(text) => Some(text.clone()),
            Content::Integer(_) | Content::Float(_) | Content::Boolean(_) => {
                let fault = self.expected("a text", key, node);
                faults.push(fault.with_help("put the value in quotes"));
                None
            }
            _ => self.wrong("a text", key, node, faults),
        }
    }

    /// `true` or `false`.
    pub fn bool(&self, key: &str, faults: &mut Faults) -> Option<bool> {
        let node = self.value(key, faults)?;
        match &node.content {
            Content::Boolean(truth) => Some(*truth),
            Content::Text(text) => match (text.trim().parse(), node.is_strictly_typed()) {
                (Ok(truth), false) => Some(truth),
                (Ok(_), true) => self.quoted_by_mistake("`true` or `false`", key, node, faults),
                (Err(_), _) => self.wrong("`true` or `false`", key, node, faults),
            },
            _ => self.wrong("`true` or `false`", key, node, faults),
        }
    }

    /// A whole number within the range.
    pub fn integer<T>(
        &self,
        key: &str,
        range: impl RangeBounds<T>,
        faults: &mut Faults,
    ) -> Option<T>
    where
        T: Copy + PartialOrd + Display + TryFrom<i128>,
    {
        let node = self.value(key, faults)?;
        let number = match &node.content {
            Content::Integer(number) => i128::from(*number),
            Content::Text(text) => {
                let parsed = text.trim().replace('_', "").parse::<i128>();
                match (parsed, node.is_strictly_typed()) {
                    (Ok(number), false) => number,
                    (Ok(_), true) => {
                        return self.quoted_by_mistake("a whole number", key, node, faults);
                    }
                    (Err(_), _) => return self.wrong("a whole number", key, node, faults),
                }
            }
            _ => return self.wrong("a whole number", key, node, faults),
        };
        match T::try_from(number) {
            Ok(value) => self.within(key, value, &range, T::to_string, node, faults),
            Err(_) if is_sensitive_key(key) => self.wrong("a whole number", key, node, faults),
            Err(_) => self.refuse(key, node, outside_of_type(number, &range), faults),
        }
    }

    /// A number within the range; not "not a number", and infinite only where the range is open.
    pub fn float(
        &self,
        key: &str,
        range: impl RangeBounds<f64>,
        faults: &mut Faults,
    ) -> Option<f64> {
        let node = self.value(key, faults)?;
        let number = match &node.content {
            Content::Float(number) => *number,
            // Every whole number that makes sense as a setting is exact in 64 bits of float.
            Content::Integer(number) => *number as f64,
            Content::Text(text) => match (text.trim().parse(), node.is_strictly_typed()) {
                (Ok(number), false) => number,
                (Ok(_), true) => return self.quoted_by_mistake("a number", key, node, faults),
                (Err(_), _) => return self.wrong("a number", key, node, faults),
            },
            _ => return self.wrong("a number", key, node, faults),
        };
        if number.is_nan() {
            return self.wrong("a number", key, node, faults);
        }
        self.within(
            key,
            number,
            &range,
            |number| format!("{number}"),
            node,
            faults,
        )
    }

    /// A duration within the range, written `250ms`, `10s`, `2m`, `1h`, `1d` or `1m30s`.
    pub fn duration(
        &self,
        key: &str,
        range: impl RangeBounds<Duration>,
        faults: &mut Faults,
    ) -> Option<Duration> {
        let node = self.value(key, faults)?;
        match &node.content {
            Content::Text(text) => match parse_duration(text) {
                Ok(duration) => {
                    let show = |duration: &Duration| HumanDuration(*duration).to_string();
                    self.within(key, duration, &range, show, node, faults)
                }
                Err(why) => self.refuse_text(key, text, &why, node, faults),
            },
            Content::Integer(number) if !is_sensitive_key(key) => {
                let fault = self.expected("a duration", key, node);
                let help =
                    format!("a duration has a unit: write `\"{number}s\"` or `\"{number}ms\"`");
                faults.push(fault.with_help(help));
                None
            }
            _ => self.wrong("a duration such as `\"10s\"`", key, node, faults),
        }
    }

    /// A duration of more than zero.
    pub fn nonzero_duration(&self, key: &str, faults: &mut Faults) -> Option<Duration> {
        let positive = (Bound::Excluded(Duration::ZERO), Bound::Unbounded);
        self.duration(key, positive, faults)
    }

    /// A size in bytes within the range, written `512B`, `64KiB` or `10MB`; a plain number is
    /// bytes.
    pub fn size(
        &self,
        key: &str,
        range: impl RangeBounds<u64>,
        faults: &mut Faults,
    ) -> Option<u64> {
        let node = self.value(key, faults)?;
        let bytes = match &node.content {
            Content::Text(text) => match parse_size(text) {
                Ok(bytes) => bytes,
                Err(why) => return self.refuse_text(key, text, &why, node, faults),
            },
            Content::Integer(number) if *number >= 0 => number.unsigned_abs(),
            _ => return self.wrong("a size such as `\"10MB\"`", key, node, faults),
        };
        self.within(
            key,
            bytes,
            &range,
            |bytes| format!("{bytes}B"),
            node,
            faults,
        )
    }

    /// One of the names.
    pub fn choice(
        &self,
        key: &str,
        names: &[&'static str],
        faults: &mut Faults,
    ) -> Option<&'static str> {
        let node = self.value(key, faults)?;
        let listed: Vec<String> = names.iter().map(|name| format!("`\"{name}\"`")).collect();
        let expected = match listed.as_slice() {
            [one] => one.clone(),
            _ => format!("one of {}", listed.join(", ")),
        };
        let Content::Text(text) = &node.content else {
            return self.wrong(&expected, key, node, faults);
        };
        if let Some(name) = names.iter().find(|name| **name == text.trim()) {
            return Some(name);
        }
        let fault = self.expected(&expected, key, node);
        faults.push(match suggest(text, names.iter().copied()) {
            Some(meant) => fault.with_help(format!("did you mean `\"{meant}\"`?")),
            None => fault,
        });
        None
    }

    /// A list of texts. Outside of a file it may also be one text with commas: `a,b`.
    pub fn strings(&self, key: &str, faults: &mut Faults) -> Option<Vec<String>> {
        let node = self.value(key, faults)?;
        match &node.content {
            Content::List(items) => {
                let mut texts = Vec::with_capacity(items.len());
                for item in items {
                    match &item.content {
                        Content::Text(text) => texts.push(text.clone()),
                        _ => return self.wrong("a list of texts", key, item, faults),
                    }
                }
                Some(texts)
            }
            Content::Text(text) if !node.is_strictly_typed() => Some(
                text.split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned)
                    .collect(),
            ),
            Content::Text(text) if !is_sensitive_key(key) => {
                let fault = self.expected("a list", key, node);
                faults.push(fault.with_help(format!("write `[\"{}\"]`", quoted(key, text))));
                None
            }
            _ => self.wrong("a list of texts", key, node, faults),
        }
    }

    /// A secret: a text, `{ file = ".." }` or `{ env = ".." }`.
    ///
    /// A text written out is kept out of [`Config::describe`](super::Config::describe) only when
    /// its key ends like a secret's (`password`, `secret`, `token`, `passphrase`, `private_key`,
    /// ...) or it is a URL with a password, so name the key accordingly.
    pub fn secret(&self, key: &str, faults: &mut Faults) -> Option<Secret> {
        const FORMS: &str = "a text, `{ file = \"..\" }` or `{ env = \"..\" }`";
        let node = self.value(key, faults)?;
        let name = self.path.child(key).to_string();
        let table = match &node.content {
            Content::Text(text) => return Some(Secret::literal(&name, text.as_str())),
            Content::Table(table) => table,
            _ => {
                // Whatever stands here may be the secret itself, without its quotes.
                let message = format!("must be {FORMS}");
                return self.refuse(key, node, message, faults);
            }
        };
        let mut entries = table.iter();
        match (entries.next(), entries.next()) {
            (Some((form, place)), None) => match (form.as_str(), &place.content) {
                ("file", Content::Text(path)) => Some(Secret::file(&name, path)),
                ("env", Content::Text(variable)) => Some(Secret::environment(&name, variable)),
                _ => self.refuse(key, node, format!("must be {FORMS}"), faults),
            },
            _ => self.refuse(key, node, format!("must be {FORMS}, and only one"), faults),
        }
    }

    /// The section below the key.
    pub fn section(&self, key: &str, faults: &mut Faults) -> Self {
        let path = self.path.child(key);
        match self.table.and_then(|table| table.get(key)) {
            Some(node) => self
                .open(path, key, node, faults)
                .unwrap_or_else(|path| Self::none(path, &node.origin)),
            None => {
                faults.asked.section(&path);
                Self::none(path, self.origin)
            }
        }
    }

    /// The sections below this one with their names, in the order of the names. A key that was
    /// read as a value before is not taken for one of them; any other value is a mistake.
    pub fn entries(&self, faults: &mut Faults) -> Vec<(&'a str, Self)> {
        faults.asked.section(&self.path);
        let mut entries = Vec::new();
        for (name, node) in self.table.into_iter().flatten() {
            if faults.asked.is_value(&self.path, name) {
                continue;
            }
            if let Ok(section) = self.open(self.path.child(name), name, node, faults) {
                entries.push((name.as_str(), section));
            }
        }
        entries
    }

    /// A mistake in the value of the key, at the place of the value; at the section's own place
    /// when the key is absent.
    pub fn fault(&self, key: &str, message: impl AsRef<str>) -> Fault {
        let origin = match self.table.and_then(|table| table.get(key)) {
            Some(node) => &node.origin,
            None => self.origin,
        };
        Fault::new(origin.clone(), self.path.child(key).to_string(), message)
    }

    /// Takes every key of the section, and of those below, for known without reading it: for
    /// settings whose reader cannot run, so that one mistake does not drag a dozen behind it.
    pub fn accept_all(&self, faults: &mut Faults) {
        faults.asked.whole(&self.path);
    }

    pub(super) fn at(root: &'a Table, path: KeyPath) -> Self {
        let mut table = root;
        let mut origin = &ABSENT;
        for key in path.keys() {
            match table.get(key) {
                Some(node) => match &node.content {
                    Content::Table(inner) => {
                        table = inner;
                        origin = &node.origin;
                    }
                    _ => return Self::none(path, &node.origin),
                },
                None => return Self::none(path, origin),
            }
        }
        Self {
            path,
            table: Some(table),
            origin,
        }
    }

    fn none(path: KeyPath, origin: &'a Origin) -> Self {
        Self {
            path,
            table: None,
            origin,
        }
    }

    fn open(
        &self,
        path: KeyPath,
        key: &str,
        node: &'a Node,
        faults: &mut Faults,
    ) -> Result<Self, KeyPath> {
        match &node.content {
            Content::Table(table) => {
                faults.asked.section(&path);
                Ok(Self {
                    path,
                    table: Some(table),
                    origin: &node.origin,
                })
            }
            _ => {
                // Two readers may open the same key; one of them reports it.
                if !faults.asked.is_value(&self.path, key) {
                    faults.asked.value(&self.path, key);
                    faults.push(not_a_table(&path, node));
                }
                Err(path)
            }
        }
    }

    fn value(&self, key: &str, faults: &mut Faults) -> Option<&'a Node> {
        faults.asked.value(&self.path, key);
        self.table?.get(key)
    }

    fn expected(&self, expected: &str, key: &str, node: &Node) -> Fault {
        let path = self.path.child(key);
        let message = format!("must be {expected}, not {}", shown(&path, node));
        Fault::new(node.origin.clone(), path.to_string(), message)
    }

    fn wrong<T>(&self, expected: &str, key: &str, node: &Node, faults: &mut Faults) -> Option<T> {
        faults.push(self.expected(expected, key, node));
        None
    }

    fn quoted_by_mistake<T>(
        &self,
        expected: &str,
        key: &str,
        node: &Node,
        faults: &mut Faults,
    ) -> Option<T> {
        let fault = self.expected(expected, key, node);
        faults.push(fault.with_help("write it without quotes"));
        None
    }

    fn refuse<T>(
        &self,
        key: &str,
        node: &Node,
        message: impl AsRef<str>,
        faults: &mut Faults,
    ) -> Option<T> {
        let path = self.path.child(key).to_string();
        faults.push(Fault::new(node.origin.clone(), path, message));
        None
    }

    fn refuse_text<T>(
        &self,
        key: &str,
        text: &str,
        why: &str,
        node: &Node,
        faults: &mut Faults,
    ) -> Option<T> {
        // The reason may quote a part of the text, which a secret in the wrong place must not.
        let message = if is_sensitive_key(key) {
            "cannot be read".to_owned()
        } else {
            format!("`{}` {why}", quoted(key, text))
        };
        self.refuse(key, node, message, faults)
    }

    fn within<T: PartialOrd>(
        &self,
        key: &str,
        value: T,
        range: &impl RangeBounds<T>,
        show: impl Fn(&T) -> String,
        node: &Node,
        faults: &mut Faults,
    ) -> Option<T> {
        let limit = match (range.start_bound(), range.end_bound()) {
            (Bound::Included(least), _) if value < *least => format!("at least {}", show(least)),
            (Bound::Excluded(least), _) if value <= *least => format!("more than {}", show(least)),
            (_, Bound::Included(most)) if value > *most => format!("at most {}", show(most)),
            (_, Bound::Excluded(most)) if value >= *most => format!("less than {}", show(most)),
            _ => return Some(value),
        };
        let message = if is_sensitive_key(key) {
            format!("must be {limit}")
        } else {
            format!("must be {limit}, not {}", show(&value))
        };
        self.refuse(key, node, message, faults)
    }
}

/// What to say about a number that the type of the setting cannot hold.
fn outside_of_type<T: Display>(number: i128, range: &impl RangeBounds<T>) -> String {
    let limit = if number < 0 {
        match range.start_bound() {
            Bound::Included(least) => format!("at least {least}"),
            Bound::Excluded(least) => format!("more than {least}"),
            Bound::Unbounded => return format!("is too small: {number}"),
        }
    } else {
        match range.end_bound() {
            Bound::Included(most) => format!("at most {most}"),
            Bound::Excluded(most) => format!("less than {most}"),
            Bound::Unbounded => return format!("is too large: {number}"),
        }
    };
    format!("must be {limit}, not {number}")
}

#[cfg(test)]
mod tests;
