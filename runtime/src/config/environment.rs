use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;

use super::fault::{Fault, Faults};
use super::origin::Origin;
use super::path::KeyPath;
use super::value::{Content, DEPTH_MAX, Node, Table, collision};

pub(super) const PREFIX: &str = "INTERLINE__";
pub(super) const FILES_VARIABLE: &str = "INTERLINE_CONFIG";

/// Makes a tree of the variables that begin with the prefix. All others are left alone.
pub(super) fn read(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    faults: &mut Faults,
) -> Table {
    let mut ours: Vec<(String, OsString)> = variables
        .into_iter()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    // The order of an environment is arbitrary; a report must not be.
    ours.sort();
    let mut table = Table::new();
    for (name, value) in ours {
        if let Err(fault) = insert(&mut table, &name, value) {
            faults.push(*fault);
        }
    }
    table
}

/// The files that the variable names, separated like the directories of `PATH` or by commas.
pub(super) fn files(variable: &OsStr) -> Vec<PathBuf> {
    std::env::split_paths(variable)
        .flat_map(|path| match path.to_str() {
            Some(text) => text
                .split(',')
                .map(|part| PathBuf::from(part.trim()))
                .collect(),
            None => vec![path],
        })
        .filter(|path| !path.as_os_str().is_empty())
        .collect()
}

fn insert(table: &mut Table, name: &str, value: OsString) -> Result<(), Box<Fault>> {
    let origin = Origin::Environment(Arc::from(name));
    let fault = |message: &str, help: &str| {
        Box::new(Fault::new(origin.clone(), "", message).with_help(help))
    };
    let levels: Vec<String> = name[PREFIX.len()..]
        .split("__")
        .map(str::to_lowercase)
        .collect();
    if levels.iter().any(String::is_empty) {
        return Err(fault(
            "has a level without a name",
            "two underscores separate levels, as in INTERLINE__BROKERS__MAIN__URL",
        ));
    }
    if levels.len() > DEPTH_MAX {
        return Err(fault(
            "has too many levels",
            "two underscores separate levels, as in INTERLINE__BROKERS__MAIN__URL",
        ));
    }
    let Ok(text) = value.into_string() else {
        return Err(fault(
            "is not UTF-8 text",
            "put binary secrets into a file and name it with `__FILE`",
        ));
    };
    let (last, sections) = levels.split_last().expect("split yields at least one part");

    let mut path = KeyPath::default();
    let mut inner = table;
    for section in sections {
        path = path.child(section);
        let node = inner
            .entry(section.clone())
            .or_insert_with(|| Node::table(origin.clone()));
        let Content::Table(table) = &mut node.content else {
            let existing = &node.origin;
            return Err(Box::new(collision(
                &path,
                origin,
                "a section",
                "a value",
                existing,
            )));
        };
        inner = table;
    }
    path = path.child(last);
    if let Some(existing) = inner.get(last) {
        let lower = match existing.content {
            Content::Table(_) => "a section",
            _ => "also a value",
        };
        return Err(Box::new(collision(
            &path,
            origin,
            "a value",
            lower,
            &existing.origin,
        )));
    }
    let content = Content::Text(text);
    inner.insert(last.clone(), Node { origin, content });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::describe::describe;
    use super::*;

    fn read_all(variables: &[(&str, &str)]) -> (String, Faults) {
        let mut faults = Faults::new();
        let variables = variables
            .iter()
            .map(|(n, v)| (OsString::from(n), OsString::from(v)));
        let table = read(variables, &mut faults);
        (describe(&table), faults)
    }

    #[test]
    fn two_underscores_are_a_level_and_one_belongs_to_the_name() {
        let (described, faults) = read_all(&[
            ("INTERLINE__SUBSCRIBERS__SEND_RECEIPT__TIMEOUT", "10s"),
            ("INTERLINE__BROKERS__MAIN__URL", "amqp://h"),
            ("INTERLINE__RUN__ONLY", ""),
            ("INTERLINE_CONFIG", "x.toml"),
            ("INTERLINE_TEST_RABBITMQ_URL", "amqp://h"),
            ("MYINTERLINE__A", "1"),
            ("PATH", "/bin"),
        ]);
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(
            described,
            "brokers.main.url = \"amqp://h\"             # environment variable INTERLINE__BROKERS__MAIN__URL\n\
             run.only = \"\"                             # environment variable INTERLINE__RUN__ONLY\n\
             subscribers.send_receipt.timeout = \"10s\"  # environment variable INTERLINE__SUBSCRIBERS__SEND_RECEIPT__TIMEOUT\n"
        );
    }

    #[test]
    fn a_value_and_a_section_at_one_path_are_a_fault_that_names_both() {
        for variables in [
            [
                ("INTERLINE__BROKERS__MAIN", "x"),
                ("INTERLINE__BROKERS__MAIN__URL", "y"),
            ],
            [
                ("INTERLINE__BROKERS__MAIN__URL", "y"),
                ("INTERLINE__BROKERS__MAIN", "x"),
            ],
        ] {
            let (_, faults) = read_all(&variables);
            assert_eq!(
                faults.into_result().unwrap_err().to_string(),
                "1 mistake in the configuration\n\
                 environment variable INTERLINE__BROKERS__MAIN__URL  brokers.main  is a section here \
                 but a value in environment variable INTERLINE__BROKERS__MAIN\n    \
                 help: remove one of the two"
            );
        }
    }

    #[test]
    fn two_spellings_of_one_variable_are_a_fault() {
        let (_, faults) = read_all(&[("INTERLINE__RUN", "1"), ("INTERLINE__run", "2")]);
        let report = faults.into_result().unwrap_err().to_string();
        assert!(
            report.contains(
                "environment variable INTERLINE__run  run  is a value here but also a value in \
                 environment variable INTERLINE__RUN"
            ),
            "{report}"
        );
        let (_, faults) = read_all(&[("INTERLINE__A__b", "1"), ("INTERLINE__a__B__C", "2")]);
        assert_eq!(faults.len(), 1);
    }

    #[test]
    fn names_without_a_level_are_faults() {
        for name in ["INTERLINE__", "INTERLINE__A____B", "INTERLINE__A__"] {
            let (_, faults) = read_all(&[(name, "x")]);
            let report = faults.into_result().unwrap_err().to_string();
            assert!(
                report.contains(&format!("{name}  has a level without a name")),
                "{report}"
            );
        }
        let deep = format!("INTERLINE__{}", vec!["A"; 100_000].join("__"));
        let (_, faults) = read_all(&[(&deep, "x")]);
        assert_eq!(
            faults.iter().next().unwrap().message(),
            "has too many levels"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_text_is_a_fault_without_the_value() {
        use std::os::unix::ffi::OsStringExt as _;
        let mut faults = Faults::new();
        let value = OsString::from_vec(b"canary\xff".to_vec());
        read([(OsString::from("INTERLINE__A"), value)], &mut faults);
        let report = faults.into_result().unwrap_err().to_string();
        assert!(
            report.contains("environment variable INTERLINE__A  is not UTF-8 text"),
            "{report}"
        );
        assert!(!report.contains("canary"));
    }

    #[cfg(unix)]
    #[test]
    fn files_are_separated_by_colons_or_commas() {
        let paths = |text: &str| files(OsStr::new(text));
        assert_eq!(
            paths("a.toml:/b/c.toml"),
            [PathBuf::from("a.toml"), PathBuf::from("/b/c.toml")]
        );
        assert_eq!(
            paths("a.toml, b.toml,"),
            [PathBuf::from("a.toml"), PathBuf::from("b.toml")]
        );
        assert!(paths("").is_empty());
    }
}
