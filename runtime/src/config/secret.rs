use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::redact::REDACTED;

/// A password or key; a file that is longer is the wrong one.
const SECRET_BYTES_MAX: usize = 64 << 10;

/// Where a secret is found: written out, in a file, or in an environment variable.
///
/// ```toml
/// [brokers.main]
/// password = { file = "/run/secrets/rabbitmq" }   # or { env = "RABBITMQ_PASSWORD" }, or "text"
/// ```
///
/// The text is fetched by each [`read`](Self::read), so that a rotated secret is picked up by the
/// next connection. `Debug` and `Display` name the file or the variable and never the text.
#[derive(Clone)]
pub struct Secret {
    key: Arc<str>,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Literal(SecretText),
    File(PathBuf),
    Environment(Arc<str>),
}

impl Secret {
    /// A secret that is written out. The key names it in errors: `brokers.main.password`.
    pub fn literal(key: &str, text: impl Into<String>) -> Self {
        Self::at(key, Place::Literal(SecretText(text.into().into())))
    }

    /// A secret in a file. A relative path counts from the working directory.
    pub fn file(key: &str, path: impl Into<PathBuf>) -> Self {
        Self::at(key, Place::File(path.into()))
    }

    /// A secret in an environment variable.
    pub fn environment(key: &str, variable: &str) -> Self {
        Self::at(key, Place::Environment(Arc::from(variable)))
    }

    /// The key that names the secret in the configuration.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Fetches the text anew. One line break at the end of a file is left out.
    ///
    /// A file is read on the calling thread, at most 64 KiB of it; call this where connections
    /// are made, not for each message.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, the variable is not set, or what is found there is empty,
    /// too long or not UTF-8. The error names key and place, never what was found.
    pub fn read(&self) -> Result<SecretText, SecretError> {
        self.read_with(|variable| std::env::var_os(variable))
    }

    fn at(key: &str, place: Place) -> Self {
        Self {
            key: Arc::from(key),
            place,
        }
    }

    fn read_with(
        &self,
        variable: impl FnOnce(&str) -> Option<OsString>,
    ) -> Result<SecretText, SecretError> {
        let key = || self.key.to_string();
        let place = || self.place.to_string();
        let text = match &self.place {
            Place::Literal(text) => return Ok(text.clone()),
            Place::File(path) => {
                let bytes = read_bounded(path).map_err(|source| SecretError::Unreadable {
                    key: key(),
                    place: place(),
                    source,
                })?;
                if bytes.len() > SECRET_BYTES_MAX {
                    return Err(SecretError::TooLong {
                        key: key(),
                        place: place(),
                    });
                }
                String::from_utf8(bytes).ok().map(without_line_break)
            }
            Place::Environment(name) => match variable(name) {
                Some(text) => text.into_string().ok(),
                None => {
                    return Err(SecretError::NotSet {
                        key: key(),
                        place: place(),
                    });
                }
            },
        };
        match text {
            None => Err(SecretError::NotText {
                key: key(),
                place: place(),
            }),
            Some(text) if text.is_empty() => Err(SecretError::Empty {
                key: key(),
                place: place(),
            }),
            Some(text) => Ok(SecretText(text.into())),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.place)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str(REDACTED),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
        }
    }
}

/// The text of a secret. Prints as `***`; only [`expose`](Self::expose) gives it out.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Arc<str>);

impl SecretText {
    /// The text itself, for the call that needs it and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The place holds an empty text, as a file does that is being written.
    #[error("the secret `{key}` is empty ({place})")]
    Empty {
        /// The key in the configuration.
        key: String,
        /// The file or the variable.
        place: String,
    },
    /// The variable does not exist.
    #[error("the secret `{key}` is not set ({place})")]
    NotSet {
        /// The key in the configuration.
        key: String,
        /// The variable.
        place: String,
    },
    /// The place holds something else than UTF-8 text.
    #[error("the secret `{key}` is not UTF-8 text ({place})")]
    NotText {
        /// The key in the configuration.
        key: String,
        /// The file or the variable.
        place: String,
    },
    /// The file is longer than any secret.
    #[error("the secret `{key}` is longer than 64 KiB ({place})")]
    TooLong {
        /// The key in the configuration.
        key: String,
        /// The file.
        place: String,
    },
    /// The file does not exist or cannot be read.
    #[error("the secret `{key}` cannot be read ({place})")]
    Unreadable {
        /// The key in the configuration.
        key: String,
        /// The file.
        place: String,
        /// The error of the operating system.
        source: io::Error,
    },
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(SECRET_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn without_line_break(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::fs;

    use super::super::tests::Directory;
    use super::*;

    #[test]
    fn a_file_is_read_again_each_time_without_its_line_break() {
        let directory = Directory::new();
        let path = directory.write("password", "first\n");
        let secret = Secret::file("brokers.main.password", &path);
        assert_eq!(secret.read().unwrap().expose(), "first");
        fs::write(&path, "second \r\n").unwrap();
        assert_eq!(secret.read().unwrap().expose(), "second ");
        fs::write(&path, "two\n\n").unwrap();
        assert_eq!(secret.read().unwrap().expose(), "two\n");
    }

    #[test]
    fn a_variable_is_read_as_it_is() {
        let secret = Secret::environment("password", "RABBIT");
        let read = |value: &str| {
            secret.read_with(|name| {
                assert_eq!(name, "RABBIT");
                Some(OsString::from(value))
            })
        };
        assert_eq!(read("pw\n").unwrap().expose(), "pw\n");
        assert_eq!(
            read("").unwrap_err().to_string(),
            "the secret `password` is empty (environment variable RABBIT)"
        );
        assert_eq!(
            secret.read_with(|_| None).unwrap_err().to_string(),
            "the secret `password` is not set (environment variable RABBIT)"
        );
    }

    #[test]
    fn what_cannot_be_read_is_named_but_never_shown() {
        let directory = Directory::new();
        let missing = Secret::file("password", "/nowhere/password")
            .read()
            .unwrap_err();
        assert_eq!(
            missing.to_string(),
            "the secret `password` cannot be read (file /nowhere/password)"
        );
        assert!(missing.source().is_some());

        let long = directory.write("long", &"canary".repeat(20_000));
        let empty = directory.write("empty", "\n");
        let binary = directory.write_bytes("binary", b"canary\xff");
        for (path, reason) in [
            (long, "longer than 64 KiB"),
            (empty, "empty"),
            (binary, "UTF-8"),
        ] {
            let error = Secret::file("password", &path).read().unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(reason), "{shown}");
            assert!(shown.contains(path.to_str().unwrap()), "{shown}");
            assert!(!shown.contains("canary"), "{shown}");
        }
    }

    #[test]
    fn no_secret_is_printed() {
        let literal = Secret::literal("password", "canary");
        let text = literal.read().unwrap();
        assert_eq!(text.expose(), "canary");
        assert_eq!(
            format!("{literal} {literal:?} {text} {text:?}"),
            "*** Secret(***) *** ***"
        );
        let file = Secret::file("password", "/run/secrets/x");
        assert_eq!(format!("{file:?}"), "Secret(file /run/secrets/x)");
        let variable = Secret::environment("password", "X");
        assert_eq!(format!("{variable}"), "environment variable X");
    }
}
