use std::fmt;

use super::value::DEPTH_MAX;

/// The keys that lead to a value, outermost first. Prints as a TOML key: `brokers.main.url`.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct KeyPath(Vec<String>);

impl KeyPath {
    /// Reads `brokers.main.url` and `routes."audit.*"`. Every text is a path: quotes that do not
    /// close reach to the end.
    pub(super) fn parse(text: &str) -> Self {
        let mut keys = Vec::new();
        let mut rest = text;
        loop {
            // The bound of the nesting; what lies deeper becomes one odd key, reported as unknown.
            if keys.len() + 1 == DEPTH_MAX {
                keys.push(rest.to_owned());
                break;
            }
            let (key, tail) = match rest.strip_prefix('"') {
                Some(quoted) => match quoted.split_once('"') {
                    Some((key, tail)) => (key, tail.strip_prefix('.')),
                    None => (quoted, None),
                },
                None => match rest.split_once('.') {
                    Some((key, tail)) => (key, Some(tail)),
                    None => (rest, None),
                },
            };
            keys.push(key.to_owned());
            match tail {
                Some(tail) => rest = tail,
                None => break,
            }
        }
        Self(keys)
    }

    pub(super) fn child(&self, key: &str) -> Self {
        let mut keys = Vec::with_capacity(self.0.len() + 1);
        keys.extend_from_slice(&self.0);
        keys.push(key.to_owned());
        Self(keys)
    }

    pub(super) fn keys(&self) -> &[String] {
        &self.0
    }

    pub(super) fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, key) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            write_key(f, key)?;
        }
        Ok(())
    }
}

fn write_key(f: &mut fmt::Formatter<'_>, key: &str) -> fmt::Result {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(is_bare) {
        f.write_str(key)
    } else {
        write_quoted(f, key)
    }
}

/// Text as a TOML string on one line.
pub(super) fn write_quoted(f: &mut impl fmt::Write, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\u{:04X}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_and_printed_as_a_toml_key() {
        let cases: [(&str, &[&str], &str); 7] = [
            ("run", &["run"], "run"),
            (
                "brokers.main.url",
                &["brokers", "main", "url"],
                "brokers.main.url",
            ),
            (
                "routes.\"audit.*\"",
                &["routes", "audit.*"],
                "routes.\"audit.*\"",
            ),
            ("\"a b\".c", &["a b", "c"], "\"a b\".c"),
            ("a.\"open", &["a", "open"], "a.open"),
            ("", &[""], "\"\""),
            ("a..b", &["a", "", "b"], "a.\"\".b"),
        ];
        for (text, keys, printed) in cases {
            let path = KeyPath::parse(text);
            assert_eq!(path.keys(), keys, "{text}");
            assert_eq!(path.to_string(), printed, "{text}");
        }
    }

    #[test]
    fn a_path_has_a_bounded_depth() {
        let path = KeyPath::parse(&"a.".repeat(100_000));
        assert_eq!(path.keys().len(), DEPTH_MAX);
    }

    #[test]
    fn quoted_text_stays_on_one_line() {
        let mut quoted = String::new();
        write_quoted(&mut quoted, "a\"b\\c\n\r\t\u{1}é").unwrap();
        assert_eq!(quoted, "\"a\\\"b\\\\c\\n\\r\\t\\u0001é\"");
    }
}
