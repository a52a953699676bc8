use std::fmt;
use std::panic::Location;
use std::sync::Arc;

/// Where a value of the configuration was written.
///
/// Its `Display` is what a report shows: `interline.toml:12:9`,
/// `environment variable INTERLINE__BROKERS__MAIN__URL`, `code at src/main.rs:20:10`.
///
/// Origins sort in the order in which a reader looks for them: files by name and line, then
/// environment variables, then code.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Origin {
    /// A line of a file.
    File {
        /// The file as it was named when it was read.
        name: Arc<str>,
        /// The line, from 1.
        line: u32,
        /// The column in characters, from 1.
        column: u32,
    },
    /// An environment variable.
    Environment(
        /// The variable's name.
        Arc<str>,
    ),
    /// A call of [`Config::set`](super::Config::set) or [`Config::with`](super::Config::with).
    Code(
        /// The place of the call.
        &'static Location<'static>,
    ),
    /// A [`Config`](super::Config) deserialized as a part of the program's own configuration, so
    /// that only the key is known.
    Embedded,
    /// Nowhere: the value is missing, and so is the section it belongs to.
    Absent,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::Code(place) => write!(f, "code at {place}"),
            Self::Embedded => f.write_str("embedded configuration"),
            Self::Absent => f.write_str("configuration"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_reads_like_a_place_and_sorts_by_file_and_line() {
        let file = |name: &str, line| Origin::File {
            name: Arc::from(name),
            line,
            column: 9,
        };
        let variable = Origin::Environment(Arc::from("INTERLINE__A"));
        let here = Origin::Code(Location::caller());
        assert_eq!(file("a.toml", 12).to_string(), "a.toml:12:9");
        assert_eq!(variable.to_string(), "environment variable INTERLINE__A");
        assert!(here.to_string().starts_with("code at "), "{here}");
        assert!(here.to_string().contains("origin.rs:"), "{here}");

        let sorted = [
            file("a.toml", 2),
            file("a.toml", 10),
            file("b.toml", 1),
            variable,
            here,
            Origin::Embedded,
            Origin::Absent,
        ];
        let mut shuffled = sorted.clone();
        shuffled.reverse();
        shuffled.sort();
        assert_eq!(shuffled, sorted);
    }
}
