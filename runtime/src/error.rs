//! The errors of the crate as a whole: [`CommunicationError`] for code that reacts, [`Report`] for
//! people who read.

use std::error::Error;
use std::fmt;

/// What a program's `main` returns: any error becomes a [`Report`] by `?`.
pub type Result<T, E = Report> = std::result::Result<T, E>;

/// What kind of failure a [`CommunicationError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CommunicationErrorKind {
    /// A call to another service failed.
    Call,
    /// Calls to a service failed so often that none is made for a while.
    CircuitBreakerOpen,
    /// The configuration cannot be read.
    Configuration,
    /// A broker cannot be used: wrong credentials, a conflict with what is there, unreachable.
    MessageBroker,
    /// Handlers and configuration do not fit together.
    Plan,
    /// A message was not published.
    Publish,
    /// Every attempt failed.
    RetryExhausted,
    /// It is not known where a service is.
    ServiceDiscovery,
    /// The app is going down, or is down.
    Shutdown,
    /// It took too long.
    Timeout,
}

/// Something in the communication with other services failed.
///
/// Opaque: ask for the [`kind`](Self::kind) and the predicates; the cause, if there is one, is its
/// [`source`](Error::source).
pub struct CommunicationError(Box<Details>);

struct Details {
    kind: CommunicationErrorKind,
    message: String,
    retryable: bool,
    timeout: bool,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl CommunicationError {
    /// An error of this kind that says what is wrong.
    #[must_use]
    pub fn new(kind: CommunicationErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            kind,
            message: message.into(),
            retryable: kind == CommunicationErrorKind::Timeout,
            timeout: kind == CommunicationErrorKind::Timeout,
            source: None,
        }))
    }

    /// An error of this kind in the words of `error`, which becomes its source.
    #[must_use]
    pub fn from_source(
        kind: CommunicationErrorKind,
        error: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        let error = error.into();
        let mut this = Self::new(kind, error.to_string());
        this.0.source = Some(error);
        this
    }

    /// With the answer to whether trying again can help.
    #[must_use]
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// With the answer to whether a time limit was reached.
    #[must_use]
    pub fn with_timeout(mut self, timeout: bool) -> Self {
        self.0.timeout = timeout;
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> CommunicationErrorKind {
        self.0.kind
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// Whether a time limit was reached.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.0.timeout
    }
}

impl fmt::Display for CommunicationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for CommunicationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommunicationError")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl Error for CommunicationError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Any error, in the form that a person reads when `main` fails.
///
/// It takes every error by `?`. `Debug`, which Rust prints when `main` returns an error, is the
/// readable report: the error, then a line for each cause.
///
/// ```
/// use interline::Report;
///
/// fn port(text: &str) -> interline::Result<u16> {
///     Ok(text.parse()?)
/// }
///
/// let report: Report = port("x").unwrap_err();
/// assert_eq!(format!("{report:?}"), "invalid digit found in string");
/// ```
pub struct Report(Box<dyn Error + Send + Sync>);

impl Report {
    /// A report of this text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into().into())
    }

    /// A report of an error that is boxed already, which `?` cannot take.
    #[must_use]
    pub fn from_boxed(error: Box<dyn Error + Send + Sync>) -> Self {
        Self(error)
    }

    /// The error.
    #[must_use]
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }

    /// The error, or one of its causes, of type `E`.
    #[must_use]
    pub fn find<E: Error + 'static>(&self) -> Option<&E> {
        let mut error: &(dyn Error + 'static) = &*self.0;
        loop {
            match error.downcast_ref() {
                Some(found) => return Some(found),
                None => error = error.source()?,
            }
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Report {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.to_string();
        f.write_str(&shown)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors repeat their cause in their own text.
            if !shown.ends_with(&text) {
                write!(f, "\n  because: {text}")?;
                shown = text;
            }
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the price list")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_report_has_one_line_for_each_cause_and_none_twice() {
        let report = Report::from(Outer(io::Error::other("disk on fire")));
        assert_eq!(report.to_string(), "cannot read the price list");
        assert_eq!(
            format!("{report:?}"),
            "cannot read the price list\n  because: disk on fire"
        );
        assert!(report.find::<Outer>().is_some());
        assert!(report.find::<io::Error>().is_some());
        assert!(report.find::<fmt::Error>().is_none());

        let inner = Outer(io::Error::other("disk on fire"));
        let error = CommunicationError::from_source(CommunicationErrorKind::Plan, inner);
        assert_eq!(
            format!("{:?}", Report::from(error)),
            "cannot read the price list\n  because: disk on fire"
        );
        assert_eq!(format!("{:?}", Report::new("no")), "no");
    }

    #[test]
    fn predicates_follow_the_kind_unless_told_otherwise() {
        let timeout = CommunicationError::new(CommunicationErrorKind::Timeout, "too slow");
        assert!(timeout.is_timeout() && timeout.is_retryable());
        let plan = CommunicationError::new(CommunicationErrorKind::Plan, "wrong");
        assert!(!plan.is_timeout() && !plan.is_retryable());
        assert!(plan.with_retryable(true).is_retryable());
    }
}
