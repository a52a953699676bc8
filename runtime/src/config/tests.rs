use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A directory of its own for one test, removed at its end.
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "interline-config-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        self.write_bytes(name, text.as_bytes())
    }

    pub(super) fn write_bytes(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn load(&self, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let variables = variables
            .iter()
            .map(|(n, v)| (OsString::from(n), OsString::from(v)));
        Config::load_from(&self.0, variables.collect())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn report(result: Result<Config, ConfigError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn nothing_configured_is_an_empty_configuration() {
    let config = Directory::new().load(&[("HOME", "/root")]).unwrap();
    assert_eq!(config.describe(), "");
    assert_eq!(format!("{config:?}"), "{}");
}

#[test]
fn each_layer_stands_above_the_one_before() {
    let directory = Directory::new();
    directory.write("interline.toml", "[ignored]\nx = 1");
    directory.write(
        "base.toml",
        "[s]\na = 1\nb = 1\nc = 1\nd = 1\nlist = [1, 2]",
    );
    directory.write("site.toml", "[s]\nb = 2\nc = 2\nd = 2\nlist = [3]");
    let mut config = directory
        .load(&[
            ("INTERLINE_CONFIG", "base.toml,site.toml"),
            ("INTERLINE__S__C", "3"),
            ("INTERLINE__S__D", "3"),
        ])
        .unwrap();
    config.set("s.d", 4);
    let line = line!() - 1;
    assert_eq!(
        config.describe(),
        format!(
            "s.a = 1       # base.toml:2:1\n\
             s.b = 2       # site.toml:2:1\n\
             s.c = \"3\"     # environment variable INTERLINE__S__C\n\
             s.d = 4       # code at {}:{line}:12\n\
             s.list = [3]  # site.toml:5:1\n",
            file!()
        )
    );
}

#[test]
fn the_file_of_the_working_directory_is_read_when_none_is_named() {
    let directory = Directory::new();
    directory.write("interline.toml", "[s]\na = 1");
    let expected = "s.a = 1  # interline.toml:2:1\n";
    assert_eq!(directory.load(&[]).unwrap().describe(), expected);
    let unnamed = directory.load(&[("INTERLINE_CONFIG", "")]).unwrap();
    assert_eq!(unnamed.describe(), expected);
}

#[test]
fn mistakes_of_all_files_are_reported_together() {
    let directory = Directory::new();
    directory.write("a.toml", "x = 1\ny = \n");
    directory.write("b.toml", "[s\n");
    directory.write_bytes("c.toml", b"a = 1\nb = '\xff'\n");
    directory.write("d.toml", &"#".repeat((1 << 20) + 1));
    let result = directory.load(&[
        (
            "INTERLINE_CONFIG",
            "a.toml,b.toml,c.toml,d.toml,missing.toml",
        ),
        ("INTERLINE__", "x"),
    ]);
    let error = result.as_ref().unwrap_err();
    assert!(std::error::Error::source(error).is_some());
    let report = report(result);
    for part in [
        "6 mistakes in the configuration\n",
        "\na.toml:2:5  is not TOML: ",
        "\n    | y = \n",
        "\nb.toml:1:3  is not TOML: ",
        "\nc.toml:2:6  is not UTF-8 text",
        "\nd.toml:1:1  is longer than 1 MiB",
        "\nmissing.toml:1:1  cannot be read: ",
        "\nenvironment variable INTERLINE__  has a level without a name",
    ] {
        assert!(report.contains(part), "{part} in {report}");
    }
}

#[test]
fn a_file_by_its_path() {
    let directory = Directory::new();
    let path = directory.write("x.toml", "a = 1");
    let config = Config::from_file(&path).unwrap();
    assert_eq!(
        config.describe(),
        format!("a = 1  # {}:1:1\n", path.display())
    );
    let missing = Config::from_file("/nowhere/x.toml");
    assert!(report(missing).contains("/nowhere/x.toml:1:1  cannot be read"));
}

#[test]
fn a_value_in_one_layer_and_a_section_in_another_are_a_fault_that_names_both() {
    let directory = Directory::new();
    directory.write("interline.toml", "[brokers.main]\nurl = 'x'\nvhost = 'y'\n");
    assert_eq!(
        report(directory.load(&[("INTERLINE__BROKERS__MAIN", "x"),])),
        "1 mistake in the configuration\n\
         environment variable INTERLINE__BROKERS__MAIN  brokers.main  is a value here but a section \
         in interline.toml:1:10\n    help: remove one of the two"
    );
    assert_eq!(
        report(directory.load(&[("INTERLINE__BROKERS__MAIN__URL__HOST", "x"),])),
        "1 mistake in the configuration\n\
         environment variable INTERLINE__BROKERS__MAIN__URL__HOST  brokers.main.url  is a section \
         here but a value in interline.toml:2:1\n    help: remove one of the two"
    );
}

#[test]
fn a_secret_is_replaced_whole_in_whichever_form() {
    let forms = ["'canary'", "{ file = '/a' }", "{ env = 'A' }"];
    for lower in forms {
        for upper in forms {
            let config = |name: &str, form: &str| {
                Config::from_toml(name, &format!("s.password = {form}")).unwrap()
            };
            let merged = config("a", lower).merge(config("b", upper)).unwrap();
            let mut faults = Faults::new();
            let read = merged.section("s").secret("password", &mut faults).unwrap();
            let mut alone_faults = Faults::new();
            let alone = config("b", upper);
            let alone = alone
                .section("s")
                .secret("password", &mut alone_faults)
                .unwrap();
            assert!(faults.is_empty(), "{faults:?}");
            assert_eq!(read.to_string(), alone.to_string());
        }
    }
    let file = Config::from_toml("a", "s.password = 'canary'").unwrap();
    let variables = [("INTERLINE__S__PASSWORD__FILE", "/run/x")];
    let merged = file
        .merge(Config::from_environment(variables).unwrap())
        .unwrap();
    assert_eq!(
        merged.describe(),
        "s.password.file = \"/run/x\"  # environment variable INTERLINE__S__PASSWORD__FILE\n"
    );
}

#[test]
fn the_environment_reaches_names_it_cannot_spell() {
    let directory = Directory::new();
    directory.write(
        "interline.toml",
        "[brokers.eu-west]\nurl = 'x'\n[subscribers.sendReceipt]\nn = 1",
    );
    let config = directory
        .load(&[
            ("INTERLINE__BROKERS__EU_WEST__URL", "y"),
            ("INTERLINE__SUBSCRIBERS__SENDRECEIPT__N", "2"),
            ("INTERLINE__SUBSCRIBERS__OTHER__N", "3"),
        ])
        .unwrap();
    assert_eq!(
        format!("{config:?}"),
        "{brokers.eu-west.url: \"y\", subscribers.other.n: \"3\", subscribers.sendReceipt.n: \"2\"}"
    );

    directory.write("interline.toml", "[brokers.a-b]\n[brokers.A_B]\n");
    assert_eq!(
        report(directory.load(&[("INTERLINE__BROKERS__A_B__URL", "y")])),
        "1 mistake in the configuration\n\
         environment variable INTERLINE__BROKERS__A_B__URL  brokers.a_b  can mean `A_B` and `a-b`"
    );
    directory.write("interline.toml", "[brokers.a-b]\n[brokers.a_b]\n");
    let config = directory
        .load(&[("INTERLINE__BROKERS__A_B__URL", "y")])
        .unwrap();
    assert!(config.section("brokers.a_b").contains("url"));
}

#[test]
fn what_code_sets_wins_whatever_was_there() {
    let config = Config::from_toml("f", "a = 1\n[b.c]\nd = 1").unwrap();
    let config = config
        .with("a.x", 1)
        .with("b.c", 2)
        .with("routes.\"audit.*\"", "audit");
    assert_eq!(
        format!("{config:?}"),
        "{a.x: 1, b.c: 2, routes.\"audit.*\": \"audit\"}"
    );
}

#[test]
fn every_kind_of_value_can_be_set() {
    let config = Config::new()
        .with("text", "a")
        .with("string", String::from("b"))
        .with("truth", true)
        .with("i32", -1)
        .with("i64", 5_000_000_000_i64)
        .with("u16", 1_u16)
        .with("u32", 2_u32)
        .with("float", 1.0)
        .with("duration", std::time::Duration::from_millis(90_250))
        .with("list", vec!["a", "b"]);
    assert_eq!(
        format!("{config:?}"),
        "{duration: \"1m30s250ms\", float: 1.0, i32: -1, i64: 5000000000, list: [\"a\", \"b\"], \
         string: \"b\", text: \"a\", truth: true, u16: 1, u32: 2}"
    );
    assert_eq!(format!("{:?}", Value::from("canary")), "Value(text)");
}

#[test]
fn no_secret_is_printed() {
    let config = Config::from_toml(
        "f",
        "[brokers.main]\nurl = 'amqp://u:canary@h'\npassword = 'canary'\ntoken = 7531\n\
         hosts = ['amqp://u:canary@h', 'b']\n[brokers.main.tls]\nkey_passphrase = 'canary'\n\
         key = '''-----BEGIN PRIVATE KEY-----\ncanary'''\n[client]\nsecret = ['canary']\n\
         password = { file = '/run/x' }\n",
    )
    .unwrap()
    .with("client.api_key", "canary");
    for shown in [config.describe(), format!("{config:?} {config:#?}")] {
        assert!(
            !shown.contains("canary") && !shown.contains("7531"),
            "{shown}"
        );
        assert!(
            shown.contains("amqp://u:***@h") && shown.contains("/run/x"),
            "{shown}"
        );
    }
}

#[test]
fn what_is_described_is_toml_with_the_same_values() {
    let text =
        "a = \"x\\n\\\"y\\\"\"\nb = [1, [2.5, true]]\n\"ü.*\" = { c = [{ d = 1 }], e = {} }\n";
    let config = Config::from_toml("f", text).unwrap();
    let again = Config::from_toml("g", &config.describe()).unwrap();
    assert_eq!(format!("{again:?}"), format!("{config:?}"));
}

#[test]
fn random_text_is_read_or_refused_and_never_crashes() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let pieces = [
        "a", "b", ".", " = ", "1", "'", "\"", "\"\"\"", "[", "]", "[[", "]]", "{", "}", ",", "\n",
        "\r\n", "#", "ü", "\t", "-", "_", "true", "1.5", "://", "@", "password", "\u{0}", "\\",
    ];
    for _ in 0..20_000 {
        let text: String = (0..random.usize(..40))
            .map(|_| pieces[random.usize(..pieces.len())])
            .collect();
        if let Ok(config) = Config::from_toml("f", &text) {
            let mut faults = Faults::new();
            config.finish(&mut faults);
            let _ = config.describe();
        }
    }
}
