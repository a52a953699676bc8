//! The table of what each kind of broker guarantees, as the cases say it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::bench::PLACES;
use crate::exceptions;

/// Between these lines of the document the table stands.
const BEGIN: &str = "<!-- begin: written by tests/tests/app_conformance -->\n";
const END: &str = "<!-- end -->\n";

/// Compares the table in the document with the cases, or writes it when `INTERLINE_RECORD` is set.
pub(crate) fn compare(cases: &[&str]) -> Result<(), String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guarantees.md");
    let document = fs::read_to_string(&file).map_err(|error| error.to_string())?;
    let parts = document
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?)));
    let (before, (found, after)) = parts.ok_or("docs/guarantees.md has no place for the table")?;
    let table = table(cases);
    if found == table {
        return Ok(());
    }
    if std::env::var_os("INTERLINE_RECORD").is_some() {
        let document = format!("{before}{BEGIN}{table}{END}{after}");
        return fs::write(&file, document).map_err(|error| error.to_string());
    }
    Err(format!(
        "docs/guarantees.md is not what the cases say; set INTERLINE_RECORD=1 to write it:\n{table}"
    ))
}

fn table(cases: &[&str]) -> String {
    let mut reasons: Vec<&str> = Vec::new();
    let mut table = String::from("\n| |");
    for place in PLACES {
        // Writing into a string cannot fail.
        let _ = write!(table, " {} |", place.kind);
    }
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(PLACES.len()));
    let mut sorted = cases.to_vec();
    sorted.sort_unstable();
    for case in sorted {
        let _ = write!(table, "\n| {} |", case.replace('_', " "));
        for place in PLACES {
            match exceptions::because(case, place.kind) {
                None => table.push_str(" yes |"),
                Some(reason) => {
                    let known = reasons.iter().position(|known| *known == reason);
                    let at = known.unwrap_or_else(|| {
                        reasons.push(reason);
                        reasons.len() - 1
                    });
                    let _ = write!(table, " no ({}) |", at + 1);
                }
            }
        }
    }
    table.push_str("\n\n");
    for (at, reason) in reasons.iter().enumerate() {
        let _ = writeln!(table, "{}. {reason}", at + 1);
    }
    table.push('\n');
    table
}
