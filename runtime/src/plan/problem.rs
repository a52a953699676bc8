//! What is wrong with a plan, and the report of all of it.

use std::error::Error;
use std::fmt;

use crate::config::{Fault, Origin};
use crate::error::{CommunicationError, CommunicationErrorKind};
use crate::message::Location;

/// Where something was written that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Place {
    /// In the source of a crate.
    Source(Location),
    /// In a call of the app's builder.
    Code(&'static std::panic::Location<'static>),
    /// In the configuration.
    Configuration(Origin),
    /// Nowhere: it is missing.
    App,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(location) => location.fmt(f),
            Self::Code(location) => write!(f, "{}:{}", location.file(), location.line()),
            Self::Configuration(origin) => origin.fmt(f),
            Self::App => f.write_str("app"),
        }
    }
}

/// One thing that does not fit: where, what it is about, what is wrong, what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Problem {
    /// Where it was written.
    pub place: Place,
    /// The subscriber, message type or configuration key.
    pub subject: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead, where that is known.
    pub help: Option<String>,
}

impl Problem {
    pub(crate) fn new(
        place: Place,
        subject: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            place,
            subject: subject.into(),
            message: message.into(),
            help: None,
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl From<&Fault> for Problem {
    fn from(fault: &Fault) -> Self {
        Self {
            place: Place::Configuration(fault.origin().clone()),
            subject: fault.key().to_owned(),
            message: fault.message().to_owned(),
            help: fault.help().map(str::to_owned),
        }
    }
}

/// Writes problems as a table: place, subject, message, and help on a line of its own.
pub(crate) fn write_problems(f: &mut fmt::Formatter<'_>, problems: &[Problem]) -> fmt::Result {
    // One long path must not push every other line out of sight.
    const WIDEST: usize = 48;
    let width = |text: &dyn Fn(&Problem) -> usize| {
        let fitting = problems.iter().map(text).filter(|width| *width <= WIDEST);
        fitting.max().unwrap_or_default()
    };
    let places = width(&|problem| problem.place.to_string().chars().count());
    let subjects = width(&|problem| problem.subject.chars().count());
    for problem in problems {
        let place = problem.place.to_string();
        write!(f, "\n  {place:places$}  {:subjects$}  ", problem.subject)?;
        f.write_str(&problem.message)?;
        if let Some(help) = &problem.help {
            let indent = 2 + places + 2 + subjects + 2;
            write!(f, "\n{:indent$}help: {help}", "")?;
        }
    }
    Ok(())
}

/// Everything that does not fit together, in one report. Nothing was started.
///
/// `Display` and `Debug` are the same readable text.
#[derive(Clone)]
pub struct PlanError {
    service: Option<String>,
    problems: Vec<Problem>,
}

impl PlanError {
    pub(crate) fn new(service: Option<String>, mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        Self { service, problems }
    }

    /// What does not fit, sorted by place; at least one.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => f.write_str("1 wiring problem")?,
            count => write!(f, "{count} wiring problems")?,
        }
        if let Some(service) = &self.service {
            write!(f, " in service `{service}`")?;
        }
        f.write_str(" (nothing was started)")?;
        write_problems(f, &self.problems)
    }
}

impl fmt::Debug for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for PlanError {}

impl From<PlanError> for CommunicationError {
    fn from(error: PlanError) -> Self {
        Self::from_source(CommunicationErrorKind::Plan, error)
    }
}
