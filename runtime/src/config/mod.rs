//! The configuration: files, environment and code, read into one tree that remembers where each
//! value was written.
//!
//! [`Config`] is plain data. Whoever needs settings opens a [`Section`] and reads it with typed
//! getters, pushing every mistake into one [`Faults`]; at the end [`Config::finish`] adds the keys
//! that nobody knew, and [`Faults::into_result`] makes one readable report of all of it.
//!
//! ```
//! use interline::config::Config;
//!
//! let config = Config::from_toml(
//!     "interline.toml",
//!     r#"
//!     [brokers.main]
//!     url = "amqp://billing:guest@rabbit/prod"
//!     prefetch = 20
//!     "#,
//! )?;
//! assert_eq!(
//!     config.describe(),
//!     "brokers.main.prefetch = 20                           # interline.toml:4:5\n\
//!      brokers.main.url = \"amqp://billing:***@rabbit/prod\"  # interline.toml:3:5\n"
//! );
//! # Ok::<(), interline::config::ConfigError>(())
//! ```

use std::ffi::OsString;
use std::fmt;
use std::panic::Location;
use std::path::{Path, PathBuf};

mod asked;
mod describe;
mod embedded;
mod environment;
mod fault;
mod file;
mod origin;
mod path;
mod redact;
mod secret;
mod section;
pub(crate) mod suggest;
pub(crate) mod units;
mod value;

pub use fault::{ConfigError, Fault, Faults};
pub use origin::Origin;
pub use redact::redact_url;
pub use secret::{Secret, SecretError, SecretText};
pub use section::Section;
pub use value::Value;

use path::KeyPath;
use value::Table;

/// The file that is read when `INTERLINE_CONFIG` names none.
const DEFAULT_FILE: &str = "interline.toml";

/// The configuration of a service under the name of the communication layer.
pub type CommunicationConfig = Config;

/// The configuration of a service: a tree of values, each with its origin.
///
/// [`load`](Self::load) reads files and environment; [`set`](Self::set) and [`with`](Self::with)
/// put values above both. The layers are checked when the service starts, all at once.
///
/// A `Config` can be a field of the program's own configuration type, since it is `Deserialize`;
/// it is then the program that reads files, and reports name keys instead of lines.
///
/// `Debug` and [`describe`](Self::describe) print no secret: passwords inside URLs and values
/// whose key ends in `password`, `secret`, `token` and the like are `***`.
///
/// ```
/// use interline::config::Config;
///
/// let config = Config::new()
///     .with("brokers.main.url", "amqp://localhost")
///     .with("subscribers.send_receipt.concurrency", 4)
///     .with("run.only", ["charge", "send_receipt"]);
/// assert!(config.section("brokers.main").contains("url"));
/// ```
#[derive(Clone, Default)]
pub struct Config {
    root: Table,
}

impl Config {
    /// An empty configuration, on which everything has its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the configuration of this process, each layer above the one before:
    ///
    /// 1. the files that the environment variable `INTERLINE_CONFIG` names, separated like the
    ///    directories of `PATH` or by commas, each of which must exist; when it names none,
    ///    `interline.toml` in the working directory, which may be missing;
    /// 2. the environment variables that begin with `INTERLINE__`: two underscores separate levels
    ///    and letters are made small, so that `INTERLINE__BROKERS__MAIN__URL` is
    ///    `brokers.main.url`. A name that an environment cannot spell, such as `eu-west`, is
    ///    reached as `EU_WEST` when a file has it.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or is not TOML, when it is longer than 1 MiB, when tables are
    /// nested deeper than 32 levels, and when one layer has a value where another has a table: all
    /// of it at once. Keys and values are checked later, by those who read them.
    pub fn load() -> Result<Self, ConfigError> {
        Self::load_from(Path::new(""), std::env::vars_os().collect())
    }

