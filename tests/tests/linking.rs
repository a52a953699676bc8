//! Registrations survive every way of building: profiles, link-time optimisation, codegen units,
//! linkers; and a crate that is not named is reported, not silently absent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use interline_tests::harness::{self, Case};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const LIMIT: Duration = Duration::from_secs(1_400);

/// A library whose handlers stand at the root, in a module, and deep in a private one.
const HANDLERS: &str = r#"
use interline::prelude::*;

interline::service!("handlers");

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "linking.tested", subscribers = optional)]
pub struct Tested;

#[subscriber(group = "root")]
pub async fn at_the_root(_: Tested) {}

pub mod open {
    use interline::prelude::*;
    #[subscriber(group = "open")]
    pub async fn in_a_module(_: super::Tested) {}
}

mod closed {
    mod deeper {
        use interline::prelude::*;
        #[subscriber(group = "deep")]
        async fn in_a_private_module(_: crate::Tested) {}
    }
}
"#;

/// A program that names the library.
const NAMES: &str = r#"
use interline::prelude::*;

fn main() -> interline::Result<()> {
    let app = App::new(Config::new().with("service.name", "names")).with(handlers::service());
    println!("{}", runtime::check(&app)?.banner());
    Ok(())
}
"#;

/// A program that only depends on it.
const FORGETS: &str = r#"
use interline::prelude::*;

fn main() -> interline::Result<()> {
    let app = App::new(Config::new().with("service.name", "forgets"));
    println!("{}", runtime::check(&app)?.banner());
    Ok(())
}
"#;

fn main() -> ExitCode {
    let builds: [(&str, &[&str], &str); 6] = [
        ("dev", &[], ""),
        ("release", &["--release"], ""),
        ("fat_lto_one_unit", &["--profile", "fat"], ""),
        ("thin_lto", &["--profile", "thin"], ""),
        ("many_units", &["--profile", "many"], ""),
        ("other_linker", &[], "-Clinker-features=-lld"),
    ];
    let cases = builds.map(|(name, options, flags)| {
        Case::blocking(
            format!("handlers_are_found_when_built_as::{name}"),
            move || all_are_found(options, flags),
        )
        .limit(LIMIT)
    });
    let forgotten = Case::blocking("a_crate_that_is_not_named_is_an_error", forgotten).limit(LIMIT);
    harness::run(cases.into_iter().chain([forgotten]))
}

fn all_are_found(options: &[&str], flags: &str) -> Outcome {
    let output = cargo("names", options, flags)?.output()?;
    let (text, errors) = (
        String::from_utf8(output.stdout)?,
        String::from_utf8(output.stderr)?,
    );
    assert!(output.status.success(), "{errors}");
    for handler in ["at_the_root", "in_a_module", "in_a_private_module"] {
        assert!(text.contains(handler), "`{handler}` is missing in\n{text}");
    }
    Ok(())
}

fn forgotten() -> Outcome {
    let output = cargo("forgets", &[], "")?.output()?;
    let errors = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("nothing to run"), "{errors}");
    Ok(())
}

/// `cargo run` of one of the programs, in a workspace of its own.
fn cargo(
    program: &str,
    options: &[&str],
    flags: &str,
) -> Result<Command, Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("a folder around the tests")?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), |folder| root.join(folder));
    let folder = target.join("linking");
    write(&folder, root)?;
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command
        .args(["run", "--quiet", "-p", program])
        .args(options)
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env("RUSTFLAGS", flags)
        .env_remove("RUST_BACKTRACE");
    Ok(command)
}

fn write(folder: &Path, root: &Path) -> Outcome {
    let dependency = format!(
        "interline = {{ path = {:?} }}\nserde = {{ version = \"1\", features = [\"derive\"] }}",
        root.join("runtime")
    );
    let package = |name: &str, dependencies: &str| {
        format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n{dependency}\n{dependencies}"
        )
    };
    let with_handlers = "handlers = { path = \"../handlers\" }\n";
    let workspace = "[workspace]\nresolver = \"3\"\nmembers = [\"handlers\", \"names\", \"forgets\"]\n\n\
        [profile.release]\nopt-level = 1\n\n\
        [profile.fat]\ninherits = \"release\"\nlto = \"fat\"\ncodegen-units = 1\n\n\
        [profile.thin]\ninherits = \"release\"\nlto = \"thin\"\n\n\
        [profile.many]\ninherits = \"release\"\ncodegen-units = 256\n";
    let files = [
        (PathBuf::from("Cargo.toml"), workspace.to_owned()),
        ("handlers/Cargo.toml".into(), package("handlers", "")),
        ("handlers/src/lib.rs".into(), HANDLERS.to_owned()),
        ("names/Cargo.toml".into(), package("names", with_handlers)),
        ("names/src/main.rs".into(), NAMES.to_owned()),
        (
            "forgets/Cargo.toml".into(),
            package("forgets", with_handlers),
        ),
        ("forgets/src/main.rs".into(), FORGETS.to_owned()),
    ];
    for (path, text) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        // An unchanged file keeps its time, and cargo its build.
        if fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            fs::write(&path, text)?;
        }
    }
    let lock = folder.join("Cargo.lock");
    if !lock.exists() {
        fs::copy(root.join("Cargo.lock"), lock)?;
    }
    Ok(())
}
