//! What the server and the client crate report, in the user's words, classed by what can be done.

use std::io;
use std::sync::Arc;

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::{Error, ErrorKind};

use crate::config::redact_url;
use crate::messaging::{BrokerError, BrokerErrorKind};

#[cfg(feature = "tls")]
use super::handshake::explain;

/// The error of a connection attempt to `place` (host, port and virtual host, no credentials).
pub(super) fn connecting(broker: &Arc<str>, place: &Place, error: &Error) -> BrokerError {
    let host = &place.host;
    let (kind, message) = match error.kind() {
        ErrorKind::ProtocolError(amqp) => {
            let text = amqp.get_message().as_str();
            match amqp.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => (
                    BrokerErrorKind::Authentication,
                    format!("{host} refused the credentials of user {}", place.user),
                ),
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if text.contains("not found") => (
                    BrokerErrorKind::NotFound,
                    format!("{host} has no virtual host `{}`", place.vhost),
                ),
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
                    if text.contains("access to vhost") =>
                {
                    (
                        BrokerErrorKind::Permission,
                        format!(
                            "user {} has no access to virtual host `{}` of {host}",
                            place.user, place.vhost
                        ),
                    )
                }
                _ => (
                    BrokerErrorKind::Refused,
                    format!("{host} refused the connection: {}", plain(text)),
                ),
            }
        }
        ErrorKind::IOError(io) => explain(broker, place, io).unwrap_or_else(|| io_error(place, io)),
        ErrorKind::InvalidProtocolVersion(_) | ErrorKind::ParsingError(_) => (
            BrokerErrorKind::Configuration,
            format!(
                "{host} does not speak AMQP 0-9-1; the url needs the AMQP port (5672, or 5671 with TLS)"
            ),
        ),
        ErrorKind::MissingHeartbeatError => (
            BrokerErrorKind::ConnectionLost,
            format!("{host} sent no heartbeat in time"),
        ),
        _ => (
            BrokerErrorKind::Unreachable,
            format!(
                "the connection to {host} failed: {}",
                plain(&error.to_string())
            ),
        ),
    };
    BrokerError::new(kind, broker, message)
}

/// Where a connection goes, without credentials but for the user's name, quoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) vhost: String,
    pub(super) user: String,
    pub(super) tls: bool,
    /// Whether the client has a certificate to show.
    #[cfg(feature = "tls")]
    pub(super) certificate: bool,
}

#[cfg(not(feature = "tls"))]
fn explain(_: &Arc<str>, _: &Place, _: &io::Error) -> Option<(BrokerErrorKind, String)> {
    None
}

fn io_error(place: &Place, error: &io::Error) -> (BrokerErrorKind, String) {
    let host = &place.host;
    let text = plain(&error.to_string());
    match error.kind() {
        io::ErrorKind::ConnectionRefused => (
            BrokerErrorKind::Unreachable,
            format!("nothing listens at {host} (connection refused)"),
        ),
        io::ErrorKind::TimedOut => (
            BrokerErrorKind::Unreachable,
            format!("{host} did not answer in time"),
        ),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof if place.tls => (
            BrokerErrorKind::Unreachable,
            format!(
                "{host} ended the connection: {text} (a server that misses a client certificate, or \
                 does not like it, may do that)"
            ),
        ),
        _ => (
            BrokerErrorKind::Unreachable,
            format!("the connection to {host} failed: {text}"),
        ),
    }
}

/// The error of an operation on `what`, such as "queue `q`".
pub(super) fn operation(broker: &Arc<str>, what: &str, error: &Error) -> BrokerError {
    let ErrorKind::ProtocolError(amqp) = error.kind() else {
        let kind = match error.kind() {
            ErrorKind::ChannelsLimitReached => BrokerErrorKind::Refused,
            _ => BrokerErrorKind::ConnectionLost,
        };
        let text = plain(&error.to_string());
        return BrokerError::new(kind, broker, format!("{what}: {text}"));
    };
    let text = amqp.get_message().as_str();
    let (kind, message) = match amqp.kind() {
        AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED) => match conflict(text) {
            Some(conflict) => (BrokerErrorKind::TopologyConflict, conflict),
            None if is_unsupported(text) => (
                BrokerErrorKind::Unsupported,
                format!(
                    "{what} needs RabbitMQ 3.10 or newer with all feature flags enabled \
                     (`rabbitmqctl enable_feature_flag all`): {}",
                    plain(text)
                ),
            ),
            None => (
                BrokerErrorKind::TopologyConflict,
                format!("{what}: {}", plain(text)),
            ),
        },
        AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => (
            BrokerErrorKind::Permission,
            format!("{what}: the user may not do this: {}", plain(text)),
        ),
        AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND) => (
            BrokerErrorKind::NotFound,
            format!("{what}: {}", missing(text).unwrap_or_else(|| plain(text))),
        ),
        // An exclusive queue, which may be of a connection that the server has not yet noticed to be gone.
        AMQPErrorKind::Soft(AMQPSoftError::RESOURCELOCKED) => (
            BrokerErrorKind::Refused,
            format!("{what} is held by another connection: {}", plain(text)),
        ),
        AMQPErrorKind::Hard(AMQPHardError::NOTIMPLEMENTED) => (
            BrokerErrorKind::Unsupported,
            format!("{what}: the server cannot do this: {}", plain(text)),
        ),
        AMQPErrorKind::Hard(AMQPHardError::CONNECTIONFORCED) => (
            BrokerErrorKind::ConnectionLost,
            format!("{what}: the server closed the connection: {}", plain(text)),
        ),
        _ => (BrokerErrorKind::Refused, format!("{what}: {}", plain(text))),
    };
    BrokerError::new(kind, broker, message)
}

