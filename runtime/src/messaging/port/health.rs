//! How a connection is.

/// How a broker's connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerHealth {
    /// Its state.
    pub state: ConnectionState,
    /// The last error in words, without secrets.
    pub last_error: Option<String>,
}

impl BrokerHealth {
    /// This state, and no error.
    #[must_use]
    pub fn new(state: ConnectionState) -> Self {
        Self {
            state,
            last_error: None,
        }
    }

    /// With this last error.
    #[must_use]
    pub fn with_error(mut self, error: Option<String>) -> Self {
        self.last_error = error;
        self
    }
}

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// The broker takes no publishes at the moment.
    Blocked,
    /// Closed for good.
    Closed,
    /// Trying.
    Connecting,
    /// Not begun.
    Disconnected,
    /// It cannot be made until somebody acts.
    Failed,
    /// Up.
    Ready,
}
