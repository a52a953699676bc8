//! What became of an attempt or a call: whether another is of use, and what it says about health.

use std::sync::Arc;

use crate::resilience::Signal;

use super::super::error::{CallErrorKind, CallFailure, CallName, Sent};
use super::super::judge::{Judge, Judged};
use super::super::transport::{TransportError, Why};
use super::request::Answer;

/// What a failed attempt means for the next.
pub(super) enum Verdict {
    /// Nothing was sent: any call may be repeated.
    NotSent,
    /// It may have been sent: what is repeatable may be repeated.
    Retryable,
    /// Repeating it is of no use.
    Final,
}

/// What came of a request to which nothing was answered.
pub(super) fn of_transport(
    call: &Arc<CallName>,
    error: TransportError,
) -> (CallFailure, Verdict, Signal) {
    let (kind, sent, verdict, signal) = match &error {
        TransportError::Connect(_) => (
            CallErrorKind::Connect,
            Sent::No,
            Verdict::NotSent,
            Signal::Failure,
        ),
        // On another connection it is welcome, so it says nothing of the endpoint.
        TransportError::GivenBack(_, Why::Leaving) => (
            CallErrorKind::ConnectionLost,
            Sent::No,
            Verdict::NotSent,
            Signal::Ignored,
        ),
        TransportError::GivenBack(_, Why::Busy) => (
            CallErrorKind::ConnectionLost,
            Sent::No,
            Verdict::NotSent,
            Signal::Refused,
        ),
        TransportError::Lost(_) => (
            CallErrorKind::ConnectionLost,
            Sent::Maybe,
            Verdict::Retryable,
            Signal::Failure,
        ),
        TransportError::Request(_) => (
            CallErrorKind::Request,
            Sent::No,
            Verdict::Final,
            Signal::Ignored,
        ),
        // The endpoint cannot help it.
        TransportError::Body(_) => (
            CallErrorKind::Request,
            Sent::Maybe,
            Verdict::Final,
            Signal::Ignored,
        ),
        // The endpoint works; what it says is more than was asked for.
        TransportError::TooLarge(_) => (
            CallErrorKind::TooLarge,
            Sent::Yes,
            Verdict::Final,
            Signal::Success,
        ),
    };
    let mut failure = CallFailure::new(kind, call, explain(&error));
    failure.sent = sent;
    failure.source = match error {
        TransportError::Connect(cause)
        | TransportError::GivenBack(cause, _)
        | TransportError::Lost(cause)
        | TransportError::Request(cause)
        | TransportError::Body(cause) => Some(Box::new(cause)),
        TransportError::TooLarge(_) => None,
    };
    (failure, verdict, signal)
}

/// The error in words.
pub(in super::super) fn explain(error: &TransportError) -> String {
    match error {
        TransportError::Connect(cause) => format!("no connection: {cause}"),
        TransportError::GivenBack(cause, _) => format!("the request was given back: {cause}"),
        TransportError::Lost(cause) => format!("the connection was lost: {cause}"),
        TransportError::Request(cause) => format!("the request cannot be sent: {cause}"),
        TransportError::Body(cause) => format!("the body broke off: {cause}"),
        TransportError::TooLarge(limit) => {
            format!("the answer is longer than {limit} bytes (`response_bytes_max`)")
        }
    }
}

/// What a call says about the health of the service.
pub(super) fn signal_of_call(judge: &Judge, result: &Result<Answer, Box<CallFailure>>) -> Signal {
    let failure = match result {
        Ok(answer) => {
            return judge.signal(&Judged {
                status: answer.status,
                headers: &answer.headers,
                body: &answer.body,
            });
        }
        Err(failure) => failure,
    };
    match (failure.kind, failure.status) {
        (_, Some(status)) => judge.signal(&Judged {
            status,
            headers: &failure.headers,
            body: &failure.body,
        }),
        (CallErrorKind::TooLarge, None) => Signal::Success,
        // Nobody was asked.
        (CallErrorKind::Timeout, None) if failure.attempts == 0 => Signal::Ignored,
        (
            CallErrorKind::RateLimited | CallErrorKind::Request | CallErrorKind::ServiceDiscovery,
            None,
        ) => Signal::Ignored,
        _ => Signal::Failure,
    }
}
