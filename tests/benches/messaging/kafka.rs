//! Kafka, and the loops that a user of `rdkafka` would write.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use interline::config::Config;
use interline_tests::kafka::Prefix;
use interline_tests::servers;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Header, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;
use tokio::sync::mpsc;

use crate::order::{Order, Probe};
use crate::transport::{Load, Open, Place, Publishing, Transport};
use crate::{LIMIT, Result, wire};

const TOPIC: &str = "bench.orders";
/// What the SDK makes of a topic unless configured.
const PARTITIONS: i32 = 6;
const POLL: Duration = Duration::from_millis(100);
/// Records that a reading thread hands over together, and how often before it waits.
const HANDED_TOGETHER: usize = 64;
const HANDED_AHEAD: usize = 4;

/// A prefix of its own.
pub(crate) struct Kafka(Prefix);

impl Kafka {
    pub(crate) async fn open() -> Result<Self> {
        Ok(Self(Prefix::on(servers::kafka().await?)))
    }

    /// A member of a group, with the settings that matter as the SDK has them.
    fn member(&self, group: &str) -> ClientConfig {
        let mut config = self.0.client();
        config
            .set("group.id", self.0.named(group))
            .set("enable.auto.offset.store", "false")
            .set("auto.commit.interval.ms", "500")
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("isolation.level", "read_committed")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.wait.max.ms", "100")
            .set("queued.max.messages.kbytes", "16384")
            .set("socket.nagle.disable", "true")
            .set("message.max.bytes", "1000000000")
            .set("receive.message.max.bytes", "1100000000");
        config
    }

    fn producer(&self) -> Result<FutureProducer> {
        let mut config = self.0.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("compression.codec", "lz4")
            .set("linger.ms", "1")
            .set("socket.nagle.disable", "true");
        Ok(config.create()?)
    }
}

impl Transport for Kafka {
    fn title(&self) -> String {
        format!("Kafka, {PARTITIONS} partitions")
    }

    fn times(&self, size: usize) -> u64 {
        if size < 4_096 { 15 } else { 5 }
    }

    fn config(&self) -> Config {
        Config::new()
            .with("naming.prefix", self.0.name())
            .with("brokers.main.url", self.0.url())
            .with("brokers.main.partitions", PARTITIONS)
    }

    fn config_of(&self, group: &str) -> Config {
        self.config().with("subscribers.handle.group", group)
    }

    fn place(&self, group: &str) -> Place {
        Place {
            url: self.0.url().to_owned(),
            source: self.0.named(TOPIC),
            group: self.0.named(group),
        }
    }

    fn raw_consumers(&self) -> &'static [&'static str] {
        &[
            "rdkafka, BaseConsumer on a thread, offsets stored",
            "rdkafka, StreamConsumer in a task, offsets stored",
            "rdkafka, BaseConsumer on a thread that hands 64 at once to a task, offsets stored",
        ]
    }

    fn consume_raw(
        &self,
        which: usize,
        group: &str,
        probe: Arc<Probe>,
    ) -> BoxFuture<'_, Result<Open>> {
        let (group, topic) = (group.to_owned(), self.0.named(TOPIC));
        Box::pin(async move {
            let config = self.member(&group);
            match which {
                0 => {
                    let consumer: BaseConsumer = config.create()?;
                    consumer.subscribe(&[&topic])?;
                    let read = move || on_a_thread(&consumer, &probe);
                    tokio::task::spawn_blocking(read).await??;
                }
                1 => in_a_task(config.create()?, &topic, &probe).await?,
                _ => handed_over(config.create()?, &topic, &probe).await?,
            }
            // Closed, or the group could not be removed.
            Ok(Box::new(()) as Open)
        })
    }

    fn raw_publishers(&self) -> &'static [&'static str] {
        &[
            "rdkafka, FutureProducer, idempotent, the payload alone",
            "rdkafka, FutureProducer, idempotent, the headers that Interline writes",
        ]
    }

    fn publish_raw(&self, which: usize, load: Load) -> BoxFuture<'_, Result<Publishing>> {
        Box::pin(async move {
            let producer = self.producer()?;
            let topic = self.0.named(TOPIC);
            let (known, name) = (producer.clone(), topic.clone());
            // Connected, and told of the topic: what the SDK's publisher is when it is ready.
            let ask = move || known.client().fetch_metadata(Some(&name), LIMIT).map(drop);
            tokio::task::spawn_blocking(ask).await??;
            let headers = if which == 0 { none } else { all };
            Ok(Box::pin(publish(producer, topic, load, headers)) as Publishing)
        })
    }

    fn holds<'a>(&'a self, group: &'a str, ready: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.0.wait_left(group, TOPIC, ready, LIMIT))
    }

    fn purge<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.0.skip(group, TOPIC))
    }

    fn remove<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.0.forget(group, TOPIC, LIMIT).await?;
            // All groups of a round go together.
            self.0.empty(TOPIC).await
        })
    }

    fn end(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.0.delete())
    }
}

