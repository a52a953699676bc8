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
        Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve => {
            BrokerErrorKind::Unreachable
        }
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

/// The kind and the words of an error.
pub(super) fn told(error: &KafkaError) -> (BrokerErrorKind, String) {
    match (error, code(error)) {
        (KafkaError::ClientConfig(_, why, key, _), _) => (
            BrokerErrorKind::Configuration,
            format!("librdkafka takes no such `{key}`: {}", plain(why)),
        ),
        (KafkaError::ClientCreation(why), _) => (BrokerErrorKind::Configuration, plain(why)),
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
    }
}
