//! How many crates a program consists of: each is time that everybody who builds it waits.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The crates of the smallest program, itself and what builds it included, on this system. The lock
/// file is that of the workspace, so the number changes only with it.
pub(crate) fn of_quickstart(options: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--locked", "--quiet", "--package", "quickstart"])
        .args(["--edges", "normal,build", "--prefix", "none", "--no-dedupe"])
        .args(["--format", "{p}"])
        .args(options)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("cargo writes text");
    // Behind name and version stands where it comes from.
    let name_and_version = |line: &str| {
        let mut words = line.split(' ');
        Some(format!("{} {}", words.next()?, words.next()?))
    };
    text.lines().filter_map(name_and_version).collect()
}
