//! Errors of handlers: each one says what becomes of the message.

use std::borrow::Cow;
use std::convert::Infallible;
use std::error::Error;

use crate::message::CodecError;

use super::outcome::Fate;
use super::publish::PublishError;
use super::request::RequestError;

/// Longest error text that is kept with a message, in bytes.
pub(crate) const ERROR_TEXT_BYTES_MAX: usize = 4_096;

/// An error that says what becomes of the message whose handling failed.
///
/// Derive it: every variant must then name its fate, and a new variant without one does not
/// compile.
///
/// ```
/// use interline::prelude::*;
///
/// #[derive(Debug, thiserror::Error, Failure)]
/// pub enum ChargeError {
///     #[error("bank unreachable")]
///     #[fate(retry)]
///     Network,
///     #[error("card refused")]
///     #[fate(dead_letter)]
///     CardRefused,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what becomes of the message",
    label = "this error type does not implement `Failure`",
    note = "derive it and give each variant a fate: #[derive(Failure)] with #[fate(retry)], #[fate(dead_letter)] or #[fate(discard)]",
    note = "an error that is always tried again can be returned as `Box<dyn std::error::Error + Send + Sync>`"
)]
pub trait Failure {
    /// What becomes of the message.
    fn fate(&self) -> Fate;

    /// The type of the error, for headers, logs and metrics: `ChargeError::Network`.
    fn error_type(&self) -> Cow<'static, str>;

    /// The error in words, with the errors that led to it.
    fn text(&self) -> String;
}

/// An error in words, with the errors that led to it: `bank unreachable: connection refused`.
/// Longer texts are cut.
#[must_use]
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors repeat their source in their own text.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        if text.len() > ERROR_TEXT_BYTES_MAX {
            break;
        }
        source = cause.source();
    }
    truncate(text)
}

/// Cuts a text to [`ERROR_TEXT_BYTES_MAX`] at a character's border.
pub(crate) fn truncate(mut text: String) -> String {
    if text.len() > ERROR_TEXT_BYTES_MAX {
        let mut end = ERROR_TEXT_BYTES_MAX - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

impl Failure for Box<dyn Error + Send + Sync> {
    fn fate(&self) -> Fate {
        Fate::Retry { after: None }
    }

    fn error_type(&self) -> Cow<'static, str> {
        Cow::Borrowed("dyn Error")
    }

    fn text(&self) -> String {
        describe(&**self)
    }
}

impl Failure for PublishError {
    fn fate(&self) -> Fate {
        Fate::Retry { after: None }
    }

    fn error_type(&self) -> Cow<'static, str> {
        Cow::Borrowed("PublishError")
    }

    fn text(&self) -> String {
        describe(self)
    }
}

impl Failure for RequestError {
    fn fate(&self) -> Fate {
        if self.is_retryable() {
            Fate::Retry { after: None }
        } else {
            Fate::DeadLetter
        }
    }

    fn error_type(&self) -> Cow<'static, str> {
        Cow::Borrowed("RequestError")
    }

    fn text(&self) -> String {
        describe(self)
    }
}

impl Failure for CodecError {
    fn fate(&self) -> Fate {
        Fate::DeadLetter
    }

    fn error_type(&self) -> Cow<'static, str> {
        Cow::Borrowed("CodecError")
    }

    fn text(&self) -> String {
        describe(self)
    }
}

impl Failure for Infallible {
    fn fate(&self) -> Fate {
        match *self {}
    }

    fn error_type(&self) -> Cow<'static, str> {
        match *self {}
    }

    fn text(&self) -> String {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_text_carries_its_causes_and_is_bounded() {
        let error = Outer(std::io::Error::other("inner"));
        assert_eq!(describe(&error), "outer: inner");
        let long = Outer(std::io::Error::other("ä".repeat(ERROR_TEXT_BYTES_MAX)));
        let text = describe(&long);
        assert!(text.len() <= ERROR_TEXT_BYTES_MAX && text.ends_with('…'));
    }
}
