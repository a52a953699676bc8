//! Why a call gave no answer that is of use.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::error::{CommunicationError, CommunicationErrorKind};
use crate::handling::{Failure, Fate, describe};

use super::problem::Problem;

/// Longest part of an error's body that is kept, in bytes.
pub(super) const ERROR_BYTES_MAX: usize = 64 << 10;

/// What kind of failure a [`CallError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallErrorKind {
    /// As many calls of the service run as may, and nobody finished in time.
    BulkheadFull,
    /// Calls to the service failed so often that none is made for a while.
    CircuitBreakerOpen,
    /// No connection could be made.
    Connect,
    /// The connection was lost before the whole answer had come.
    ConnectionLost,
    /// The answer is not what the method says.
    Decode,
    /// More calls would start than the configured rate allows.
    RateLimited,
    /// The arguments cannot be sent: an empty part of a path, a value that no query string holds.
    Request,
    /// Every attempt failed; the last failure is the source.
    RetryExhausted,
    /// No endpoint of the service is known.
    ServiceDiscovery,
    /// The service answered with a status that is no success.
    Status,
    /// It took too long.
    Timeout,
    /// The answer is longer than may be.
    TooLarge,
}

impl CallErrorKind {
    /// How many kinds there are.
    pub(super) const COUNT: usize = Self::TooLarge as usize + 1;

    /// The name in metrics.
    ///
    /// ```
    /// use interline::http::CallErrorKind;
    ///
    /// assert_eq!(CallErrorKind::BulkheadFull.as_str(), "bulkhead_full");
    /// ```
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BulkheadFull => "bulkhead_full",
            Self::CircuitBreakerOpen => "circuit_open",
            Self::Connect => "connect",
            Self::ConnectionLost => "connection_lost",
            Self::Decode => "decode",
            Self::RateLimited => "rate_limited",
            Self::Request => "request",
            Self::RetryExhausted => "retry_exhausted",
            Self::ServiceDiscovery => "service_discovery",
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
        }
    }
}

/// Whether the service may have seen the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sent {
    /// It has not.
    No,
    /// Nobody knows.
    Maybe,
    /// It has, and answered.
    Yes,
}

/// A call to another service failed.
///
/// `E` is what the service says about its errors: a [`Problem`] unless the client names another type.
/// It is read where the answer's content type is JSON.
pub struct CallError<E = Problem> {
    failure: Box<CallFailure>,
    problem: Option<Box<E>>,
}

/// What is known of a failure, whatever the service says about its errors.
pub(crate) struct CallFailure {
    pub(super) kind: CallErrorKind,
    pub(super) call: Arc<CallName>,
    pub(super) endpoint: Option<Arc<str>>,
    pub(super) attempts: u32,
    pub(super) sent: Sent,
    pub(super) status: Option<StatusCode>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) retry_after: Option<Duration>,
    /// What happened, in words.
    pub(super) text: Cow<'static, str>,
    pub(super) source: Option<Box<dyn Error + Send + Sync>>,
}

/// Which call it was.
#[derive(Debug, Default)]
pub(super) struct CallName {
    pub(super) service: Arc<str>,
    /// `Orders::order`, or the path where there is no trait.
    pub(super) method: Cow<'static, str>,
}

impl CallFailure {
    pub(super) fn new(
        kind: CallErrorKind,
        call: &Arc<CallName>,
        text: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            kind,
            call: Arc::clone(call),
            endpoint: None,
            attempts: 0,
            sent: Sent::No,
            status: None,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            retry_after: None,
            text: text.into(),
            source: None,
        }
    }

    /// The same for somebody else who waited for it.
    pub(super) fn copy(&self) -> Self {
        let source = self.source.as_ref().map(|source| source.to_string().into());
        Self {
            kind: self.kind,
            call: Arc::clone(&self.call),
            endpoint: self.endpoint.clone(),
            attempts: self.attempts,
            sent: self.sent,
            status: self.status,
            headers: self.headers.clone(),
            body: self.body.clone(),
            retry_after: self.retry_after,
            text: self.text.clone(),
            source,
        }
    }

    /// Keeps as much of the body as an error may hold.
    pub(super) fn with_body(mut self, body: Bytes) -> Self {
        // A slice would keep all of it alive.
        self.body = match body.get(..ERROR_BYTES_MAX) {
            Some(beginning) => Bytes::copy_from_slice(beginning),
            None => body,
        };
        self
    }

    /// The same, where the service that stands in gave nothing either.
    pub(super) fn beside(mut self: Box<Self>, other: &Self) -> Box<Self> {
        self.sent = self.sent.max(other.sent);
        let (service, text) = (&other.call.service, &other.text);
        self.text = format!(
            "{}; service `{service}`, which stands in: {text}",
            self.text
        )
        .into();
        self
    }

    pub(super) fn is_client_error(&self) -> bool {
        match (self.kind, self.status) {
            (CallErrorKind::Request, _) => true,
            (CallErrorKind::Decode | CallErrorKind::TooLarge, _) | (_, None) => false,
            (_, Some(status)) => status.is_client_error() && !may_be_repeated(status),
        }
    }

    pub(super) fn is_json(&self) -> bool {
        let content_type = self.headers.get(http::header::CONTENT_TYPE);
        let text = content_type.and_then(|value| value.to_str().ok());
        let essence = text.and_then(|text| text.split(';').next());
        essence.is_some_and(|essence| {
            let essence = essence.trim().to_ascii_lowercase();
            essence == "application/json" || essence.ends_with("+json")
        })
    }
}

