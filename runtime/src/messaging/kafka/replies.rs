//! Replies to requests: one topic of the service, of which every instance reads one partition from where
//! it ended before the first request. No group, so nothing is shared out and nothing moves.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use tracing::warn;

use crate::handling::{BoxFuture, PublishError, PublishErrorKind};
use crate::message::headers::name;
use crate::message::{Incoming, Origin, Outgoing, Place, ReplyAddress};
use crate::messaging::{
    BrokerError, BrokerErrorKind, ReplyEvent, ReplyEvents, Requests, TopologyMode,
};

use super::admin;
use super::core::{Core, Link};
use super::errors;
use super::headers;
use super::link::{Watch, client_id};
use super::publish::{CopyError, Record};
use super::topology::Part;

/// How long the end of the partition may be asked for.
const ANSWER: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
/// How long a reply is of use to anybody.
const RETENTION_MS: &str = "3600000";
/// Replies survive a lost connection: there is only one epoch.
const EPOCH: u64 = 1;
/// The wait before a consumer that broke is made anew.
const ANEW: Duration = Duration::from_millis(500);

/// The listening end of this process.
pub(super) struct Replies {
    core: Arc<Core>,
    address: String,
    closed: Arc<AtomicBool>,
}

/// Where a reply goes: a partition, and whose of those that read it.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    topic: &'a str,
    partition: i32,
    instance: &'a str,
}

impl<'a> Address<'a> {
    /// Reads `topic/partition/instance`.
    fn parse(text: &'a str) -> Option<Self> {
        let mut words = text.splitn(3, '/');
        let address = Self {
            topic: words.next().filter(|topic| !topic.is_empty())?,
            partition: words.next()?.parse().ok().filter(|number| *number >= 0)?,
            instance: words.next().filter(|instance| !instance.is_empty())?,
        };
        Some(address)
    }
}

impl Replies {
    pub(super) async fn listen(
        core: &Arc<Core>,
        events: ReplyEvents,
    ) -> Result<Arc<Self>, BrokerError> {
        if core.wait_until_up().await.is_none() {
            return Err(core.not_connected());
        }
        let prefix = core.context.prefix.as_deref().unwrap_or_default();
        let topic = format!("{prefix}{}{}", core.context.service, admin::REPLIES);
        let partitions = match core.ask_for_topic(&topic).await? {
            Some(partitions) => partitions,
            None if core.settings.topology != TopologyMode::Apply => {
                let text = format!(
                    "requests need the topic `{topic}` for their replies, which does not exist; make it with \
                     `retention.ms={RETENTION_MS}`, or write `topology = \"apply\"`"
                );
                return Err(core.error(BrokerErrorKind::NotFound, text));
            }
            None => {
                let part = Part::Topic {
                    name: topic.clone(),
                    partitions: core.settings.partitions,
                    partitions_of: None,
                    replication: core.settings.replication,
                    config: vec![("retention.ms".to_owned(), RETENTION_MS.to_owned())],
                };
                admin::make_topics(core, &[&part]).await?;
                core.partitions_of(&topic).unwrap_or(1)
            }
        };
        let mut hasher = DefaultHasher::new();
        core.context.instance.hash(&mut hasher);
        let count = u64::try_from(partitions.max(1)).unwrap_or(1);
        let partition = i32::try_from(hasher.finish() % count).unwrap_or_default();
        let address = format!("{topic}/{partition}/{}", core.context.instance);
        if ReplyAddress::parse(&address).is_none() {
            let text = format!("`{address}` is too long for a reply address, or not plain text");
            return Err(core.error(BrokerErrorKind::Configuration, text));
        }
        let closed = Arc::new(AtomicBool::new(false));
        let (ready, listening) = oneshot::channel();
        let listener = Listener {
            core: Arc::clone(core),
            topic,
            partition,
            events,
            closed: Arc::clone(&closed),
            position: None,
            dropped: false,
        };
        let spawned = thread::Builder::new()
            .name("kafka-replies".to_owned())
            .spawn(move || listener.run(ready));
        spawned.map_err(|error| {
            let text = format!("no thread to listen with: {error}");
            core.error(BrokerErrorKind::Refused, text)
        })?;
        match listening.await {
            Ok(Ok(())) => Ok(Arc::new(Self {
                core: Arc::clone(core),
                address,
                closed,
            })),
            Ok(Err((kind, text))) => Err(core.error(kind, text)),
            Err(_) => Err(core.not_connected()),
        }
    }
}