fn is_unsupported(text: &str) -> bool {
    text.contains("invalid arg")
        || text.contains("feature flag")
        || text.contains("unknown queue type")
}

/// What `PRECONDITION_FAILED - inequivalent arg 'A' for queue 'Q' in vhost 'V': received ... but
/// current is ...` means to somebody who has to repair it.
pub(super) fn conflict(text: &str) -> Option<String> {
    let rest = text.split_once("inequivalent arg '")?.1;
    let (argument, rest) = rest.split_once("' for ")?;
    let (object, rest) = rest.split_once(" '")?;
    let (name, rest) = rest.split_once("' in vhost '")?;
    let values = rest.split_once("received ")?.1;
    let (ours, theirs) = values.split_once(" but current is ")?;
    Some(format!(
        "{object} `{name}`: argument `{argument}` is {} on the server, {} here; change one of them, \
         or delete the {object} when it is empty",
        value(theirs),
        value(ours)
    ))
}

fn value(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    if text.starts_with("none") {
        return "not set".to_owned();
    }
    match text.split('\'').nth(1) {
        Some(value) => format!("`{value}`"),
        None => plain(text),
    }
}

/// "no queue 'q' in vhost '/'" as "queue `q` does not exist".
fn missing(text: &str) -> Option<String> {
    let (object, name) = missing_object(text)?;
    Some(format!("{object} `{name}` does not exist"))
}

/// The object and name of `NOT_FOUND - no exchange 'x' in vhost '/'`.
pub(super) fn missing_object(text: &str) -> Option<(&str, &str)> {
    let rest = text.split_once("no ")?.1;
    let (object, rest) = rest.split_once(" '")?;
    let (name, _) = rest.split_once("' in vhost")?;
    Some((object, name))
}

/// The server's own words in lower case style: without its code, and without credentials.
pub(super) fn plain(text: &str) -> String {
    let text = text.split_once(" - ").map_or(text, |(code, rest)| {
        let is_code = code
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        if is_code { rest } else { text }
    });
    redact_url(text.trim().trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::protocol::AMQPError;

    fn place() -> Place {
        Place {
            host: "rabbit:5672".into(),
            vhost: "prod".into(),
            user: "`app`".into(),
            tls: false,
            #[cfg(feature = "tls")]
            certificate: false,
        }
    }

    fn amqp(code: u16, text: &str) -> Error {
        let error = AMQPError::from_id(code, text.into()).unwrap();
        ErrorKind::ProtocolError(error).into()
    }

    #[test]
    fn a_conflict_names_queue_argument_and_both_values() {
        let text = "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'billing.orders' \
                    in vhost '/': received the value '20' of type 'signedint' but current is the value '5' of type 'signedint'";
        assert_eq!(
            conflict(text).unwrap(),
            "queue `billing.orders`: argument `x-delivery-limit` is `5` on the server, `20` here; \
             change one of them, or delete the queue when it is empty"
        );
        let text = "PRECONDITION_FAILED - inequivalent arg 'x-dead-letter-exchange' for queue 'q' in vhost '/': \
                    received the value '' of type 'longstr' but current is none";
        assert!(
            conflict(text)
                .unwrap()
                .contains("is not set on the server, `` here")
        );
        let text = "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'x' in vhost '/': received 'topic' but current is 'direct'";
        assert!(
            conflict(text).unwrap().starts_with(
                "exchange `x`: argument `type` is `direct` on the server, `topic` here"
            )
        );
        assert_eq!(conflict("PRECONDITION_FAILED - something else"), None);
    }

    #[test]
    fn errors_of_connecting_are_classed_and_name_the_host() {
        let broker: Arc<str> = "main".into();
        let cases = [
            (
                amqp(
                    403,
                    "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN",
                ),
                BrokerErrorKind::Authentication,
                "broker `main`: rabbit:5672 refused the credentials of user `app`",
            ),
            (
                amqp(530, "NOT_ALLOWED - vhost prod not found"),
                BrokerErrorKind::NotFound,
                "broker `main`: rabbit:5672 has no virtual host `prod`",
            ),
            (
                amqp(
                    530,
                    "NOT_ALLOWED - access to vhost 'prod' refused for user 'app'",
                ),
                BrokerErrorKind::Permission,
                "broker `main`: user `app` has no access to virtual host `prod` of rabbit:5672",
            ),
            (
                io::Error::from(io::ErrorKind::ConnectionRefused).into(),
                BrokerErrorKind::Unreachable,
                "broker `main`: nothing listens at rabbit:5672 (connection refused)",
            ),
        ];
        for (error, kind, text) in cases {
            let told = connecting(&broker, &place(), &error);
            assert_eq!((told.kind(), told.to_string().as_str()), (kind, text));
        }
    }

    #[test]
    fn errors_of_operations_say_what_to_do() {
        let broker: Arc<str> = "main".into();
        let told = operation(
            &broker,
            "queue `q`",
            &amqp(404, "NOT_FOUND - no queue 'q' in vhost '/'"),
        );
        assert_eq!(told.kind(), BrokerErrorKind::NotFound);
        assert_eq!(
            told.to_string(),
            "broker `main`: queue `q`: queue `q` does not exist"
        );
        let told = operation(
            &broker,
            "queue `q`",
            &amqp(
                406,
                "PRECONDITION_FAILED - invalid arg 'x-dead-letter-strategy' for queue 'q' in vhost '/'",
            ),
        );
        assert_eq!(told.kind(), BrokerErrorKind::Unsupported);
        assert!(operation(&broker, "queue `q`", &amqp(405, "RESOURCE_LOCKED - x")).is_retryable());
        assert_eq!(plain("NOT_FOUND - no queue"), "no queue");
    }
}