impl<E> CallError<E> {
    pub(super) fn new(failure: Box<CallFailure>, problem: Option<E>) -> Self {
        Self {
            failure,
            problem: problem.map(Box::new),
        }
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> CallErrorKind {
        self.failure.kind
    }

    /// The service that was called.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.failure.call.service
    }

    /// The method that was called: `Orders::order`.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.failure.call.method
    }

    /// The endpoint that the last attempt went to.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        self.failure.endpoint.as_deref()
    }

    /// How many attempts were made; 0 if none was.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.failure.attempts
    }

    /// The status of the last answer, if there was one.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.failure.status
    }

    /// The headers of the last answer.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.failure.headers
    }

    /// The body of the last answer, of at most 64 KiB.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.failure.body
    }

    /// What the service says about its error, if it says so in the form of `E`.
    #[must_use]
    pub fn problem(&self) -> Option<&E> {
        self.problem.as_deref()
    }

    /// Whether trying again later can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.failure.kind {
            CallErrorKind::Decode | CallErrorKind::Request | CallErrorKind::TooLarge => false,
            CallErrorKind::Status => self
                .failure
                .status
                .is_some_and(|status| status.is_server_error() || may_be_repeated(status)),
            _ => true,
        }
    }

    /// Whether the request itself is at fault, so that it fails wherever it goes: it could not be
    /// written, or was refused with a status from 400 on that does not ask to come again. No fallback
    /// covers that up.
    #[must_use]
    pub fn is_client_error(&self) -> bool {
        self.failure.is_client_error()
    }

    /// Whether a time limit was reached.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.failure.kind == CallErrorKind::Timeout
    }

    /// Whether the service may have seen one of the attempts.
    #[must_use]
    pub fn is_sent(&self) -> Sent {
        self.failure.sent
    }

    /// When the service, or our own circuit breaker, will take the next call.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.failure.retry_after
    }
}

/// Whether a status says that the same request may succeed a little later.
pub(super) fn may_be_repeated(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 502 | 503 | 504)
}

impl<E> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

impl fmt::Display for CallFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CallName { service, method } = &*self.call;
        write!(f, "{method} of service `{service}`: {}", self.text)?;
        if let Some(endpoint) = &self.endpoint {
            write!(f, " ({endpoint}")?;
            match self.attempts {
                0 | 1 => f.write_str(")")?,
                attempts => write!(f, ", {attempts} attempts)")?,
            }
        }
        Ok(())
    }
}

impl<E: fmt::Debug> fmt::Debug for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallError")
            .field("kind", &self.failure.kind)
            .field("text", &self.failure.to_string())
            .field("status", &self.failure.status)
            .field("problem", &self.problem)
            .field("source", &self.failure.source)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CallFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFailure")
            .field("kind", &self.kind)
            .field("text", &self.to_string())
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Error for CallFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl<E: fmt::Debug> Error for CallError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.failure.source()
    }
}

impl<E: fmt::Debug> Failure for CallError<E> {
    fn fate(&self) -> Fate {
        Fate::Retry {
            after: self.retry_after(),
        }
    }

    fn error_type(&self) -> Cow<'static, str> {
        Cow::Owned(format!("CallError::{:?}", self.kind()))
    }

    fn text(&self) -> String {
        describe(&*self.failure)
    }
}

impl<E: fmt::Debug + Send + Sync + 'static> From<CallError<E>> for CommunicationError {
    fn from(error: CallError<E>) -> Self {
        let kind = match error.kind() {
            CallErrorKind::CircuitBreakerOpen => CommunicationErrorKind::CircuitBreakerOpen,
            CallErrorKind::RetryExhausted => CommunicationErrorKind::RetryExhausted,
            CallErrorKind::ServiceDiscovery => CommunicationErrorKind::ServiceDiscovery,
            CallErrorKind::Timeout => CommunicationErrorKind::Timeout,
            _ => CommunicationErrorKind::Call,
        };
        let (retryable, timeout) = (error.is_retryable(), error.is_timeout());
        Self::from_source(kind, error)
            .with_retryable(retryable)
            .with_timeout(timeout)
    }
}
