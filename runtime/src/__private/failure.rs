//! What `#[derive(Failure)]` calls.

use std::error::Error;
use std::time::Duration;

use crate::handling::{Fate, describe};

/// A type that can be a failure: an error.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an error",
    label = "this type does not implement `std::error::Error`",
    note = "derive it, for example with thiserror: #[derive(Debug, thiserror::Error, Failure)]"
)]
pub trait IsError {
    /// The error in words.
    fn describe(&self) -> String;
}

#[diagnostic::do_not_recommend]
impl<E: Error + 'static> IsError for E {
    fn describe(&self) -> String {
        describe(self)
    }
}

/// A type that derives `Failure`.
pub trait FailureType: IsError {}

/// The error in words.
#[must_use]
pub fn failure_text<F: FailureType>(failure: &F) -> String {
    failure.describe()
}

/// A field that says how long to wait.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say how long to wait",
    label = "expected `Duration` or `Option<Duration>`"
)]
pub trait Delay {
    /// The wait, if there is one.
    fn delay(&self) -> Option<Duration>;
}

impl Delay for Duration {
    fn delay(&self) -> Option<Duration> {
        Some(*self)
    }
}

impl Delay for Option<Duration> {
    fn delay(&self) -> Option<Duration> {
        *self
    }
}

/// The field number `N` of a failure, which says how long to wait.
pub trait DelayField<const N: usize> {
    /// Its type.
    type Field: Delay;
}

/// Try again after the wait that a field holds.
pub fn retry_after_field<H: DelayField<N>, const N: usize>(field: &H::Field) -> Fate {
    Fate::Retry {
        after: field.delay(),
    }
}
