//! A look at the queues with a plain client of the broker.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use tokio::time::timeout;

use crate::topics::Topics;
use crate::trouble::{Outcome, Trouble};

const PASSIVE: QueueDeclareOptions = QueueDeclareOptions {
    passive: true,
    durable: false,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};

/// How a queue is at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) ready: u32,
    /// What some consumer has, dead or alive; not told by RabbitMQ, where it becomes ready by the death of
    /// whoever had it.
    pub(crate) pending: u32,
    pub(crate) consumers: u32,
}

/// A plain connection.
pub(crate) enum Outside {
    Kafka(Arc<Topics>),
    RabbitMq(Connection),
    Redis(redis::aio::MultiplexedConnection),
}

impl Outside {
    pub(crate) async fn connect(url: &str) -> Outcome<Self> {
        if url.starts_with("redis") {
            let config = redis::AsyncConnectionConfig::new()
                .set_connection_timeout(Some(Duration::from_secs(5)))
                .set_response_timeout(Some(Duration::from_secs(20)));
            let client = redis::Client::open(url)?;
            let connecting = client.get_multiplexed_async_connection_with_config(&config);
            return Ok(Self::Redis(connecting.await?));
        }
        let connecting = Connection::connect(url, ConnectionProperties::default());
        Ok(Self::RabbitMq(connecting.await?))
    }

    fn amqp(&self) -> Outcome<&Connection> {
        match self {
            Self::RabbitMq(connection) => Ok(connection),
            Self::Kafka(_) | Self::Redis(_) => {
                Err(Trouble::new("this is no connection to RabbitMQ"))
            }
        }
    }

    async fn redis<T: redis::FromRedisValue>(&self, words: &[&str]) -> Outcome<T> {
        let Self::Redis(connection) = self else {
            return Err(Trouble::new("this is no connection to Redis"));
        };
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        Ok(command.query_async(&mut connection.clone()).await?)
    }

    /// The queue, unless there is none or it does not answer. On Kafka and Redis `ready` counts what no
    /// consumer has, delayed retries included.
    pub(crate) async fn counts(&self, queue: &str) -> Outcome<Option<Counts>> {
        match self {
            Self::Kafka(topics) => return topics.counts(queue).await.map(Some),
            Self::Redis(_) => return self.group(queue).await,
            Self::RabbitMq(_) => {}
        }
        // What is not there costs the channel.
        let channel = self.amqp()?.create_channel().await?;
        let asked = channel.queue_declare(queue.into(), PASSIVE, FieldTable::default());
        let Ok(Ok(queue)) = timeout(Duration::from_secs(10), asked).await else {
            return Ok(None);
        };
        channel.close(200, "OK".into()).await?;
        Ok(Some(Counts {
            ready: queue.message_count(),
            pending: 0,
            consumers: queue.consumer_count(),
        }))
    }

    /// Takes everything out of a queue: the identity and the body of each message.
    pub(crate) async fn drain(&self, queue: &str) -> Outcome<Vec<(String, Vec<u8>)>> {
        let owner = queue.trim_end_matches(".dlq");
        match self {
            Self::Kafka(topics) => return topics.letters(owner).await,
            Self::Redis(_) => {
                let (group, stream) = split(owner)?;
                return self.entries(&format!("{{{stream}}}:{group}:dlq")).await;
            }
            Self::RabbitMq(_) => {}
        }
        let Some(counts) = self.counts(queue).await? else {
            return Err(Trouble::new(format!("there is no queue `{queue}`")));
        };
        let channel = self.amqp()?.create_channel().await?;
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consuming =
            channel.basic_consume(queue.into(), "drain".into(), options, FieldTable::default());
        let mut consumer = consuming.await?;
        let mut taken = Vec::new();
        for _ in 0..counts.ready {
            let Ok(Some(delivery)) = timeout(Duration::from_secs(20), consumer.next()).await else {
                let (got, of) = (taken.len(), counts.ready);
                return Err(Trouble::new(format!(
                    "queue `{queue}` gave {got} of its {of} messages"
                )));
            };
            let delivery = delivery?;
            let id = delivery.properties.message_id().as_ref();
            let id = id.map(ToString::to_string).unwrap_or_default();
            taken.push((id, delivery.data));
        }
        channel.close(200, "OK".into()).await?;
        Ok(taken)
    }
}

impl Outside {
    /// How many retries wait in the sorted set of a subscription.
    pub(crate) async fn delayed(&self, queue: &str) -> Outcome<u32> {
        let (group, stream) = split(queue)?;
        let key = format!("{{{stream}}}:{group}:delayed");
        self.redis(&["ZCARD", &key]).await
    }

    /// Everything in a stream: the identity and the body of each message.
    pub(crate) async fn entries(&self, stream: &str) -> Outcome<Vec<(String, Vec<u8>)>> {
        let all: redis::streams::StreamRangeReply =
            self.redis(&["XRANGE", stream, "-", "+"]).await?;
        let entries = all.ids.into_iter();
        Ok(entries
            .map(|entry| {
                let id = entry.get("h:message-id").unwrap_or_default();
                (id, entry.get("payload").unwrap_or_default())
            })
            .collect())
    }

    async fn group(&self, queue: &str) -> Outcome<Option<Counts>> {
        let (group, stream) = split(queue)?;
        let mut counts = Counts {
            ready: self.delayed(queue).await?,
            pending: 0,
            consumers: 0,
        };
        for key in [stream.to_owned(), format!("{{{stream}}}:{group}:retry")] {
            let groups: Outcome<redis::streams::StreamInfoGroupsReply> =
                self.redis(&["XINFO", "GROUPS", &key]).await;
            let Ok(groups) = groups else {
                return Ok(None);
            };
            let Some(found) = groups.groups.iter().find(|found| found.name == group) else {
                return Ok(None);
            };
            let after = format!("({}", found.last_delivered_id);
            let left: redis::streams::StreamRangeReply =
                self.redis(&["XRANGE", &key, &after, "+"]).await?;
            counts.ready += u32::try_from(left.ids.len()).unwrap_or(u32::MAX);
            counts.pending += u32::try_from(found.pending).unwrap_or(u32::MAX);
            counts.consumers = counts
                .consumers
                .max(u32::try_from(found.consumers).unwrap_or(u32::MAX));
        }
        Ok(Some(counts))
    }
}

/// Group and topic of a queue's name.
pub(crate) fn split(queue: &str) -> Outcome<(&str, &str)> {
    queue
        .split_once('.')
        .ok_or_else(|| Trouble::new(format!("`{queue}` is no group and topic")))
}
