use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::fault::{Fault, Faults};
use super::origin::Origin;
use super::path::KeyPath;
use super::suggest::fold;
use super::units::HumanDuration;

/// How deep tables and lists may be nested. No setting is deeper than a handful; the bound keeps
/// every walk over the tree from exhausting the stack.
pub(super) const DEPTH_MAX: usize = 32;

pub(super) type Table = BTreeMap<String, Node>;

/// A value with the place where it was written.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) content: Content,
}

#[derive(Clone)]
pub(super) enum Content {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    List(Vec<Node>),
    Table(Table),
}

/// A value that a program puts into its configuration with [`Config::set`](super::Config::set).
///
/// Made by `into()` from text, numbers, booleans, a [`Duration`] and lists of these. Its `Debug`
/// shows only the kind, because what is set may be a secret.
#[derive(Clone)]
pub struct Value(Plain);

#[derive(Clone)]
enum Plain {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    List(Vec<Value>),
}

impl Node {
    pub(super) fn table(origin: Origin) -> Self {
        Self {
            origin,
            content: Content::Table(Table::new()),
        }
    }

    /// A TOML file says by its syntax what kind a value is of. An environment variable cannot,
    /// and a program's own configuration may have come from one.
    pub(super) fn is_strictly_typed(&self) -> bool {
        matches!(self.origin, Origin::File { .. })
    }
}

impl Value {
    pub(super) fn into_node(self, origin: &Origin) -> Node {
        let content = match self.0 {
            Plain::Text(text) => Content::Text(text),
            Plain::Integer(number) => Content::Integer(number),
            Plain::Float(number) => Content::Float(number),
            Plain::Boolean(truth) => Content::Boolean(truth),
            Plain::List(items) => Content::List(
                items
                    .into_iter()
                    .map(|item| item.into_node(origin))
                    .collect(),
            ),
        };
        Node {
            origin: origin.clone(),
            content,
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Plain::Text(_) => "Value(text)",
            Plain::Integer(_) => "Value(integer)",
            Plain::Float(_) => "Value(float)",
            Plain::Boolean(_) => "Value(boolean)",
            Plain::List(_) => "Value(list)",
        })
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(Plain::Text(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self(Plain::Text(text))
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self(Plain::Boolean(truth))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self(Plain::Integer(number))
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self(Plain::Integer(number.into()))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self(Plain::Integer(number.into()))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self(Plain::Integer(number.into()))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self(Plain::Float(number))
    }
}

impl From<Duration> for Value {
    fn from(duration: Duration) -> Self {
        Self(Plain::Text(HumanDuration(duration).to_string()))
    }
}

impl<T: Into<Self>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        Self(Plain::List(items.into_iter().map(Into::into).collect()))
    }
}

impl<T: Into<Self>, const N: usize> From<[T; N]> for Value {
    fn from(items: [T; N]) -> Self {
        Self(Plain::List(items.into_iter().map(Into::into).collect()))
    }
}

/// Puts a value at the end of the path, making the tables on the way; a value that stands in the
/// way is replaced.
pub(super) fn put(table: &mut Table, path: &[String], value: Node) {
    match path {
        [] => {}
        [key] => {
            table.insert(key.clone(), value);
        }
        [key, below @ ..] => {
            let node = table
                .entry(key.clone())
                .or_insert_with(|| Node::table(value.origin.clone()));
            if let Content::Table(inner) = &mut node.content {
                put(inner, below, value);
            } else {
                *node = Node::table(value.origin.clone());
                put(table, path, value);
            }
        }
    }
}

/// Puts the values of `over` above those of `base`. A value that meets a table is a mistake,
/// since one of the two would silently lose everything it says.
pub(super) fn merge(base: &mut Table, over: Table, path: &KeyPath, faults: &mut Faults) {
    for (name, node) in over {
        let here = path.child(&name);
        let Some(name) = name_in_base(base, name, &node.origin, &here, faults) else {
            continue;
        };
        let Some(existing) = base.get_mut(&name) else {
            base.insert(name, node);
            continue;
        };
        match (&mut existing.content, node.content) {
            (Content::Table(lower), Content::Table(upper))
                if !(is_reference(lower) && is_reference(&upper)) =>
            {
                merge(lower, upper, &path.child(&name), faults);
            }
            (Content::Table(lower), upper)
                if !matches!(upper, Content::Table(_)) && !is_reference(lower) =>
            {
                faults.push(collision(
                    &here,
                    node.origin,
                    "a value",
                    "a section",
                    &existing.origin,
                ));
            }
            (lower, Content::Table(upper))
                if !matches!(lower, Content::Table(_)) && !is_reference(&upper) =>
            {
                faults.push(collision(
                    &here,
                    node.origin,
                    "a section",
                    "a value",
                    &existing.origin,
                ));
            }
            (lower, upper) => {
                *lower = upper;
                existing.origin = node.origin;
            }
        }
    }
}

pub(super) fn collision(
    key: &KeyPath,
    origin: Origin,
    upper: &str,
    lower: &str,
    existing: &Origin,
) -> Fault {
    Fault::new(
        origin,
        key.to_string(),
        format!("is {upper} here but {lower} in {existing}"),
    )
    .with_help("remove one of the two")
}

/// `{ file = ".." }` and `{ env = ".." }` stand where a text could stand.
fn is_reference(table: &Table) -> bool {
    table.len() == 1
        && table.iter().all(|(key, node)| {
            matches!(key.as_str(), "file" | "env") && matches!(node.content, Content::Text(_))
        })
}

/// The name that a layer means. An environment variable cannot write `eu-west` or `sendReceipt`,
/// so it reaches them as `EU_WEST` and `SENDRECEIPT`.
fn name_in_base(
    base: &Table,
    name: String,
    origin: &Origin,
    path: &KeyPath,
    faults: &mut Faults,
) -> Option<String> {
    if !matches!(origin, Origin::Environment(_)) || base.contains_key(&name) {
        return Some(name);
    }
    let mut same = base.keys().filter(|key| fold(key) == fold(&name));
    match (same.next(), same.next()) {
        (None, _) => Some(name),
        (Some(only), None) => Some(only.clone()),
        (Some(first), Some(second)) => {
            faults.push(Fault::new(
                origin.clone(),
                path.to_string(),
                format!("can mean `{first}` and `{second}`"),
            ));
            None
        }
    }
}
