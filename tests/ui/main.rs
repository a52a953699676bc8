//! Mistakes in the use of the macros: each is refused, with a text that says what to write, and as
//! one error. What must compile is beside them.
//!
//! The texts are those of the pinned toolchain; `TRYBUILD=overwrite` writes them anew.

use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn mistakes_are_refused_and_everything_else_compiles() {
    if !is_pinned_toolchain() {
        // Where everything has to be proved, a test that was skipped has failed.
        let required = std::env::var_os("INTERLINE_TEST_REQUIRE_SERVERS").is_some();
        assert!(
            !required,
            "the texts of errors are those of the toolchain in rust-toolchain.toml"
        );
        eprintln!("skipped: the texts of errors are those of the pinned toolchain");
        return;
    }
    let cases = trybuild::TestCases::new();
    cases.pass("ui/pass/*.rs");
    cases.compile_fail("ui/fail/*.rs");
}

#[test]
fn each_mistake_is_as_many_errors_as_its_case_says() {
    let mut wrong = Vec::new();
    let cases = files("ui/fail", "rs");
    assert!(cases.len() > 80, "only {} cases were found", cases.len());
    for case in &cases {
        let source = read(case);
        let first = source.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("// "),
            "{}: the first line says what is wrong",
            case.display()
        );
        let stated = source.lines().find_map(|line| {
            let stated = line.strip_prefix("//~ ")?;
            stated.split(' ').next()?.parse::<usize>().ok()
        });
        let errors = read(&case.with_extension("stderr"));
        let found = errors
            .lines()
            .filter(|line| line.starts_with("error: ") || line.starts_with("error["))
            .count();
        if stated != Some(found) {
            wrong.push(format!(
                "{}: {found} errors, {stated:?} stated",
                case.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_text_is_left_without_its_case() {
    for text in files("ui/fail", "stderr") {
        assert!(
            text.with_extension("rs").exists(),
            "{} has no case",
            text.display()
        );
    }
}

fn is_pinned_toolchain() -> bool {
    let pinned = read(&root().join("../rust-toolchain.toml"));
    let channel = pinned
        .lines()
        .find_map(|line| line.strip_prefix("channel = "))
        .map(|channel| channel.trim_matches('"').to_owned())
        .expect("rust-toolchain.toml names a channel");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .arg("--version")
        .output()
        .expect("rustc runs");
    let version = String::from_utf8_lossy(&output.stdout);
    version.starts_with(&format!("rustc {channel}"))
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = root().join(folder).read_dir().expect("the folder of cases");
    let paths = entries.map(|entry| entry.expect("an entry of the folder of cases").path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
