//! Kafka, with a prefix for each place and a plain client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use interline::Headers;
use interline::config::Config;
use interline_tests::servers;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::{Bench, Seen, Trouble};

/// More than any case publishes.
const LISTENED_MAX: usize = 10_000;
const LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

/// A prefix of its own.
pub(crate) struct KafkaBench(Arc<Outside>);

struct Outside {
    url: String,
    servers: String,
    prefix: String,
}

/// A record with its key.
type Record = (Vec<u8>, Option<Seen>);

impl KafkaBench {
    pub(crate) async fn open() -> Result<Self, Trouble> {
        let url = servers::kafka().await?.url().to_owned();
        Ok(Self(Arc::new(Outside {
            servers: url.trim_start_matches("kafka://").to_owned(),
            url,
            prefix: servers::unique_prefix(),
        })))
    }

    /// The library's client blocks.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Outside) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let outside = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&outside)).await?
    }

    /// Makes a topic, unless it is there.
    async fn make(&self, topic: &str) -> Result<(), Trouble> {
        let admin: AdminClient<DefaultClientContext> = self.0.client().create()?;
        let topic = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(LIMIT));
        for made in admin.create_topics([&topic], &options).await? {
            match made {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => return Err(format!("{name}: {code}").into()),
            }
        }
        Ok(())
    }
}

impl Outside {
    /// A name as it is on the server. A placeholder of a template cannot stand in one.
    fn named(&self, topic: &str) -> String {
        let segments = topic.split('.');
        let plain = segments.map(|one| if one.starts_with('{') { "-" } else { one });
        format!("{}{}", self.prefix, plain.collect::<Vec<_>>().join("."))
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers);
        config
    }

    fn consumer(&self, group: &str) -> Result<BaseConsumer, Trouble> {
        let mut config = self.client();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "50");
        Ok(config.create()?)
    }

    fn send(&self, topic: &str, key: Option<&[u8]>, seen: Option<&Seen>) -> Result<(), Trouble> {
        let producer: BaseProducer = self
            .client()
            .set("acks", "all")
            .set("message.max.bytes", "100000000")
            .create()?;
        let mut headers = OwnedHeaders::new();
        for (name, value) in seen.iter().flat_map(|seen| seen.headers.iter()) {
            let text = value.to_text().ok_or("foreign headers are texts")?;
            headers = headers.insert(Header {
                key: name,
                value: Some(&*text),
            });
        }
        let mut record = BaseRecord::to(topic).headers(headers);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(seen) = seen {
            record = record.payload(&seen.body[..]);
        }
        producer.send(record).map_err(|(error, _)| error)?;
        Ok(producer.flush(LIMIT)?)
    }

    /// Everything that lies in a topic of one partition.
    fn read(&self, topic: &str) -> Result<Vec<Record>, Trouble> {
        let consumer = self.consumer("outside")?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Beginning)?;
        consumer.assign(&list)?;
        let (mut records, begun) = (Vec::new(), Instant::now());
        while begun.elapsed() < LIMIT {
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let key = message.key().unwrap_or_default().to_vec();
                    let seen = message.payload().is_some().then(|| seen(&message));
                    records.push((key, seen));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(records),
                Some(Err(error)) => return Err(error.into()),
                None => {}
            }
        }
        Err(format!("the end of `{topic}` did not come").into())
    }
}

impl Bench for KafkaBench {
    fn configure(&self, config: Config, broker: &str) -> Config {
        config
            .with("naming.prefix", self.0.prefix.as_str())
            .with(&format!("brokers.{broker}.url"), self.0.url.as_str())
            .with(&format!("brokers.{broker}.partitions"), 1)
            .with(
                &format!("brokers.{broker}.session_timeout"),
                Duration::from_secs(2),
            )
            .with(
                &format!("brokers.{broker}.librdkafka.topic_metadata_refresh_interval_ms"),
                300,
            )
    }

    fn publish<'a>(
        &'a self,
        topic: &'a str,
        body: Bytes,
        headers: Headers,
    ) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async move {
            let topic = self.0.named(topic);
            self.make(&topic).await?;
            let seen = Seen { headers, body };
            self.blocking(move |outside| outside.send(&topic, None, Some(&seen)))
                .await
        })
    }

    fn listen<'a>(
        &'a self,
        topic: &'a str,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Seen>, Trouble>> {
        Box::pin(async move {
            let topic = self.0.named(topic);
            self.make(&topic).await?;
            let (send, heard) = mpsc::channel(LISTENED_MAX);
            let consumer = self
                .blocking(move |outside| {
                    let consumer = outside.consumer("outside")?;
                    let (_, end) = consumer.fetch_watermarks(&topic, 0, LIMIT)?;
                    let mut list = TopicPartitionList::new();
                    list.add_partition_offset(&topic, 0, Offset::Offset(end))?;
                    consumer.assign(&list)?;
                    Ok(consumer)
                })
                .await?;
            std::thread::spawn(move || {
                while !send.is_closed() {
                    if let Some(Ok(message)) = consumer.poll(POLL)
                        && send.blocking_send(seen(&message)).is_err()
                    {
                        break;
                    }
                }
            });
            Ok(heard)
        })
    }

    fn take_dead<'a>(
        &'a self,
        group: &'a str,
        topic: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Seen>, Trouble>> {
        let name = self.0.named(&format!("{topic}.{group}.dlq"));
        Box::pin(self.blocking(move |outside| {
            let mut letters: Vec<(Vec<u8>, Seen)> = Vec::new();
            for (key, seen) in outside.read(&name)? {
                match seen {
                    None => letters.retain(|(known, _)| *known != key),
                    Some(seen) => letters.push((key, seen)),
                }
            }
            for (key, _) in &letters {
                outside.send(&name, Some(key), None)?;
            }
            Ok(letters.into_iter().map(|(_, seen)| seen).collect())
        }))
    }

    fn left<'a>(&'a self, group: &'a str, topic: &'a str) -> BoxFuture<'a, Result<usize, Trouble>> {
        let group = format!("{}{group}", self.0.prefix);
        let topic = self.0.named(topic);
        Box::pin(self.blocking(move |outside| {
            let consumer = outside.consumer(&group)?;
            let (low, high) = consumer.fetch_watermarks(&topic, 0, LIMIT)?;
            let mut asked = TopicPartitionList::new();
            asked.add_partition(&topic, 0);
            let committed = consumer.committed_offsets(asked, LIMIT)?;
            let element = committed
                .find_partition(&topic, 0)
                .ok_or("it was asked for")?;
            let position = match element.offset() {
                Offset::Offset(position) => position,
                _ => low,
            };
            // What was finished above the position stands in the note beside it.
            let ranges = element.metadata().split_whitespace().skip(2);
            let finished = ranges.filter_map(|range| {
                let (first, end) = range.split_once('-')?;
                Some(end.parse::<i64>().ok()? - first.parse::<i64>().ok()?)
            });
            Ok(usize::try_from(high - position - finished.sum::<i64>())?)
        }))
    }
}

fn seen(message: &BorrowedMessage<'_>) -> Seen {
    let mut headers = Headers::new();
    for header in message.headers().iter().flat_map(|headers| headers.iter()) {
        match header.value.map(std::str::from_utf8) {
            Some(Ok(text)) => headers.set(header.key.to_owned(), text.to_owned()),
            Some(Err(_)) => {
                let bytes = Bytes::copy_from_slice(header.value.unwrap_or_default());
                headers.set(header.key.to_owned(), bytes);
            }
            None => headers.set(header.key.to_owned(), interline::HeaderValue::Null),
        }
    }
    Seen {
        headers,
        body: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
    }
}
