//! How a broker fails.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::error::{CommunicationError, CommunicationErrorKind};

/// What kind of failure a [`BrokerError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BrokerErrorKind {
    /// Wrong user, password or certificate.
    Authentication,
    /// The user may not do this.
    Permission,
    /// Something that is named does not exist: a virtual host, a queue.
    NotFound,
    /// What is there differs from what was declared.
    TopologyConflict,
    /// The broker lacks a feature that is needed.
    Unsupported,
    /// The network, or the broker is down.
    Unreachable,
    /// The connection or channel was lost on the way.
    ConnectionLost,
    /// It took too long.
    Timeout,
    /// The broker refused.
    Refused,
    /// Wrong configuration.
    Configuration,
}

/// A broker could not do something. Its text names broker and place, and never a secret.
pub struct BrokerError {
    kind: BrokerErrorKind,
    broker: Arc<str>,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl BrokerError {
    /// An error of this kind of the broker called `broker`.
    #[must_use]
    pub fn new(kind: BrokerErrorKind, broker: &Arc<str>, message: impl Into<String>) -> Self {
        Self {
            kind,
            broker: Arc::clone(broker),
            message: message.into(),
            source: None,
        }
    }

    /// With the error that led to it, which must not hold a secret.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> BrokerErrorKind {
        self.kind
    }

    /// What happened, without the broker's name.
    #[cfg(feature = "rabbitmq")]
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        use BrokerErrorKind::{ConnectionLost, Refused, Timeout, Unreachable};
        matches!(self.kind, ConnectionLost | Refused | Timeout | Unreachable)
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broker `{}`: {}", self.broker, self.message)
    }
}

impl fmt::Debug for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerError")
            .field("kind", &self.kind)
            .field("broker", &self.broker)
            .field("message", &self.message)
            .field("source", &self.source)
            .finish()
    }
}

impl Error for BrokerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<BrokerError> for CommunicationError {
    fn from(error: BrokerError) -> Self {
        let (retryable, timeout) = (
            error.is_retryable(),
            error.kind() == BrokerErrorKind::Timeout,
        );
        Self::from_source(CommunicationErrorKind::MessageBroker, error)
            .with_retryable(retryable)
            .with_timeout(timeout)
    }
}
