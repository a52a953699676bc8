//! Publishing: from a prepared message to the cluster's acknowledgement.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::handling::{PublishError, PublishErrorKind};
use crate::message::headers::name;
use crate::message::{Headers, Outgoing};
use crate::messaging::{BrokerError, BrokerErrorKind, TopologyMode};

use super::admin;
use super::core::{Core, Link, lock};
use super::errors;
use super::expiry;
use super::headers;
use super::link::{Watch, client_id};
use super::topology::Part;

/// How long a copy to a retry topic or to the dead letters may wait for its acknowledgement.
const COPY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a record that found the library's queue full is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(5);

/// How often a topic that exists is tried again because the producer has not heard of it, and how far
/// apart.
const MISSING_MAX: u32 = 20;
const MISSING_PAUSE: Duration = Duration::from_millis(100);
/// How long the producer may ask for it.
const LOOK: Duration = Duration::from_secs(2);

type Report = Result<(), RDKafkaErrorCode>;

/// The one producer of a broker.
pub(super) struct Sender {
    producer: ThreadedProducer<Reports>,
}

/// Tells each record's fate to whoever waits for it.
struct Reports(Watch);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<oneshot::Sender<Report>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let report = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(errors::code(error).unwrap_or(RDKafkaErrorCode::Fail)),
        };
        // Whoever asked may have given up waiting.
        let _ = waiting.send(report);
    }
}

/// A record, ready to be sent as often as it takes.
pub(super) struct Record<'a> {
    pub(super) topic: &'a str,
    /// That of the key, unless it is named.
    pub(super) partition: Option<i32>,
    pub(super) key: Option<&'a [u8]>,
    /// `None` for a record without a value, which takes out the ones of its key.
    pub(super) body: Option<&'a Bytes>,
    pub(super) headers: &'a Headers,
    /// Milliseconds since the epoch; now if absent.
    pub(super) timestamp: Option<i64>,
}

impl Sender {
    pub(super) fn new(core: &Arc<Core>) -> Result<Self, (BrokerErrorKind, String)> {
        let config = core.settings.producer(&client_id(core))?;
        let made = config.create_with_context(Reports(Watch::new(core)));
        let producer = made.map_err(|error| errors::told(&error))?;
        Ok(Self { producer })
    }

    /// Sends and waits for the acknowledgement of all replicas in sync. Whoever calls limits the time.
    async fn send(&self, record: &Record<'_>) -> Report {
        let (report, outcome) = oneshot::channel();
        let mut report = Box::new(report);
        loop {
            match self.begin(record, report) {
                Ok(()) => break,
                Err((RDKafkaErrorCode::QueueFull, back)) => {
                    report = back;
                    sleep(FULL_PAUSE).await;
                }
                Err((code, _)) => return Err(code),
            }
        }
        // The producer answers for every record that it took, at the latest when it is closed.
        outcome
            .await
            .unwrap_or(Err(RDKafkaErrorCode::PurgeInflight))
    }

    fn begin(
        &self,
        record: &Record<'_>,
        report: Box<oneshot::Sender<Report>>,
    ) -> Result<(), (RDKafkaErrorCode, Box<oneshot::Sender<Report>>)> {
        let headers: OwnedHeaders = headers::write(record.headers);
        let mut sent = BaseRecord::with_opaque_to(record.topic, report).headers(headers);
        if let Some(partition) = record.partition {
            sent = sent.partition(partition);
        }
        if let Some(key) = record.key {
            sent = sent.key(key);
        }
        if let Some(body) = record.body {
            sent = sent.payload(&body[..]);
        }
        if let Some(timestamp) = record.timestamp {
            sent = sent.timestamp(timestamp);
        }
        self.producer.send(sent).map_err(|(error, sent)| {
            let code = errors::code(&error).unwrap_or(RDKafkaErrorCode::Fail);
            (code, sent.delivery_opaque)
        })
    }

