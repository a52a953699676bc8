//! Templates of paths: `/orders/{id}/lines`.

use crate::literals::Flaw;

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    /// The name between braces.
    Value(String),
}

/// Reads the path of a method.
pub(super) fn read(text: &str) -> Result<Vec<Piece>, Flaw> {
    check_start(text)?;
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(['{', '}']) {
        let (literal, after) = rest.split_at(open);
        let inner = after.strip_prefix('{').and_then(|inside| {
            let (name, after) = inside.split_once('}')?;
            Some((name, after))
        });
        let Some((name, after)) = inner else {
            return Err(flaw(
                format!("the path `{text}` has a brace without its other half"),
                "write a value as `{id}`",
            ));
        };
        if !is_name(name) {
            return Err(flaw(
                format!("`{{{name}}}` in the path is not the name of an argument"),
                "write a value as `{id}`",
            ));
        }
        if pieces.contains(&Piece::Value(name.to_owned())) {
            return Err(flaw(
                format!("`{{{name}}}` stands twice in the path"),
                "give one of the two another name",
            ));
        }
        push_literal(&mut pieces, literal)?;
        pieces.push(Piece::Value(name.to_owned()));
        rest = after;
    }
    push_literal(&mut pieces, rest)?;
    check_segments(text)?;
    Ok(pieces)
}

/// Checks what all paths begin with.
pub(super) fn check_base(text: &str) -> Result<(), Flaw> {
    check_start(text)?;
    if text.ends_with('/') {
        return Err(flaw(
            format!("the base `{text}` ends with a slash, and each path begins with one"),
            "leave out the last slash",
        ));
    }
    if text.contains(['{', '}']) {
        return Err(flaw(
            "a base has no values".to_owned(),
            "write them in the paths of the methods",
        ));
    }
    check_literal(text)?;
    check_segments(text)
}

/// What the way to the service makes another path of is refused.
fn check_segments(text: &str) -> Result<(), Flaw> {
    let dots = |segment: &&str| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    };
    match text.split('/').find(dots) {
        None => Ok(()),
        Some(dots) => Err(flaw(
            format!("the path has `{dots}` as a part, and would be sent as another path"),
            "write the path that is meant",
        )),
    }
}

fn check_start(text: &str) -> Result<(), Flaw> {
    if text.starts_with('/') {
        return Ok(());
    }
    Err(flaw(
        format!("the path `{text}` does not begin with a slash"),
        "write for example \"/orders/{id}\"",
    ))
}

fn push_literal(pieces: &mut Vec<Piece>, text: &str) -> Result<(), Flaw> {
    check_literal(text)?;
    if !text.is_empty() {
        pieces.push(Piece::Literal(text.to_owned()));
    }
    Ok(())
}

fn check_literal(text: &str) -> Result<(), Flaw> {
    if text.contains("//") {
        return Err(flaw(
            "the path has two slashes with nothing between".to_owned(),
            "write one",
        ));
    }
    if text.contains('?') {
        return Err(flaw(
            "the path holds a query".to_owned(),
            "make it an argument with `#[query]`",
        ));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@%".contains(c);
    let is_byte = |after: &str| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(is_byte) {
        return Err(flaw(
            "the path has a `%` without its two digits".to_owned(),
            "write `%25` for the sign itself",
        ));
    }
    match text.chars().find(|c| !allowed(*c)) {
        None => Ok(()),
        Some(bad) => Err(flaw(
            format!("the path holds `{bad}`"),
            "a path is written as it is sent: encode it as `%..`",
        )),
    }
}

fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters
        .next()
        .is_some_and(|first| first.is_alphabetic() || first == '_')
        && characters.all(|c| c.is_alphanumeric() || c == '_')
}

fn flaw(what: String, help: &str) -> Flaw {
    Flaw {
        what,
        help: help.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_taken_apart() {
        let literal = |text: &str| Piece::Literal(text.to_owned());
        let value = |text: &str| Piece::Value(text.to_owned());
        assert_eq!(read("/orders"), Ok(vec![literal("/orders")]));
        assert_eq!(
            read("/o/{id}/lines/{line}.json"),
            Ok(vec![
                literal("/o/"),
                value("id"),
                literal("/lines/"),
                value("line"),
                literal(".json")
            ])
        );
        assert_eq!(
            read("/{a}{b}"),
            Ok(vec![literal("/"), value("a"), value("b")])
        );
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (text, what) in [
            ("", "the path `` does not begin with a slash"),
            ("orders", "the path `orders` does not begin with a slash"),
            (
                "/o/{id",
                "the path `/o/{id` has a brace without its other half",
            ),
            (
                "/o/id}",
                "the path `/o/id}` has a brace without its other half",
            ),
            ("/o/{}", "`{}` in the path is not the name of an argument"),
            (
                "/o/{1a}",
                "`{1a}` in the path is not the name of an argument",
            ),
            ("/{a}/{a}", "`{a}` stands twice in the path"),
            ("/o//x", "the path has two slashes with nothing between"),
            ("/o?x=1", "the path holds a query"),
            ("/ö", "the path holds `ö`"),
            ("/100%", "the path has a `%` without its two digits"),
            ("/%zz/{a}", "the path has a `%` without its two digits"),
            (
                "/a/../{b}",
                "the path has `..` as a part, and would be sent as another path",
            ),
            (
                "/{a}/%2E",
                "the path has `%2E` as a part, and would be sent as another path",
            ),
        ] {
            assert_eq!(read(text).expect_err(text).what, what);
        }
        assert_eq!(check_base("/api/v1"), Ok(()));
        for text in ["/...", "/a%20b", "/.{x}", "/{x}."] {
            assert!(read(text).is_ok(), "{text}");
        }
        for text in ["/", "/api/", "api", "/api/{x}", "/a b", "/api/..", "/a%"] {
            assert!(check_base(text).is_err(), "{text}");
        }
    }
}