fn handle(message: &impl Message, probe: &Probe) -> Result<()> {
    let payload = message.payload().ok_or("a record without a value")?;
    probe.note(Order::from_json(payload)?.n);
    Ok(())
}

/// The leanest loop: nothing is copied, and one thread does everything.
fn on_a_thread(consumer: &BaseConsumer, probe: &Probe) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !probe.is_full() && Instant::now() < end {
        let Some(message) = consumer.poll(POLL) else {
            continue;
        };
        let message = message?;
        handle(&message, probe)?;
        consumer.store_offset_from_message(&message)?;
    }
    Ok(consumer.commit_consumer_state(CommitMode::Sync)?)
}

async fn in_a_task(consumer: StreamConsumer, topic: &str, probe: &Probe) -> Result<()> {
    consumer.subscribe(&[topic])?;
    let mut messages = consumer.stream();
    while !probe.is_full() {
        let message = messages.next().await.ok_or("the stream ended")??;
        handle(&message, probe)?;
        consumer.store_offset_from_message(&message)?;
    }
    drop(messages);
    closed(move || {
        let committed = consumer.commit_consumer_state(CommitMode::Sync);
        drop(consumer);
        committed
    })
    .await
}

/// Closing and committing block.
async fn closed(
    close: impl FnOnce() -> rdkafka::error::KafkaResult<()> + Send + 'static,
) -> Result<()> {
    Ok(tokio::task::spawn_blocking(close).await??)
}

/// The shape of the SDK's own: a thread that does nothing but read, and tasks that handle.
async fn handed_over(consumer: BaseConsumer, topic: &str, probe: &Arc<Probe>) -> Result<()> {
    consumer.subscribe(&[topic])?;
    let consumer = Arc::new(consumer);
    let (hand, mut handed) = mpsc::channel::<Vec<OwnedMessage>>(HANDED_AHEAD);
    let (reading, known) = (Arc::clone(&consumer), Arc::clone(probe));
    let reader = tokio::task::spawn_blocking(move || read(&reading, &hand, &known));
    while !probe.is_full() {
        let messages = handed.recv().await.ok_or("the reading thread ended")?;
        for message in &messages {
            handle(message, probe)?;
            consumer.store_offset(message.topic(), message.partition(), message.offset())?;
        }
    }
    drop(handed);
    reader.await??;
    closed(move || {
        let committed = consumer.commit_consumer_state(CommitMode::Sync);
        drop(consumer);
        committed
    })
    .await
}

fn read(
    consumer: &BaseConsumer,
    hand: &mpsc::Sender<Vec<OwnedMessage>>,
    probe: &Probe,
) -> Result<()> {
    let owned = |message: BorrowedMessage<'_>| message.detach();
    while !probe.is_full() && !hand.is_closed() {
        let Some(first) = consumer.poll(POLL) else {
            continue;
        };
        let mut messages = Vec::with_capacity(HANDED_TOGETHER);
        messages.push(owned(first?));
        while messages.len() < HANDED_TOGETHER
            && let Some(next) = consumer.poll(Duration::ZERO)
        {
            messages.push(owned(next?));
        }
        if hand.blocking_send(messages).is_err() {
            break;
        }
    }
    Ok(())
}

async fn publish(
    producer: FutureProducer,
    topic: String,
    load: Load,
    headers: fn() -> OwnedHeaders,
) -> Result<()> {
    stream::iter(0..load.count)
        .map(|n| {
            let (producer, topic) = (&producer, &topic);
            async move {
                let body = Order::of_size(n, load.size).json();
                let record = FutureRecord::<(), _>::to(topic)
                    .payload(&body)
                    .headers(headers());
                let sent = producer.send(record, Timeout::After(LIMIT)).await;
                sent.map(drop).map_err(|(error, _)| error)
            }
        })
        .buffer_unordered(load.open)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    Ok(())
}

fn none() -> OwnedHeaders {
    OwnedHeaders::new()
}

fn all() -> OwnedHeaders {
    let headers = OwnedHeaders::new_with_capacity(wire::HEADERS.len());
    wire::HEADERS.iter().fold(headers, |headers, (key, value)| {
        headers.insert(Header {
            key,
            value: Some(*value),
        })
    })
}