    /// Has the producer ask for a topic that exists and that it does not believe in.
    async fn look_at(self: &Arc<Self>, topic: &str) {
        let (sender, topic) = (Arc::clone(self), topic.to_owned());
        // Whatever it learns, the next attempt shows.
        let _ = tokio::task::spawn_blocking(move || {
            drop(sender.producer.client().fetch_metadata(Some(&topic), LOOK));
        })
        .await;
    }

    /// Waits until everything is acknowledged. Blocks.
    pub(super) fn flush(&self, limit: Duration) {
        // Past the limit what is left is reported as lost when the producer closes.
        let _ = self.producer.flush(limit);
    }
}

impl Core {
    pub(super) fn sender(&self) -> Option<Arc<Sender>> {
        lock(&self.sender).clone()
    }

    /// Publishes. Whoever calls limits the time.
    pub(super) async fn publish(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        let wrong =
            |kind, message: String| PublishError::new(kind, outgoing.topic.clone(), message);
        let prefix = self.context.prefix.as_deref().unwrap_or_default();
        let topic = format!("{prefix}{}", outgoing.topic);
        let headers = own_headers(&outgoing, self.context.clock.unix_millis());
        let mut missing = 0;
        loop {
            let sender = match (self.sender(), self.link.borrow().clone()) {
                (_, Link::Closed) | (None, Link::Idle) => {
                    let text = "the connection is closed".to_owned();
                    return Err(wrong(PublishErrorKind::Closed, text));
                }
                (_, Link::Failed(why)) => {
                    return Err(wrong(PublishErrorKind::ChannelLost, why.to_string())
                        .with_outgoing(outgoing.clone()));
                }
                (Some(sender), _) => sender,
                (None, _) => {
                    let text = "there is no producer".to_owned();
                    return Err(
                        wrong(PublishErrorKind::ChannelLost, text).with_outgoing(outgoing.clone())
                    );
                }
            };
            if self.partitions_of(&topic).is_none() {
                self.find(&topic, &outgoing).await?;
            }
            let record = Record {
                topic: &topic,
                partition: None,
                key: outgoing.key.as_deref().map(str::as_bytes),
                body: (!outgoing.kafka.tombstone).then_some(&outgoing.body),
                headers: &headers,
                timestamp: None,
            };
            let code = match sender.send(&record).await {
                Ok(()) => return Ok(()),
                Err(code) => code,
            };
            if is_missing(code) {
                self.forget_topic(&topic);
                // Deleted since it was looked at: then it can be made again, or nobody listens. One that
                // was just made the producer has to hear of.
                if missing < MISSING_MAX {
                    missing += 1;
                    if missing > 1 {
                        sender.look_at(&topic).await;
                        sleep(MISSING_PAUSE).await;
                    }
                    continue;
                }
            }
            let (kind, text) = failed(code);
            return Err(wrong(kind, text).with_outgoing(outgoing.clone()));
        }
    }

    /// Makes sure that a topic exists: one that does not is made where that is ours to do and it is
    /// fine that nobody listens yet.
    pub(super) async fn find(&self, topic: &str, outgoing: &Outgoing) -> Result<(), PublishError> {
        let wrong = |kind, message: String| {
            PublishError::new(kind, outgoing.topic.clone(), message).with_outgoing(outgoing.clone())
        };
        loop {
            if self.wait_until_up().await.is_none() {
                let error = self.not_connected().to_string();
                let kind = match &*self.link.borrow() {
                    Link::Failed(_) => PublishErrorKind::ChannelLost,
                    _ => PublishErrorKind::Closed,
                };
                return Err(wrong(kind, error));
            }
            match self.ask_for_topic(topic).await {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => break,
                Err(error) if error.is_retryable() => sleep(FULL_PAUSE * 10).await,
                Err(error) => return Err(wrong(PublishErrorKind::Nacked, error.to_string())),
            }
        }
        let makes = self.settings.topology == TopologyMode::Apply;
        let fine = outgoing.subscribers_optional || self.listens_to(&outgoing.topic);
        if !fine || !makes {
            let message = format!("topic `{topic}` does not exist, so nobody listens");
            return Err(wrong(PublishErrorKind::Unroutable, message));
        }
        let part = Part::Topic {
            name: topic.to_owned(),
            partitions: self.settings.partitions,
            partitions_of: None,
            replication: self.settings.replication,
            config: Vec::new(),
        };
        match admin::make_topics(self, &[&part]).await {
            Ok(()) => Ok(()),
            Err(error) => Err(wrong(PublishErrorKind::Unroutable, error.to_string())),
        }
    }

