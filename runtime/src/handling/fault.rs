//! A fault: the answer to a request that could not be handled.

use std::fmt;

use crate::message::{Headers, Incoming, headers::name};

use super::outcome::{Failed, Reason};

/// What the one who was asked says instead of a reply. It travels as headers, with an empty body.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// Why: a code of [`Reason`], as text, since a newer responder may have others.
    pub reason: String,
    /// The error in words.
    pub error: String,
    /// The type of the error, for example `QuoteError::UnknownSku`.
    pub error_type: String,
    /// How many attempts were made.
    pub attempts: u32,
    /// Whether the same request can succeed later.
    pub retryable: bool,
    /// The service that was asked.
    pub service: String,
    /// The handler that was asked.
    pub handler: String,
}

impl Fault {
    /// What the header `message-type` of a fault says.
    pub const MESSAGE_TYPE: &'static str = "fault";

    /// The fault of a failed attempt that is not followed by another.
    pub(crate) fn of(failed: &Failed, attempts: u32, service: &str, handler: &str) -> Self {
        // What every attempt found wrong in the request itself stays wrong.
        let retryable = matches!(
            failed.reason,
            Reason::Error
                | Reason::NewerVersion
                | Reason::OutputFailed
                | Reason::OutputUnroutable
                | Reason::Panic
                | Reason::RetriesExhausted
                | Reason::Timeout
                | Reason::Abandoned
        );
        Self {
            reason: failed.reason.as_str().to_owned(),
            error: super::truncate(failed.text.clone()),
            error_type: failed.error_type.clone().into_owned(),
            attempts,
            retryable,
            service: service.to_owned(),
            handler: handler.to_owned(),
        }
    }

    pub(super) fn read(incoming: &Incoming) -> Self {
        let headers = &incoming.headers;
        let text = |name: &str| headers.text(name).unwrap_or_default().into_owned();
        let attempts = headers.get(name::FAULT_ATTEMPTS);
        Self {
            reason: text(name::FAULT_REASON),
            error: text(name::FAULT_ERROR),
            error_type: text(name::FAULT_ERROR_TYPE),
            attempts: attempts
                .and_then(|value| u32::try_from(value.to_u64()?).ok())
                .unwrap_or(1),
            retryable: text(name::FAULT_RETRYABLE) == "true",
            service: text(name::FAULT_SERVICE),
            handler: text(name::FAULT_HANDLER),
        }
    }

    pub(crate) fn write(&self, headers: &mut Headers) {
        headers.set(name::MESSAGE_TYPE, Self::MESSAGE_TYPE);
        headers.set(name::FAULT_REASON, self.reason.clone());
        headers.set(name::FAULT_ERROR, self.error.clone());
        headers.set(name::FAULT_ERROR_TYPE, self.error_type.clone());
        headers.set(name::FAULT_ATTEMPTS, self.attempts);
        let retryable = if self.retryable { "true" } else { "false" };
        headers.set(name::FAULT_RETRYABLE, retryable);
        headers.set(name::FAULT_SERVICE, self.service.clone());
        headers.set(name::FAULT_HANDLER, self.handler.clone());
    }

    /// Whether the same request can succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            service, handler, ..
        } = self;
        let times = match self.attempts {
            1 => String::new(),
            attempts => format!(" after {attempts} attempts"),
        };
        write!(
            f,
            "`{handler}` of `{service}` failed{times} ({}): {}",
            self.reason, self.error
        )
    }
}