    /// Reads TOML. The name stands for the file in origins and reports.
    ///
    /// # Errors
    ///
    /// When the text is not TOML, is longer than 1 MiB or nested deeper than 32 levels.
    pub fn from_toml(name: &str, text: &str) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        let root = file::parse(name, text, &mut faults);
        faults.into_result()?;
        Ok(Self { root })
    }

    /// Reads a TOML file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, and as [`from_toml`](Self::from_toml).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let name = path.to_string_lossy();
        let mut faults = Faults::new();
        let text = file::read(path, &name, false, &mut faults);
        faults.into_result()?;
        Self::from_toml(&name, text.as_deref().unwrap_or_default())
    }

    /// Reads the environment variables that begin with `INTERLINE__` out of those given, usually
    /// [`std::env::vars_os`]. [`load`](Self::load) says how their names are understood.
    ///
    /// ```
    /// use interline::config::Config;
    ///
    /// let config = Config::from_environment([("INTERLINE__RUN__ONLY", "charge"), ("HOME", "/root")])?;
    /// assert_eq!(
    ///     config.describe(),
    ///     "run.only = \"charge\"  # environment variable INTERLINE__RUN__ONLY\n"
    /// );
    /// # Ok::<(), interline::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When two variables contradict each other, and when a name or a value cannot be understood.
    pub fn from_environment<N, V>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ConfigError>
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let mut faults = Faults::new();
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        let root = environment::read(variables, &mut faults);
        faults.into_result()?;
        Ok(Self { root })
    }

    /// Puts the values of `over` above those of this configuration. Tables are merged key by key;
    /// lists and all other values are replaced, and so is a secret in whichever form.
    ///
    /// # Errors
    ///
    /// When one has a value where the other has a table.
    pub fn merge(mut self, over: Self) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        value::merge(&mut self.root, over.root, &KeyPath::default(), &mut faults);
        faults.into_result()?;
        Ok(self)
    }

    /// Sets one value, above whatever files and environment say. The path is written like a key in
    /// a TOML file, with quotes around a part that has a dot: `routes."audit.*"`.
    #[track_caller]
    pub fn set(&mut self, path: &str, value: impl Into<Value>) {
        let origin = Origin::Code(Location::caller());
        let path = KeyPath::parse(path);
        value::put(&mut self.root, path.keys(), value.into().into_node(&origin));
    }

    /// [`set`](Self::set) in a chain.
    #[must_use]
    #[track_caller]
    pub fn with(mut self, path: &str, value: impl Into<Value>) -> Self {
        self.set(path, value);
        self
    }

    /// The section at the path, which is empty when the configuration does not have it.
    pub fn section(&self, path: &str) -> Section<'_> {
        Section::at(&self.root, KeyPath::parse(path))
    }

    /// Reports every key that nobody asked for: to be called when all readers of the configuration
    /// have read their sections with the same `faults`.
    pub fn finish(&self, faults: &mut Faults) {
        asked::report_unknown(&self.root, faults);
    }

    /// The effective configuration in the form of a TOML file, with the origin of each value as a
    /// comment and every secret as `***`.
    pub fn describe(&self) -> String {
        describe::describe(&self.root)
    }

    /// [`load`](Self::load) with the process taken out: relative paths count from `directory`.
    pub(crate) fn load_from(
        directory: &Path,
        variables: Vec<(OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let named: Vec<PathBuf> = variables
            .iter()
            .find(|(name, _)| name == environment::FILES_VARIABLE)
            .map(|(_, value)| environment::files(value))
            .unwrap_or_default();
        let (files, optional) = if named.is_empty() {
            (vec![PathBuf::from(DEFAULT_FILE)], true)
        } else {
            (named, false)
        };
        let mut faults = Faults::new();
        let mut root = Table::new();
        for path in files {
            let name = path.to_string_lossy();
            let Some(text) = file::read(&directory.join(&path), &name, optional, &mut faults)
            else {
                continue;
            };
            let layer = file::parse(&name, &text, &mut faults);
            value::merge(&mut root, layer, &KeyPath::default(), &mut faults);
        }
        let layer = environment::read(variables, &mut faults);
        value::merge(&mut root, layer, &KeyPath::default(), &mut faults);
        faults.into_result()?;
        Ok(Self { root })
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        describe::collect(&self.root, &KeyPath::default(), &mut |path, node| {
            let mut shown = String::new();
            // Writing into a string cannot fail.
            let _ = describe::write_value(&mut shown, path.last(), node);
            map.entry(&format_args!("{path}"), &format_args!("{shown}"));
        });
        map.finish()
    }
}

#[cfg(test)]
mod tests;
