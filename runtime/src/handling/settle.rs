//! Manual settlement: the handler decides when, from wherever it likes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::message::Incoming;

use super::bind::Bind;
use super::extract::{Extract, Rejection};
use super::outcome::Outcome;
use super::scope::Scope;

/// Settles one message, once. Only with `ack = manual`.
///
/// It may be moved to another task. The attempt lasts until it is used, the handler's time-out
/// included; dropping it unused is a failed attempt.
#[must_use = "a message that is never settled is tried again"]
pub struct Settle(oneshot::Sender<Outcome>);

impl Settle {
    /// Handled: acknowledge it.
    pub fn done(self) {
        self.with(Outcome::done());
    }

    /// Try again when the retry policy says so.
    pub fn retry(self, why: impl Into<String>) {
        self.with(Outcome::retry(why));
    }

    /// Try again after `delay`.
    pub fn retry_after(self, delay: Duration, why: impl Into<String>) {
        self.with(Outcome::retry_after(delay, why));
    }

    /// Give it up now.
    pub fn dead_letter(self, why: impl Into<String>) {
        self.with(Outcome::dead_letter(why));
    }

    /// Drop it.
    pub fn discard(self, why: impl Into<String>) {
        self.with(Outcome::discard(why));
    }

    /// With any outcome.
    pub fn with(self, outcome: Outcome) {
        // Nobody waits any more after a time-out; the attempt has failed already.
        let _ = self.0.send(outcome);
    }
}

impl Extract for Settle {
    type Prepared = ();

    fn prepare(_: &mut Bind<'_>) -> Option<()> {
        Some(())
    }

    fn extract((): &(), _: &Arc<Incoming>, scope: &Scope) -> Result<Self, Rejection> {
        scope.take_verdict().map(Self).ok_or_else(|| {
            Rejection::retry("`Settle` was taken already, or the subscriber lacks `ack = manual`")
        })
    }
}

impl fmt::Debug for Settle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settle")
    }
}
