use std::fs;

use tempfile::TempDir;

use super::*;
use crate::discovery::EndpointSet;
use crate::discovery::document::Document;

/// A file in a directory of its own.
struct Place(TempDir, &'static str);

impl Place {
    fn new(name: &'static str) -> Self {
        Self(TempDir::new().unwrap(), name)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join(self.1)
    }

    fn rename_in(&self, text: &str) {
        let new = self.0.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path()).unwrap();
    }

    fn look(&self) -> Look {
        Look::new(Arc::new(self.path()))
    }
}

fn urls(set: Result<EndpointSet, String>) -> Vec<String> {
    set.unwrap().iter().map(ToString::to_string).collect()
}

fn read(looked: Looked) -> Document {
    match looked {
        Looked::Read(document) => document,
        Looked::Failed(why) => panic!("{why}"),
        Looked::Same | Looked::StillBroken => panic!("not read again"),
    }
}

#[test]
fn both_languages_and_both_forms_are_read() {
    let toml = Place::new("endpoints.toml");
    toml.rename_in(
        "orders = [\"http://b:1\", { url = \"http://a:1\" }]\n[[mail]]\nurl = \"http://m\"",
    );
    let document = read(toml.look().again());
    assert_eq!(
        urls(document.endpoints("orders")),
        ["http://a:1", "http://b:1"]
    );
    assert_eq!(urls(document.endpoints("mail")), ["http://m"]);
    let json = Place::new("endpoints.json");
    json.rename_in(r#"{"orders": ["http://b:1", {"url": "http://a:1"}], "mail": []}"#);
    let document = read(json.look().again());
    assert_eq!(
        urls(document.endpoints("orders")),
        ["http://a:1", "http://b:1"]
    );
    assert_eq!(urls(document.endpoints("mail")), [""; 0]);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (name, text, why) in [
        ("e.toml", "orders = [\n\"http://a:1\",\n", "e.toml: line "),
        (
            "e.toml",
            "orders = [1]",
            "expected an address such as \"http://orders:8080\"",
        ),
        (
            "e.toml",
            "orders = [{ url = \"http://a\", zon = 1 }]",
            "unknown field `zon`, expected one of `url`, `host`, `zone`",
        ),
        (
            "e.json",
            "{\"orders\": [\"http://a:1\"",
            "e.json: EOF while parsing a list at line 1",
        ),
        ("e.json", "", "e.json: EOF"),
    ] {
        let place = Place::new(name);
        place.rename_in(text);
        let Looked::Failed(error) = place.look().again() else {
            panic!("{text} was taken");
        };
        assert!(error.contains(why), "{text}: {error}");
    }
    let place = Place::new("e.toml");
    let Looked::Failed(error) = place.look().again() else {
        panic!("a missing file was taken");
    };
    assert!(
        error.contains("e.toml cannot be read: No such file"),
        "{error}"
    );
    place.rename_in("order = [\"http://a:1\", \"a:1\"]");
    let document = read(place.look().again());
    let error = document.endpoints("orders").unwrap_err();
    assert_eq!(
        error,
        "does not name the service `orders` (there is `order`)"
    );
    let error = document.endpoints("order").unwrap_err();
    assert!(error.starts_with("order: `a:1` has no scheme"), "{error}");
}

/// Looks until the file counts as known.
fn until_same(look: &mut Look) {
    for _ in 0..1_000 {
        if matches!(look.again(), Looked::Same) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("read again and again");
}

#[test]
fn a_file_is_read_when_it_is_another_one_and_only_then() {
    let place = Place::new("endpoints.toml");
    place.rename_in("orders = [\"http://a:1\"]");
    let mut look = place.look();
    read(look.again());
    until_same(&mut look);
    // Of the same length, and renamed to the name at once.
    place.rename_in("orders = [\"http://b:1\"]");
    assert_eq!(urls(read(look.again()).endpoints("orders")), ["http://b:1"]);
    // Once more, before time can have moved on for the file system.
    place.rename_in("orders = [\"http://c:1\"]");
    assert_eq!(urls(read(look.again()).endpoints("orders")), ["http://c:1"]);
    until_same(&mut look);
    fs::remove_file(place.path()).unwrap();
    assert!(matches!(look.again(), Looked::Failed(_)));
    place.rename_in("orders = [\"http://d:1\"]");
    assert_eq!(urls(read(look.again()).endpoints("orders")), ["http://d:1"]);
}

#[test]
fn a_file_that_is_written_in_place_is_read_in_the_end() {
    let place = Place::new("endpoints.toml");
    place.rename_in("orders = [\"http://a:1\"]");
    let mut look = place.look();
    read(look.again());
    until_same(&mut look);
    fs::write(place.path(), "orders = [\"http://b:1\", \"http://c:1\"]").unwrap();
    let document = read(look.again());
    assert_eq!(
        urls(document.endpoints("orders")),
        ["http://b:1", "http://c:1"]
    );
    until_same(&mut look);
    // Empty, as between the two steps of a writer: of no use, and no reason to forget what was there.
    fs::write(place.path(), "").unwrap();
    let error = read(look.again()).endpoints("orders").unwrap_err();
    assert_eq!(error, "does not name the service `orders`");
}
