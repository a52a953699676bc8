//! What the cluster and the client library report, in the user's words, classed by what can be done.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::config::redact_url;
use crate::messaging::BrokerErrorKind;

/// The code of the server or of the library, if the error has one.
pub(super) fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code)
        | KafkaError::ConsumerCommit(code)
        | KafkaError::ConsumerQueueClose(code)
        | KafkaError::Flush(code)
        | KafkaError::Global(code)
        | KafkaError::GroupListFetch(code)
        | KafkaError::MessageConsumption(code)
        | KafkaError::MessageConsumptionFatal(code)
        | KafkaError::MessageProduction(code)
        | KafkaError::MetadataFetch(code)
        | KafkaError::OffsetFetch(code)
        | KafkaError::Rebalance(code)
        | KafkaError::SetPartitionOffset(code)
        | KafkaError::StoreOffset(code) => Some(*code),
        _ => None,
    }
}

/// What kind of failure a code is.
pub(super) fn kind(code: RDKafkaErrorCode) -> BrokerErrorKind {
    use RDKafkaErrorCode as Code;
    match code {
        Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => {
            BrokerErrorKind::Authentication
        }
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed => BrokerErrorKind::Permission,
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
            BrokerErrorKind::NotFound
        }
        Code::AllBrokersDown
        | Code::BrokerTransportFailure
        | Code::DestroyBroker
        | Code::Resolve => BrokerErrorKind::Unreachable,
        Code::OperationTimedOut | Code::RequestTimedOut | Code::TimedOutQueue => {
            BrokerErrorKind::Timeout
        }
        Code::UnsupportedVersion | Code::UnsupportedFeature => BrokerErrorKind::Unsupported,
        Code::InvalidReplicationFactor
        | Code::InvalidPartitions
        | Code::InvalidConfig
        | Code::InvalidTopic
        | Code::InconsistentGroupProtocol
        | Code::InvalidSessionTimeout
        | Code::PolicyViolation => BrokerErrorKind::Configuration,
        Code::SSL => BrokerErrorKind::Configuration,
        _ => BrokerErrorKind::Refused,
    }
}

/// Whether a coordinator or leader is only just being found, so that asking again may do.
pub(super) fn is_being_found(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::NotCoordinator
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::WaitingForCoordinator
            | Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
    )
}

/// The kind and the words of an error.
pub(super) fn told(error: &KafkaError) -> (BrokerErrorKind, String) {
    match (error, code(error)) {
        (KafkaError::ClientConfig(_, why, key, _), _) => (
            BrokerErrorKind::Configuration,
            format!("librdkafka takes no such `{key}`: {}", plain(why)),
        ),
        (KafkaError::ClientCreation(why), _) => {
            let mut why = plain(why);
            // What it is called here.
            for (theirs, ours) in [
                ("ssl.ca.location", "`tls.ca_file`"),
                ("ssl.certificate.location", "`tls.certificate_file`"),
                ("ssl.key.location", "`tls.key_file`"),
            ] {
                why = why.replace(theirs, ours);
            }
            (BrokerErrorKind::Configuration, why)
        }
        (KafkaError::Canceled, _) => (
            BrokerErrorKind::ConnectionLost,
            "the client was closed".to_owned(),
        ),
        (_, Some(code)) => (kind(code), words(code)),
        (other, None) => (BrokerErrorKind::Refused, plain(&other.to_string())),
    }
}

/// A code in words, without the library's own decoration.
pub(super) fn words(code: RDKafkaErrorCode) -> String {
    let text = code.to_string();
    // "UnknownTopicOrPartition (Broker: Unknown topic or partition)"
    let inner = text
        .split_once('(')
        .map_or(text.as_str(), |(_, rest)| rest.trim_end_matches(')'));
    let inner = inner
        .strip_prefix("Broker: ")
        .or_else(|| inner.strip_prefix("Local: "))
        .unwrap_or(inner);
    let mut letters = inner.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => text,
    }
}

/// The library's own words without credentials.
pub(super) fn plain(text: &str) -> String {
    redact_url(text.trim().trim_end_matches('.'))
}

/// A handshake that failed, in our own words where the library names properties that are not the user's.
pub(super) fn handshake(place: &str, broker: &str, shows_one: bool, reason: &str) -> String {
    let keys = format!("brokers.{broker}.tls");
    let said = reason.to_ascii_lowercase();
    if is_alert(&said) && !shows_one {
        format!(
            "{place} wants a client certificate; name its files in `{keys}.certificate_file` and \
             `{keys}.key_file`"
        )
    } else if is_alert(&said) {
        format!("{place} refused the client certificate of `{keys}.certificate_file`")
    } else if said.contains("verify failed") {
        format!(
            "{place} shows a certificate that is not trusted: it is not signed by an authority of \
             `{keys}.ca_file` (without which the system's are trusted), has expired, or is for another name"
        )
    } else {
        format!("the TLS handshake with {place} failed: {reason}")
    }
}

/// Whether the server says that it does not take a client's certificate, or that it misses one.
fn is_alert(said: &str) -> bool {
    said.contains("alert") && (said.contains("certificate") || said.contains("unknown ca"))
}

/// Whether the words of an error of a connection say that trying again cannot help.
pub(super) fn is_terminal(code: RDKafkaErrorCode, reason: &str) -> bool {
    match code {
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => true,
        // A peer that hangs up in the handshake may be a server on its way down.
        RDKafkaErrorCode::SSL => {
            let reason = reason.to_ascii_lowercase();
            ["certificate", "verify failed", "unknown ca", "hostname"]
                .iter()
                .any(|word| reason.contains(word))
        }
        // The server looks at a client's certificate when the client thinks that the handshake is over.
        RDKafkaErrorCode::BrokerTransportFailure => is_alert(&reason.to_ascii_lowercase()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_in_plain_words_and_classed() {
        let missing = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
        assert_eq!(
            told(&missing),
            (
                BrokerErrorKind::NotFound,
                "unknown topic or partition".to_owned()
            )
        );
        assert_eq!(
            kind(RDKafkaErrorCode::TopicAuthorizationFailed),
            BrokerErrorKind::Permission
        );
        // The library gave up a connection for another one.
        assert_eq!(
            kind(RDKafkaErrorCode::DestroyBroker),
            BrokerErrorKind::Unreachable
        );
        assert!(is_terminal(RDKafkaErrorCode::Authentication, ""));
        assert!(is_terminal(
            RDKafkaErrorCode::SSL,
            "SSL handshake failed: certificate verify failed"
        ));
        assert!(!is_terminal(
            RDKafkaErrorCode::SSL,
            "SSL handshake failed: Disconnected"
        ));
        assert!(!is_terminal(RDKafkaErrorCode::AllBrokersDown, "1/1 down"));
        assert!(is_terminal(
            RDKafkaErrorCode::BrokerTransportFailure,
            "Receive failed: SSL routines::sslv3 alert bad certificate"
        ));
        assert!(!is_terminal(
            RDKafkaErrorCode::BrokerTransportFailure,
            "Connect to ipv4#127.0.0.1:1 failed: Connection refused"
        ));
    }
}
