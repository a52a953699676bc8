//! The rules of the house: rooms use only what lies below them, adapters only the port, client
//! crates stay in their folders, and public signatures show only our own types.

mod arrows;
mod crates;
mod documented;
mod rules;
mod signatures;
mod source;

use std::path::Path;

use source::Crate;

#[test]
fn the_house_is_in_order() {
    let runtime = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime");
    let code = Crate::read(&runtime);
    assert!(code.files.len() > 1, "nothing was read");
    let mut faults = arrows::faults(&code);
    faults.extend(signatures::faults(&code));
    faults.extend(signatures::needless_exceptions(&code));
    assert!(
        faults.is_empty(),
        "{} against the rules of the house (its rooms: tests/tests/house/rules.rs):\n\n{}\n",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn every_key_of_the_configuration_is_documented() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = Crate::read(&here.join("../runtime"));
    let page = std::fs::read_to_string(here.join("../docs/configuration.md")).unwrap();
    let faults = documented::keys(&code, &page);
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn a_key_without_a_page_is_found_and_one_without_code() {
    let code = Crate::of_snippets(&[(
        "http/settings.rs",
        "fn read(section: &Section, faults: &mut Faults) {
            let text = |key: &str, faults: &mut Faults| section.string(key, faults);
            text(\"name\", faults);
            section.integer::<u16>(\"port\", 1.., faults);
        }",
    )]);
    let page = "| `name` | none | |\n| `tls.key` | | beside `zone` |\n";
    assert_eq!(
        documented::keys(&code, page),
        [
            "docs/configuration.md does not name the key `port`",
            "docs/configuration.md names the key `key`, which nothing reads",
        ]
    );
}

/// `INTERLINE_RECORD=1` writes the page.
#[test]
fn every_instrument_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let expected = documented::instruments();
    if std::env::var_os("INTERLINE_RECORD").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap();
    assert!(
        page == expected,
        "docs/metrics.md is not what the catalogue says; INTERLINE_RECORD=1 writes it"
    );
}

/// A further crate is a decision, not an accident: whoever takes one states the new number here and in
/// the README.
#[test]
fn the_smallest_program_consists_of_as_many_crates_as_the_readme_says() {
    const BUDGET: usize = 75;
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let alone = crates::of_quickstart(&[]);
    assert!(alone.len() <= BUDGET, "{alone:#?}");
    assert_eq!(alone.len(), 41, "{alone:#?}");
    let with_rabbitmq = crates::of_quickstart(&["--features", "interline/rabbitmq"]);
    assert_eq!(with_rabbitmq.len(), 96, "{with_rabbitmq:#?}");
    let said = format!(
        "{} crates, {} with RabbitMQ",
        alone.len(),
        with_rabbitmq.len()
    );
    assert!(readme.contains(&said), "the README does not say `{said}`");
}

fn arrow_faults(path: &str, text: &str) -> Vec<String> {
    arrows::faults(&Crate::of_snippets(&[
        ("lib.rs", "pub use handling::{Fate, Outcome as Ending};"),
        ("handling/mod.rs", ""),
        ("messaging/engine.rs", ""),
        ("messaging/port.rs", ""),
        ("messaging/memory/mod.rs", ""),
        (path, text),
    ]))
}

#[track_caller]
fn refused(path: &str, text: &str, expected: &str) {
    let faults = arrow_faults(path, text);
    assert!(
        faults.len() == 1 && faults[0].starts_with(expected),
        "expected one fault '{expected}...', found {faults:#?}"
    );
}

#[track_caller]
fn accepted(path: &str, text: &str) {
    assert_eq!(arrow_faults(path, text), Vec::<String>::new());
}

#[test]
fn an_upward_arrow_is_refused_however_it_is_written() {
    let fault = |line| {
        format!(
            "message/id.rs:{line}: message -> handling (crate::handling::Fate), but message lies below handling;"
        )
    };
    for (line, text) in [
        (1, "use crate::handling::Fate;"),
        (
            2,
            "\nuse crate::{config::Section, handling::{Fate, self as _}};",
        ),
        (1, "use super::super::handling::Fate;"),
        (1, "use crate::Fate;"),
        (2, "\nfn f(fate: crate::handling::Fate) {}"),
        (3, "fn f() {\n\n let _ = crate::handling::Fate::Done; }"),
        (1, "fn f() { vec![crate::handling::Fate]; }"),
        (1, "mod inner { use super::super::super::handling::Fate; }"),
        (1, "impl crate::handling::Fate for X {}"),
        (1, "fn f() -> Box<dyn crate::handling::Fate> {}"),
    ] {
        let faults = arrow_faults("message/id.rs", text);
        assert!(
            faults.iter().any(|found| {
                found.starts_with(&fault(line))
                    || found.starts_with(&fault(line).replace("Fate)", "Fate::Done)"))
            }),
            "{text}: {faults:#?}"
        );
    }
}

#[test]
fn a_sideways_arrow_is_refused() {
    refused(
        "http/mod.rs",
        "use crate::messaging::Broker;",
        "http/mod.rs:1: http -> messaging (crate::messaging::Broker), but http and messaging are side by side;",
    );
}

#[test]
fn a_downward_arrow_and_one_to_oneself_are_fine() {
    accepted(
        "handling/fate.rs",
        "use crate::message::Headers; use crate::handling::Fate;",
    );
    accepted(
        "handling/fate.rs",
        "use super::Fate; use std::fmt; use crate::Ending;",
    );
    accepted("launch.rs", "use crate::start::App;");
}

#[test]
fn tests_may_look_up() {
    accepted(
        "message/id.rs",
        "#[cfg(test)] mod tests { use crate::testing::TestApp; }",
    );
    accepted("message/tests.rs", "use crate::testing::TestApp;");
    refused(
        "message/id.rs",
        "#[cfg(unix)] mod x { use crate::testing::TestApp; }",
        "message/id.rs:1: message -> testing",
    );
}

#[test]
fn what_a_macro_writes_into_other_crates_is_not_ours() {
    accepted(
        "message/id.rs",
        "macro_rules! m { () => { $crate::testing::run() } }",
    );
}

#[test]
fn a_room_without_a_line_is_refused() {
    refused(
        "cellar.rs",
        "",
        "cellar.rs:1: room 'cellar' has no place in the house;",
    );
}

#[test]
fn an_adapter_uses_only_the_port() {
    accepted(
        "messaging/rabbitmq/mod.rs",
        "use crate::messaging::port::Broker; use crate::messaging::Broker;",
    );
    accepted(
        "messaging/rabbitmq/link.rs",
        "use super::supervisor::Epoch; use crate::config::Section;",
    );
    refused(
        "messaging/rabbitmq/mod.rs",
        "use super::engine::Engine;",
        "messaging/rabbitmq/mod.rs:1: adapter rabbitmq -> messaging::engine::Engine (the inside of the room)",
    );
    refused(
        "messaging/rabbitmq/mod.rs",
        "use crate::messaging::memory::Queue;",
        "messaging/rabbitmq/mod.rs:1: adapter rabbitmq -> messaging::memory::Queue (another adapter)",
    );
    accepted(
        "messaging/engine/run.rs",
        "use crate::messaging::memory::Queue;",
    );
}

#[test]
fn a_client_crate_stays_in_its_folder() {
    accepted("messaging/rabbitmq/mod.rs", "use lapin::Channel;");
    for text in [
        "use lapin::Channel;",
        "fn f(c: lapin::Channel) {}",
        "fn f() { m!(lapin::Channel) }",
    ] {
        refused(
            "messaging/engine.rs",
            text,
            "messaging/engine.rs:1: messaging/engine names the client crate lapin (lapin::Channel), which only messaging/rabbitmq may;",
        );
    }
}

fn signature_faults(text: &str) -> Vec<String> {
    signatures::faults(&Crate::of_snippets(&[("messaging/rabbitmq/mod.rs", text)]))
}

#[test]
fn a_foreign_type_in_a_public_signature_is_refused() {
    for text in [
        "pub fn f(channel: &lapin::Channel) {}",
        "use lapin::Channel; pub fn f() -> Option<Channel> {}",
        "use lapin as l; pub fn f() -> Option<l::Channel> {}",
        "pub struct S { pub channel: lapin::Channel }",
        "pub struct S<T: lapin::Channel>(T);",
        "pub enum E { V(lapin::Channel) }",
        "pub type T = lapin::Channel;",
        "pub use lapin::Channel;",
        "pub trait T { fn f(&self, channel: lapin::Channel); }",
        "pub trait T { type C: lapin::Channel; }",
        "pub trait T: lapin::Channel {}",
        "pub struct S; impl S { pub fn f(&self) -> lapin::Channel {} }",
        "pub struct S; impl From<lapin::Channel> for S {}",
        "pub fn f(g: impl Fn(lapin::Channel)) {}",
        "pub fn f<T>() where T: lapin::Channel {}",
        "pub mod m { pub fn f(channel: lapin::Channel) {} }",
    ] {
        let faults = signature_faults(text);
        assert!(
            faults.len() == 1
                && faults[0].starts_with("messaging/rabbitmq/mod.rs:1: public '")
                && faults[0].contains("shows lapin::Channel, a type of the crate lapin;"),
            "{text}: {faults:#?}"
        );
    }
}

#[test]
fn our_own_types_and_those_of_the_standard_are_fine() {
    for text in [
        "use bytes::Bytes; pub fn f(bytes: Bytes, s: std::sync::Arc<str>, h: crate::message::Headers) {}",
        "use lapin::Channel; pub(crate) fn f(channel: Channel) {}",
        "use lapin::Channel; fn f(channel: Channel) {}",
        "use lapin::Channel; pub struct S { channel: Channel }",
        "use lapin::Channel; struct S; impl From<Channel> for S {}",
        "use lapin::Channel; pub struct S; impl S { fn f(&self) -> Channel {} }",
        "pub fn f() { let _ = lapin::Channel::new(); }",
    ] {
        assert_eq!(signature_faults(text), Vec::<String>::new(), "{text}");
    }
}