impl Requests for Replies {
    fn send(&self, mut outgoing: Outgoing) -> BoxFuture<'_, Result<u64, PublishError>> {
        outgoing.headers.set(name::REPLY_TO, self.address.clone());
        Box::pin(async move {
            if self.closed.load(Ordering::Acquire) {
                let text = "it listens for no replies any more";
                return Err(PublishError::new(
                    PublishErrorKind::Closed,
                    outgoing.topic.clone(),
                    text,
                ));
            }
            self.core.publish(outgoing).await.map(|()| EPOCH)
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.closed.store(true, Ordering::Release);
        Box::pin(std::future::ready(()))
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
    }
}

/// Sends a reply. That nobody waits for it any more is no error.
pub(super) async fn reply(
    core: &Core,
    to: &ReplyAddress,
    outgoing: Outgoing,
) -> Result<(), PublishError> {
    let Some(address) = Address::parse(to.as_str()) else {
        let text = format!("`{to}` is not a reply address of Kafka");
        let kind = PublishErrorKind::Unsupported;
        return Err(PublishError::new(kind, outgoing.topic.clone(), text));
    };
    let mut headers = outgoing.headers.clone();
    if !headers.contains(name::MESSAGE_ID) {
        headers.set(name::MESSAGE_ID, outgoing.id.to_string());
    }
    let record = Record {
        topic: address.topic,
        partition: Some(address.partition),
        // Tells it from the replies of others that read the same partition.
        key: Some(address.instance.as_bytes()),
        body: Some(&outgoing.body),
        headers: &headers,
        timestamp: None,
    };
    match core.send_copy(&record).await {
        Ok(()) | Err(CopyError::Missing) => Ok(()),
        Err(error) => {
            let topic = address.topic.to_owned();
            Err(error.into_publish_error(&topic, outgoing))
        }
    }
}

struct Listener {
    core: Arc<Core>,
    topic: String,
    partition: i32,
    events: ReplyEvents,
    closed: Arc<AtomicBool>,
    /// The next offset.
    position: Option<i64>,
    dropped: bool,
}

type Ready = oneshot::Sender<Result<(), (BrokerErrorKind, String)>>;

impl Listener {
    fn run(mut self, ready: Ready) {
        let mut ready = Some(ready);
        while !self.ends() {
            let client = match self.make() {
                Ok(client) => client,
                Err(error) => match ready.take() {
                    // Whoever asked asks again.
                    Some(ready) => {
                        let _ = ready.send(Err(error));
                        return;
                    }
                    None => {
                        thread::sleep(ANEW);
                        continue;
                    }
                },
            };
            if let Some(ready) = ready.take() {
                let _ = ready.send(Ok(()));
            }
            self.hear(&client);
        }
    }

    fn ends(&self) -> bool {
        self.closed.load(Ordering::Acquire) || *self.core.link.borrow() == Link::Closed
    }

    fn make(&mut self) -> Result<BaseConsumer<Watch>, (BrokerErrorKind, String)> {
        let told = |error: rdkafka::error::KafkaError| errors::told(&error);
        let core = &self.core;
        // It has to be named for a group; it never joins one and commits nothing.
        let group = format!("{}.replies", core.context.service);
        let mut config = core.settings.reader(&client_id(core), &group)?;
        config
            .set("fetch.wait.max.ms", "50")
            .set("fetch.queue.backoff.ms", "5")
            .set("auto.offset.reset", "latest");
        let client: BaseConsumer<Watch> =
            config.create_with_context(Watch::new(core)).map_err(told)?;
        let position = match self.position {
            Some(position) => position,
            None => {
                let watermarks = client.fetch_watermarks(&self.topic, self.partition, ANSWER);
                watermarks.map_err(told)?.1
            }
        };
        self.position = Some(position);
        let mut list = TopicPartitionList::new();
        let start = Offset::Offset(position);
        list.add_partition_offset(&self.topic, self.partition, start)
            .map_err(told)?;
        client.assign(&list).map_err(told)?;
        Ok(client)
    }

    fn hear(&mut self, client: &BaseConsumer<Watch>) {
        let mut heard = Instant::now();
        while !self.ends() {
            match client.poll(POLL) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    self.position = Some(message.offset() + 1);
                    if message.key() == Some(self.core.context.instance.as_bytes()) {
                        self.pass_on(&message);
                    }
                }
                Some(Err(rdkafka::error::KafkaError::MessageConsumptionFatal(_))) => return,
                // The library goes on by itself.
                Some(Err(_)) | None => {}
            }
            // A quiet partition is looked at anew now and then, should the library have lost it.
            if heard.elapsed() > self.core.settings.stall_timeout {
                return;
            }
        }
    }

    fn pass_on(&mut self, message: &BorrowedMessage<'_>) {
        let headers = headers::read(message.headers());
        let topic: Arc<str> = message.topic().into();
        let place = Place::Kafka {
            topic: Arc::clone(&topic),
            partition: message.partition(),
            offset: message.offset(),
        };
        let origin = Origin::new(Arc::clone(&self.core.context.name), place);
        let body = Bytes::copy_from_slice(message.payload().unwrap_or_default());
        let reply = Incoming::new(topic, body, headers, origin);
        match self.events.try_send(ReplyEvent::Reply(reply)) {
            Ok(()) => {}
            Err(TrySendError::Full(event)) => {
                // The engine takes them at once; a moment's wait is for a busy machine.
                if self.events.blocking_send(event).is_err() {
                    self.closed.store(true, Ordering::Release);
                } else if !self.dropped {
                    self.dropped = true;
                    warn!(broker = %self.core.context.name, "replies come faster than they are taken");
                }
            }
            Err(TrySendError::Closed(_)) => self.closed.store(true, Ordering::Release),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_partition_and_instance() {
        let address = Address::parse("shop.replies/3/host-1/a").unwrap();
        assert_eq!(
            address,
            Address {
                topic: "shop.replies",
                partition: 3,
                instance: "host-1/a"
            }
        );
        for bad in [
            "",
            "amq.rabbitmq.reply-to.x",
            "t/x/i",
            "t/-1/i",
            "t/1/",
            "/1/i",
        ] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }
}
