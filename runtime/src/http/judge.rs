//! What an answer says about the health of who gave it: `breaker.failures`, or the program's own judgment.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::config::{Faults, Section};
use crate::resilience::Signal;

/// An answer, as `App::judge` hands it to the program's own judgment.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Judged<'a> {
    /// Its status, of whatever kind.
    pub status: StatusCode,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body; of an answer that is no success the beginning, and of one that is read while it comes
    /// nothing.
    pub body: &'a Bytes,
}

/// What a program says about the health of a service that gave this answer.
pub(crate) type Judgment = Arc<dyn Fn(&Judged<'_>) -> Signal + Send + Sync>;

/// Which answers are failures. Not those of calls: what is no success is one for the caller, always.
#[derive(Clone, Default)]
pub(crate) enum Judge {
    /// The program says.
    Own(Judgment),
    /// These statuses.
    Statuses(Box<[RangeInclusive<u16>]>),
    #[default]
    Usual,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(_) => f.write_str("Own"),
            Self::Statuses(statuses) => statuses.fmt(f),
            Self::Usual => f.write_str("Usual"),
        }
    }
}

impl Judge {
    /// Reads `failures` of the section of the breaker, unless the program has a judgment of its own.
    pub(super) fn read(section: &Section<'_>, own: Option<&Judgment>, faults: &mut Faults) -> Self {
        let texts = section.strings("failures", faults);
        if let Some(own) = own {
            if section.contains("failures") {
                let message = "has no effect: the program judges the answers itself (`App::judge`)";
                let fault = section.fault("failures", message);
                faults.push(fault.with_help("leave it out"));
            }
            return Self::Own(Arc::clone(own));
        }
        let Some(texts) = texts else {
            return Self::default();
        };
        let mut failures = Vec::with_capacity(texts.len());
        for text in texts {
            match parse(&text) {
                Some(statuses) => failures.push(statuses),
                None => {
                    let message = format!("`{text}` is no status that can be a failure");
                    let fault = section.fault("failures", message);
                    faults.push(fault.with_help("write for example `[\"5xx\", \"429\"]`"));
                }
            }
        }
        Self::Statuses(failures.into())
    }

    /// What the answer says.
    pub(super) fn signal(&self, answer: &Judged<'_>) -> Signal {
        let status = answer.status.as_u16();
        match self {
            Self::Own(judgment) => judgment(answer),
            Self::Statuses(failures) if failures.iter().any(|all| all.contains(&status)) => {
                Signal::Failure
            }
            Self::Statuses(_) => Signal::Success,
            Self::Usual => match status {
                429 => Signal::Refused,
                500.. => Signal::Failure,
                _ => Signal::Success,
            },
        }
    }
}

/// `503`, or `5xx` for all from 500 to 599.
fn parse(text: &str) -> Option<RangeInclusive<u16>> {
    let statuses = match text.strip_suffix("xx") {
        Some(hundreds) => {
            let first = hundreds.parse::<u16>().ok()?.checked_mul(100)?;
            first..=first.checked_add(99)?
        }
        None => {
            let status = text.parse().ok()?;
            status..=status
        }
    };
    // Without an answer that ends the call there is nothing to judge.
    let known = 200..=599;
    (text.len() == 3 && known.contains(statuses.start())).then_some(statuses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(value: &str) -> Result<Judge, String> {
        let toml = format!("[breaker]\n{value}");
        let config = Config::from_toml("interline.toml", &toml).unwrap();
        let mut faults = Faults::new();
        let judge = Judge::read(&config.section("breaker"), None, &mut faults);
        faults.into_result().map_err(|error| error.to_string())?;
        Ok(judge)
    }

    fn signals(judge: &Judge, statuses: &[u16]) -> Vec<Signal> {
        let statuses = statuses.iter();
        let signal = |status: &u16| {
            judge.signal(&Judged {
                status: StatusCode::from_u16(*status).unwrap(),
                headers: &HeaderMap::new(),
                body: &Bytes::new(),
            })
        };
        statuses.map(signal).collect()
    }

    #[test]
    fn the_configuration_says_which_statuses_are_failures() {
        use Signal::{Failure, Refused, Success};
        let statuses = [200, 404, 429, 500, 501, 503];
        let usual = [Success, Success, Refused, Failure, Failure, Failure];
        assert_eq!(signals(&read("").unwrap(), &statuses), usual);
        let some = read("failures = [\"503\", \"429\", \"404\"]").unwrap();
        let said = [Success, Failure, Failure, Success, Success, Failure];
        assert_eq!(signals(&some, &statuses), said);
        let classes = read("failures = [\"4xx\", \"5xx\"]").unwrap();
        let said = [Success, Failure, Failure, Failure, Failure, Failure];
        assert_eq!(signals(&classes, &statuses), said);
        let none = read("failures = []").unwrap();
        assert_eq!(signals(&none, &statuses), [Success; 6]);
    }

    #[test]
    fn what_is_no_status_is_said() {
        for text in [
            "xx", "6xx", "1xx", "0503", "5", "5x", "99", "600", "+50", "five",
        ] {
            let error = read(&format!("failures = [\"{text}\"]")).unwrap_err();
            let expected = format!("`{text}` is no status that can be a failure");
            assert!(error.contains(&expected), "{text}: {error}");
        }
    }
}
