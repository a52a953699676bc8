//! Failures of the server as errors of the broker.

use std::sync::Arc;

use crate::messaging::{BrokerError, BrokerErrorKind};
use crate::redis::{Failure, FailureKind};

/// The failure as an error of the broker called `broker`.
pub(super) fn broker_error(broker: &Arc<str>, failure: &Failure) -> BrokerError {
    let kind = match failure.kind {
        FailureKind::Authentication => BrokerErrorKind::Authentication,
        FailureKind::Configuration => BrokerErrorKind::Configuration,
        FailureKind::ConnectionLost => BrokerErrorKind::ConnectionLost,
        FailureKind::NoGroup => BrokerErrorKind::NotFound,
        FailureKind::Permission => BrokerErrorKind::Permission,
        FailureKind::Refused => BrokerErrorKind::Refused,
        FailureKind::Timeout => BrokerErrorKind::Timeout,
        FailureKind::Unreachable => BrokerErrorKind::Unreachable,
        FailureKind::Unsupported => BrokerErrorKind::Unsupported,
        FailureKind::WrongType => BrokerErrorKind::TopologyConflict,
    };
    BrokerError::new(kind, broker, failure.message.clone())
}

/// There is no connection.
pub(super) fn not_connected(broker: &Arc<str>, why: Option<&str>) -> BrokerError {
    let text = match why {
        Some(why) => format!("not connected: {why}"),
        None => "not connected".to_owned(),
    };
    BrokerError::new(BrokerErrorKind::Unreachable, broker, text)
}
