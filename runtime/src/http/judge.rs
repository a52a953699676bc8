//! What an answer says about the health of who gave it: `breaker.failures`.

use std::ops::RangeInclusive;

use http::StatusCode;

use crate::config::{Faults, Section};
use crate::resilience::Signal;

/// Which statuses are failures. Not those of calls: what is no success is one for the caller, always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judge {
    /// `None` for what is usual.
    failures: Option<Box<[RangeInclusive<u16>]>>,
}

impl Judge {
    /// Reads `failures` of the section of the breaker.
    pub(super) fn read(section: &Section<'_>, faults: &mut Faults) -> Self {
        let Some(texts) = section.strings("failures", faults) else {
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
        Self {
            failures: Some(failures.into()),
        }
    }

    /// What the status says.
    pub(super) fn signal(&self, status: StatusCode) -> Signal {
        let status = status.as_u16();
        match &self.failures {
            Some(failures) if failures.iter().any(|all| all.contains(&status)) => Signal::Failure,
            Some(_) => Signal::Success,
            None => match status {
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
        let judge = Judge::read(&config.section("breaker"), &mut faults);
        faults.into_result().map_err(|error| error.to_string())?;
        Ok(judge)
    }

    fn signals(judge: &Judge, statuses: &[u16]) -> Vec<Signal> {
        let statuses = statuses.iter();
        statuses
            .map(|status| judge.signal(StatusCode::from_u16(*status).unwrap()))
            .collect()
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
