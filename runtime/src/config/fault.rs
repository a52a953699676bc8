use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::error::{CommunicationError, CommunicationErrorKind};

use super::asked::Asked;
use super::origin::Origin;
use super::redact::redact_url;

/// How many mistakes a report shows. Whoever has more starts with these.
const SHOWN_MAX: usize = 100;

/// One mistake in the configuration: where it is, which key, what is wrong, what to write.
///
/// Credentials inside URLs are taken out of its texts. Whoever writes a message about the value of
/// a secret leaves the value out.
#[derive(Clone, Debug)]
pub struct Fault {
    origin: Origin,
    key: String,
    message: String,
    help: Option<String>,
    excerpt: Option<String>,
    cause: Option<Arc<io::Error>>,
}

impl Fault {
    /// A mistake at `origin` in the value of `key`, which is written as in a TOML file
    /// (`brokers.main.url`) and may be empty.
    ///
    /// The message continues a sentence that begins with the key: `must be at least 1, not 0`.
    pub fn new(origin: Origin, key: impl Into<String>, message: impl AsRef<str>) -> Self {
        Self {
            origin,
            key: key.into(),
            message: redact_url(message.as_ref()),
            help: None,
            excerpt: None,
            cause: None,
        }
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn with_help(mut self, help: impl AsRef<str>) -> Self {
        self.help = Some(redact_url(help.as_ref()));
        self
    }

    /// Where the mistake was written.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The key as it would be written in a TOML file, or nothing when the mistake is not in a
    /// value.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to write instead, where that is known.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    pub(super) fn with_excerpt(mut self, excerpt: Option<String>) -> Self {
        self.excerpt = excerpt;
        self
    }

    pub(super) fn with_cause(mut self, cause: io::Error) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}  ", self.key)?;
        }
        f.write_str(&self.message)?;
        for line in self.excerpt.iter().flat_map(|excerpt| excerpt.lines()) {
            write!(f, "\n    | {line}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n    help: {help}")?;
        }
        Ok(())
    }
}

/// The mistakes found so far, and what was asked for while looking.
///
/// Everybody who reads the configuration pushes into the same `Faults`, so that a user sees all
/// mistakes at once. Because each getter of a [`Section`](super::Section) also notes its key here,
/// [`Config::finish`](super::Config::finish) can tell which keys nobody knows.
///
/// ```
/// use interline::config::{Config, Faults};
///
/// let config = Config::from_toml("interline.toml", "[brokers.main]\nprefetch = 0\nulr = 'x'")?;
/// let mut faults = Faults::new();
/// for (_, broker) in config.section("brokers").entries(&mut faults) {
///     broker.string("url", &mut faults);
///     broker.integer("prefetch", 1..=u16::MAX, &mut faults);
/// }
/// config.finish(&mut faults);
///
/// assert_eq!(
///     faults.into_result().unwrap_err().to_string(),
///     "2 mistakes in the configuration\n\
///      interline.toml:2:1  brokers.main.prefetch  must be at least 1, not 0\n\
///      interline.toml:3:1  brokers.main.ulr  unknown key `ulr` in [brokers.main]\n    \
///          help: did you mean `url`?"
/// );
/// # Ok::<(), interline::config::ConfigError>(())
/// ```
#[derive(Debug, Default)]
pub struct Faults {
    faults: Vec<Fault>,
    pub(super) asked: Asked,
}

impl Faults {
    /// No faults yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a mistake.
    pub fn push(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// True while no mistake was found.
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// The number of mistakes.
    pub fn len(&self) -> usize {
        self.faults.len()
    }

    /// The mistakes in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter()
    }

    /// Nothing, or all mistakes as one error, sorted by place.
    ///
    /// # Errors
    ///
    /// When there is at least one mistake.
    pub fn into_result(self) -> Result<(), ConfigError> {
        let mut faults = self.faults;
        if faults.is_empty() {
            return Ok(());
        }
        faults.sort_by(|a, b| (&a.origin, &a.key).cmp(&(&b.origin, &b.key)));
        Err(ConfigError { faults })
    }
}

/// The mistakes of a configuration, all of them.
///
/// `Display` and `Debug` are the same readable report: a line with the count, then a line or more
/// for each mistake with its place and key. No secret is in it. Where a file could not be read,
/// [`source`](Error::source) is the error of the operating system.
#[derive(Clone)]
pub struct ConfigError {
    faults: Vec<Fault>,
}

impl ConfigError {
    /// The mistakes, sorted by place; at least one.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.len() {
            1 => f.write_str("1 mistake in the configuration")?,
            count => write!(f, "{count} mistakes in the configuration")?,
        }
        for fault in self.faults.iter().take(SHOWN_MAX) {
            write!(f, "\n{fault}")?;
        }
        match self.faults.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let cause = self
            .faults
            .iter()
            .find_map(|fault| fault.cause.as_deref())?;
        Some(cause)
    }
}

impl From<ConfigError> for CommunicationError {
    fn from(error: ConfigError) -> Self {
        Self::from_source(CommunicationErrorKind::Configuration, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u32) -> Origin {
        Origin::File {
            name: Arc::from("interline.toml"),
            line,
            column: 9,
        }
    }

    #[test]
    fn a_report_is_sorted_counted_and_complete() {
        let mut faults = Faults::new();
        faults.push(Fault::new(Origin::Absent, "run.only", "is missing"));
        faults.push(Fault::new(
            at(12),
            "brokers.main.prefetch",
            "must be at least 1, not 0",
        ));
        faults.push(Fault::new(at(3), "", "is odd").with_help("make it even"));
        assert_eq!(faults.len(), 3);
        let error = faults.into_result().unwrap_err();
        let report = "3 mistakes in the configuration\n\
                      interline.toml:3:9  is odd\n    help: make it even\n\
                      interline.toml:12:9  brokers.main.prefetch  must be at least 1, not 0\n\
                      configuration  run.only  is missing";
        assert_eq!(error.to_string(), report);
        assert_eq!(format!("{error:?}"), report);
        assert!(error.source().is_none());
    }

    #[test]
    fn no_mistakes_are_no_error() {
        let faults = Faults::new();
        assert!(faults.is_empty());
        assert!(faults.into_result().is_ok());
    }

    #[test]
    fn a_long_report_is_cut() {
        let mut faults = Faults::new();
        for line in 1..=103 {
            faults.push(Fault::new(at(line), "x", "is wrong"));
        }
        let report = faults.into_result().unwrap_err().to_string();
        assert!(report.starts_with("103 mistakes in the configuration\n"));
        assert!(
            report.ends_with("\ninterline.toml:100:9  x  is wrong\nand 3 more"),
            "{report}"
        );
    }

    #[test]
    fn the_error_of_a_file_is_the_source() {
        let mut faults = Faults::new();
        let cause = io::Error::new(io::ErrorKind::PermissionDenied, "denied");
        faults.push(Fault::new(at(1), "", "cannot be read").with_cause(cause));
        let error = faults.into_result().unwrap_err();
        assert_eq!(error.source().unwrap().to_string(), "denied");
    }

    #[test]
    fn a_message_never_shows_the_password_of_a_url() {
        let fault = Fault::new(at(1), "url", "`amqp://u:canary@h` has no vhost")
            .with_help("write amqp://u:canary@h/v");
        let shown = format!("{fault} {fault:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }
}
