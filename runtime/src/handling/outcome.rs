//! What becomes of a message: its fate, the messages that it led to, and why it failed.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::message::{Contract, Message, Outgoing};

use super::failure::Failure;
use super::publish::PublishError;
use super::publisher::Publish;
use super::scope::Scope;

/// What is done with a message after one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It was handled: acknowledge it.
    Done,
    /// Try again, after the given time or the one that the retry policy says. When the attempts are
    /// used up, it becomes a dead letter.
    Retry {
        /// How long to wait; `None` leaves it to the retry policy.
        after: Option<Duration>,
    },
    /// Give it up now: it goes to the dead letters.
    DeadLetter,
    /// Drop it. Nothing keeps it.
    Discard,
    /// Stop fetching for this long, then try again. It does not count as an attempt.
    Pause {
        /// How long.
        lasting: Duration,
    },
}

/// Why an attempt failed or a message was given up; the header `x-dlq-reason` carries the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// The settlement handle was dropped without a word.
    Abandoned,
    /// Body or headers could not be read as what the handler takes.
    Decode,
    /// The broker gave it up: it was handed out too often without an answer.
    DeliveryLimit,
    /// The handler returned an error.
    Error,
    /// It outlived its time to live.
    Expired,
    /// A newer version of its contract that this service cannot read.
    NewerVersion,
    /// No handler takes its type.
    NoHandler,
    /// A message that the handler sent could not be published.
    OutputFailed,
    /// A message that the handler sent has no subscriber.
    OutputUnroutable,
    /// The handler panicked.
    Panic,
    /// The handler said dead letter.
    Rejected,
    /// Every attempt failed.
    RetriesExhausted,
    /// The handler took longer than it may.
    Timeout,
    /// The sender may not do this.
    Unauthorized,
}

impl Reason {
    /// The code, as it stands in headers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Abandoned => "abandoned",
            Self::Decode => "decode",
            Self::DeliveryLimit => "delivery_limit",
            Self::Error => "error",
            Self::Expired => "expired",
            Self::NewerVersion => "newer_version",
            Self::NoHandler => "no_handler",
            Self::OutputFailed => "output_failed",
            Self::OutputUnroutable => "output_unroutable",
            Self::Panic => "panic",
            Self::Rejected => "rejected",
            Self::RetriesExhausted => "retries_exhausted",
            Self::Timeout => "timeout",
            Self::Unauthorized => "unauthorized",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failed attempt: why, and the error in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failed {
    /// Why.
    pub reason: Reason,
    /// The type of the error, for example `ChargeError::Network`.
    pub error_type: Cow<'static, str>,
    /// The error's text, with the errors that led to it.
    pub text: String,
}

impl Failed {
    /// A failure with its reason, the error's type and its text.
    #[must_use]
    pub fn new(
        reason: Reason,
        error_type: impl Into<Cow<'static, str>>,
        text: impl Into<String>,
    ) -> Self {
        Self {
            reason,
            error_type: error_type.into(),
            text: text.into(),
        }
    }
}

/// The result of one attempt: the fate of the message, what it led to, and why it failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// What is done with the message.
    pub fate: Fate,
    /// Messages that are published, and confirmed, before the message is acknowledged.
    pub outgoing: Vec<Outgoing>,
    /// Why the attempt failed, where it did.
    pub failed: Option<Failed>,
}

impl Outcome {
    /// Handled.
    #[must_use]
    pub const fn done() -> Self {
        Self {
            fate: Fate::Done,
            outgoing: Vec::new(),
            failed: None,
        }
    }

    /// Try again when the retry policy says so; `why` is kept with the message.
    #[must_use]
    pub fn retry(why: impl Into<String>) -> Self {
        Self::failed(
            Fate::Retry { after: None },
            Failed::new(Reason::Error, "Outcome", why),
        )
    }

    /// Try again after `delay`.
    #[must_use]
    pub fn retry_after(delay: Duration, why: impl Into<String>) -> Self {
        Self::failed(
            Fate::Retry { after: Some(delay) },
            Failed::new(Reason::Error, "Outcome", why),
        )
    }

    /// Give it up now.
    #[must_use]
    pub fn dead_letter(why: impl Into<String>) -> Self {
        Self::failed(
            Fate::DeadLetter,
            Failed::new(Reason::Rejected, "Outcome", why),
        )
    }

    /// Drop it.
    #[must_use]
    pub fn discard(why: impl Into<String>) -> Self {
        Self::failed(Fate::Discard, Failed::new(Reason::Rejected, "Outcome", why))
    }

    /// Stop fetching for `lasting`, then try again.
    #[must_use]
    pub fn pause(lasting: Duration, why: impl Into<String>) -> Self {
        Self::failed(
            Fate::Pause { lasting },
            Failed::new(Reason::Error, "Outcome", why),
        )
    }

    /// An outcome with this fate for this failure.
    #[must_use]
    pub fn failed(fate: Fate, failed: Failed) -> Self {
        Self {
            fate,
            outgoing: Vec::new(),
            failed: Some(failed),
        }
    }

    pub(crate) fn publishing(outgoing: Vec<Outgoing>) -> Self {
        Self {
            fate: Fate::Done,
            outgoing,
            failed: None,
        }
    }

