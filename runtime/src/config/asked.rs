use std::collections::BTreeMap;

use super::fault::{Fault, Faults};
use super::path::KeyPath;
use super::suggest::suggest;
use super::value::{Content, Node, Table};

/// How many known keys are listed when none resembles the unknown one.
const LISTED_MAX: usize = 8;

/// The keys that were asked for, as a tree of the shape of the configuration.
#[derive(Debug, Default)]
pub(super) struct Asked {
    keys: BTreeMap<String, Asked>,
    as_value: bool,
    whole: bool,
}

impl Asked {
    /// The key was read as a value: whatever is wrong with it has been said.
    pub(super) fn value(&mut self, section: &KeyPath, key: &str) {
        self.at(section.keys()).at(&[key]).as_value = true;
    }

    /// The key was opened as a section.
    pub(super) fn section(&mut self, path: &KeyPath) {
        self.at(path.keys());
    }

    /// Everything below is somebody else's, or a consequence of another mistake.
    pub(super) fn whole(&mut self, path: &KeyPath) {
        self.at(path.keys()).whole = true;
    }

    pub(super) fn is_value(&self, section: &KeyPath, key: &str) -> bool {
        let mut asked = self;
        for part in section.keys().iter().map(String::as_str).chain([key]) {
            match asked.keys.get(part) {
                Some(next) => asked = next,
                None => return false,
            }
        }
        asked.as_value
    }

    fn at(&mut self, path: &[impl AsRef<str>]) -> &mut Self {
        path.iter().fold(self, |asked, key| {
            asked.keys.entry(key.as_ref().to_owned()).or_default()
        })
    }
}

/// Reports what stands in the table and was never asked for.
pub(super) fn report_unknown(table: &Table, faults: &mut Faults) {
    let mut found = Vec::new();
    unknown_in(table, &KeyPath::default(), &faults.asked, &mut found);
    for fault in found {
        faults.push(fault);
    }
}

fn unknown_in(table: &Table, path: &KeyPath, asked: &Asked, found: &mut Vec<Fault>) {
    if asked.whole {
        return;
    }
    for (key, node) in table {
        match (asked.keys.get(key), &node.content) {
            (None, _) => found.push(unknown(key, node, path, asked)),
            (Some(known), _) if known.as_value => {}
            (Some(known), Content::Table(inner)) => {
                unknown_in(inner, &path.child(key), known, found);
            }
            (Some(_), _) => found.push(not_a_table(&path.child(key), node)),
        }
    }
}

fn unknown(key: &str, node: &Node, path: &KeyPath, asked: &Asked) -> Fault {
    let here = path.child(key);
    let is_table = matches!(node.content, Content::Table(_));
    let what = match (path.keys().is_empty(), is_table) {
        (true, true) => format!("unknown section [{here}]"),
        (true, false) => format!("unknown key `{key}`"),
        (false, true) => format!("unknown section `{key}` in [{path}]"),
        (false, false) => format!("unknown key `{key}` in [{path}]"),
    };
    let fault = Fault::new(node.origin.clone(), here.to_string(), what);
    let known = asked.keys.keys().map(String::as_str);
    if let Some(meant) = suggest(key, known.clone()) {
        fault.with_help(format!("did you mean `{meant}`?"))
    } else if (1..=LISTED_MAX).contains(&asked.keys.len()) {
        let listed: Vec<&str> = known.collect();
        fault.with_help(format!("known here: {}", listed.join(", ")))
    } else {
        fault
    }
}

pub(super) fn not_a_table(path: &KeyPath, node: &Node) -> Fault {
    let message = format!(
        "must be a section, not {}",
        super::describe::shown(path, node)
    );
    Fault::new(node.origin.clone(), path.to_string(), message)
        .with_help(format!("write [{path}] and its keys below it"))
}
