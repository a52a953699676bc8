//! How a case fails, and how it waits.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The longest wait for anything that comes by itself.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// What went wrong, as a person reads it.
pub(crate) struct Trouble(String);

pub(crate) type Outcome<T = ()> = Result<T, Trouble>;

impl Trouble {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// With what helps to find out why.
    pub(crate) fn with(self, more: &str) -> Self {
        Self(format!("{}\n{more}", self.0))
    }
}

// The harness prints it, line breaks and all.
impl fmt::Debug for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(Trouble(otherwise()))
    }
}

/// Waits until a look at something answers `true`, and says how long that took.
pub(crate) async fn until(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Outcome<bool>,
) -> Outcome<Duration> {
    let begun = Instant::now();
    while !look().await? {
        if begun.elapsed() > limit {
            return Err(Trouble(format!("{what}: not within {limit:?}")));
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(begun.elapsed())
}