    /// A message that could not be prepared: the same value would fail again, so it is given up.
    pub(crate) fn unprepared(error: &PublishError) -> Self {
        let failed = Failed::new(Reason::OutputFailed, "PublishError", super::describe(error));
        Self::failed(Fate::DeadLetter, failed)
    }

    fn from_failure(failure: &impl Failure) -> Self {
        let fate = failure.fate();
        let reason = match fate {
            Fate::DeadLetter | Fate::Discard => Reason::Rejected,
            _ => Reason::Error,
        };
        Self::failed(
            fate,
            Failed::new(reason, failure.error_type(), failure.text()),
        )
    }
}

/// What a subscriber may return.
///
/// `()`, a message (it is published, then the input is acknowledged), `Option`, `Vec` and tuples of
/// those, [`Publish`] for headers and other destinations, [`Reply`](super::Reply) for the one who asked,
/// [`Outcome`] for full control, or a `Result` of any of these with an error that implements
/// [`Failure`].
#[diagnostic::on_unimplemented(
    message = "a subscriber cannot return `{Self}`",
    label = "expected `()`, a message, `Outcome`, or a `Result` of these",
    note = "to publish a value, derive `Message` for its type"
)]
pub trait IntoOutcome: Sized {
    /// Turns the returned value into an outcome.
    fn into_outcome(self, scope: &Scope) -> Outcome;

    /// The contracts of what may be published.
    #[doc(hidden)]
    fn publishes(_contracts: &mut Vec<&'static Contract>) {}

    /// Whether it answers the one who asked.
    #[doc(hidden)]
    fn replies() -> bool {
        false
    }
}

impl IntoOutcome for () {
    fn into_outcome(self, _: &Scope) -> Outcome {
        Outcome::done()
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self, _: &Scope) -> Outcome {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<M: Message> IntoOutcome for M {
    fn into_outcome(self, scope: &Scope) -> Outcome {
        Publish::new(self).into_outcome(scope)
    }

    fn publishes(contracts: &mut Vec<&'static Contract>) {
        contracts.push(M::CONTRACT);
    }
}

impl<M: Message> IntoOutcome for Publish<M> {
    fn into_outcome(self, scope: &Scope) -> Outcome {
        match scope.prepare_output(self) {
            Ok(outgoing) => Outcome::publishing(vec![outgoing]),
            Err(error) => Outcome::unprepared(&error),
        }
    }

    fn publishes(contracts: &mut Vec<&'static Contract>) {
        contracts.push(M::CONTRACT);
    }
}

#[diagnostic::do_not_recommend]
impl<T: IntoOutcome> IntoOutcome for Option<T> {
    fn into_outcome(self, scope: &Scope) -> Outcome {
        self.map_or_else(Outcome::done, |value| value.into_outcome(scope))
    }

    fn publishes(contracts: &mut Vec<&'static Contract>) {
        T::publishes(contracts);
    }

    fn replies() -> bool {
        T::replies()
    }
}

#[diagnostic::do_not_recommend]
impl<T: IntoOutcome> IntoOutcome for Vec<T> {
    fn into_outcome(self, scope: &Scope) -> Outcome {
        join(self.into_iter().map(|value| value.into_outcome(scope)))
    }

    fn publishes(contracts: &mut Vec<&'static Contract>) {
        T::publishes(contracts);
    }

    fn replies() -> bool {
        T::replies()
    }
}

#[diagnostic::do_not_recommend]
impl<T: IntoOutcome, E: Failure> IntoOutcome for Result<T, E> {
    fn into_outcome(self, scope: &Scope) -> Outcome {
        match self {
            Ok(value) => value.into_outcome(scope),
            Err(failure) => Outcome::from_failure(&failure),
        }
    }

    fn publishes(contracts: &mut Vec<&'static Contract>) {
        T::publishes(contracts);
    }

    fn replies() -> bool {
        T::replies()
    }
}

macro_rules! tuples {
    ($(($($name:ident),+))+) => {$(
        #[diagnostic::do_not_recommend]
        impl<$($name: IntoOutcome),+> IntoOutcome for ($($name,)+) {
            #[allow(non_snake_case, reason = "the type parameters name the values")]
            fn into_outcome(self, scope: &Scope) -> Outcome {
                let ($($name,)+) = self;
                join([$($name.into_outcome(scope)),+])
            }

            fn publishes(contracts: &mut Vec<&'static Contract>) {
                $($name::publishes(contracts);)+
            }

            fn replies() -> bool {
                $($name::replies())||+
            }
        }
    )+};
}

tuples! { (A) (A, B) (A, B, C) (A, B, C, D) (A, B, C, D, E) (A, B, C, D, E, F) }

/// Several outcomes as one: all messages together, and the first fate that is not `Done` wins
/// (then nothing is published, as after any failed attempt).
fn join(outcomes: impl IntoIterator<Item = Outcome>) -> Outcome {
    let mut all = Outcome::done();
    for mut outcome in outcomes {
        if outcome.fate != Fate::Done {
            return outcome;
        }
        all.outgoing.append(&mut outcome.outgoing);
    }
    all
}