    /// Whether a template of this process's own stands for a topic.
    fn listens_to(&self, topic: &str) -> bool {
        let groups = lock(&self.groups);
        let mut members = groups.values().flat_map(|group| group.members());
        members.any(|member| {
            let pattern = &member.subscription.topic;
            pattern.is_pattern() && pattern.matches(topic)
        })
    }

    /// Sends a copy to a topic of our own, and waits for its acknowledgement.
    pub(super) async fn send_copy(&self, record: &Record<'_>) -> Result<(), CopyError> {
        let Some(sender) = self.sender() else {
            let text = "the connection is gone".to_owned();
            return Err(CopyError::Failed(BrokerErrorKind::ConnectionLost, text));
        };
        if self.partitions_of(record.topic).is_none() {
            // The producer would wait for it to appear.
            match self.ask_for_topic(record.topic).await {
                Ok(Some(_)) => {}
                Ok(None) => return Err(CopyError::Missing),
                Err(error) => return Err(CopyError::Failed(error.kind(), error.to_string())),
            }
        }
        match timeout(COPY_TIMEOUT, sender.send(record)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(code)) if is_missing(code) => {
                self.forget_topic(record.topic);
                Err(CopyError::Missing)
            }
            Ok(Err(code)) => Err(CopyError::Refused(code)),
            Err(_) => Err(CopyError::Failed(
                BrokerErrorKind::Timeout,
                format!("the copy was not acknowledged within {COPY_TIMEOUT:?}"),
            )),
        }
    }
}

/// Why a copy was not acknowledged.
#[derive(Debug)]
pub(super) enum CopyError {
    /// There is no such topic.
    Missing,
    /// The cluster, or the library, said so.
    Refused(RDKafkaErrorCode),
    Failed(BrokerErrorKind, String),
}

impl CopyError {
    pub(super) fn into_broker_error(self, core: &Core, topic: &str) -> BrokerError {
        core.error(self.kind(), self.told(topic))
    }

    fn kind(&self) -> BrokerErrorKind {
        match self {
            Self::Missing => BrokerErrorKind::NotFound,
            Self::Refused(code) => errors::kind(*code),
            Self::Failed(kind, _) => *kind,
        }
    }

    /// As whoever publishes `outgoing` is told it, whose record was for `topic`.
    pub(super) fn into_publish_error(self, topic: &str, outgoing: Outgoing) -> PublishError {
        let kind = match &self {
            Self::Missing => PublishErrorKind::Unroutable,
            Self::Refused(code) => failed(*code).0,
            Self::Failed(BrokerErrorKind::Timeout, _) => PublishErrorKind::Timeout,
            Self::Failed(BrokerErrorKind::ConnectionLost | BrokerErrorKind::Unreachable, _) => {
                PublishErrorKind::ChannelLost
            }
            Self::Failed(..) => PublishErrorKind::Nacked,
        };
        PublishError::new(kind, outgoing.topic.clone(), self.told(topic)).with_outgoing(outgoing)
    }

    /// In words.
    pub(super) fn told(&self, topic: &str) -> String {
        match self {
            Self::Missing => format!("topic `{topic}`: it does not exist"),
            Self::Refused(code) => format!("topic `{topic}`: {}", failed(*code).1),
            Self::Failed(_, text) => format!("topic `{topic}`: {text}"),
        }
    }

    /// Whether the topic takes no record of this size.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self, Self::Refused(code) if failed(*code).0 == PublishErrorKind::TooLarge)
    }

    /// Whether our user may not write to the topic, or not even see whether it exists.
    pub(super) fn is_forbidden(&self) -> bool {
        self.kind() == BrokerErrorKind::Permission
    }
}

fn is_missing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    matches!(
        code,
        UnknownTopic | UnknownTopicOrPartition | UnknownPartition
    )
}

/// What a record that was not acknowledged means.
fn failed(code: RDKafkaErrorCode) -> (PublishErrorKind, String) {
    use RDKafkaErrorCode as Code;
    let words = errors::words(code);
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => (
            PublishErrorKind::Unroutable,
            "its topic does not exist, so nobody listens".to_owned(),
        ),
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => (
            PublishErrorKind::TooLarge,
            format!("{words}; the topic's `max.message.bytes` decides"),
        ),
        Code::QueueFull => (PublishErrorKind::QueueFull, words),
        Code::MessageTimedOut | Code::RequestTimedOut | Code::OperationTimedOut => (
            PublishErrorKind::Timeout,
            "the cluster did not acknowledge it in time".to_owned(),
        ),
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => (
            PublishErrorKind::Nacked,
            "the user may not publish to this topic".to_owned(),
        ),
        Code::PurgeInflight | Code::PurgeQueue | Code::DestroyBroker => (
            PublishErrorKind::ChannelLost,
            "the producer was closed before the acknowledgement came".to_owned(),
        ),
        Code::NotEnoughReplicas => (
            PublishErrorKind::Nacked,
            "fewer replicas are in sync than `min.insync.replicas` asks for".to_owned(),
        ),
        Code::NotEnoughReplicasAfterAppend
        | Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::NetworkException => (
            PublishErrorKind::ChannelLost,
            format!("the connection was lost before the acknowledgement came: {words}"),
        ),
        _ => (PublishErrorKind::Nacked, words),
    }
}

/// The headers of a record that is published at `from`: its identity among them, and how long it is worth
/// delivering.
pub(super) fn own_headers(outgoing: &Outgoing, from: u64) -> Headers {
    let mut headers = outgoing.headers.clone();
    expiry::stamp(&mut headers, outgoing.ttl, from);
    if !headers.contains(name::MESSAGE_ID) {
        headers.set(name::MESSAGE_ID, outgoing.id.to_string());
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_may_not_be_seen_is_forbidden_as_one_that_may_not_be_written() {
        let unseen = |kind| CopyError::Failed(kind, "topic authorization failed".to_owned());
        assert!(unseen(BrokerErrorKind::Permission).is_forbidden());
        assert!(CopyError::Refused(RDKafkaErrorCode::TopicAuthorizationFailed).is_forbidden());
        assert!(!unseen(BrokerErrorKind::Timeout).is_forbidden());
        assert!(!CopyError::Refused(RDKafkaErrorCode::InvalidRecord).is_forbidden());
        assert!(!CopyError::Missing.is_forbidden());
    }

    #[test]
    fn the_outcome_is_unknown_only_where_the_cluster_may_have_it() {
        let unknown = |code| {
            let (kind, text) = failed(code);
            PublishError::new(kind, "t", text).is_unknown()
        };
        assert!(unknown(RDKafkaErrorCode::MessageTimedOut));
        assert!(unknown(RDKafkaErrorCode::NotEnoughReplicasAfterAppend));
        assert!(!unknown(RDKafkaErrorCode::NotEnoughReplicas));
        assert!(!unknown(RDKafkaErrorCode::MessageSizeTooLarge));
        let (kind, _) = failed(RDKafkaErrorCode::UnknownTopicOrPartition);
        assert_eq!(kind, PublishErrorKind::Unroutable);
    }
}
