//! The brokers, and how a raw client fills them.

use std::time::Duration;

use interline::prelude::*;
use interline_tests::kafka::Prefix;
use interline_tests::redis::Database;
use interline_tests::servers::{self, Server, Vhost};
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;

use crate::{LIMIT, Result, service};

/// How many bytes a message has.
pub(crate) const SIZE: usize = 256;
const GROUP: &str = "bench";
const TOPIC: &str = "bench.pieces";
const QUEUE: &str = "bench.bench.pieces";
const EXCHANGE: &str = "interline";
/// How many entries are added to a stream in one go.
const TOGETHER: u64 = 1_000;

/// A message.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "bench.pieces")]
pub(crate) struct Piece {
    n: u64,
    note: String,
}

impl Piece {
    /// One whose JSON has [`SIZE`] bytes.
    pub(crate) fn number(n: u64) -> Self {
        let mut piece = Self {
            n,
            note: String::new(),
        };
        piece.note = "x".repeat(SIZE - piece.json().len());
        piece
    }

    fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a piece has a form in JSON")
    }
}

/// A broker.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Broker {
    Embedded,
    RabbitMq,
    Kafka,
    Redis,
}

impl Broker {
    pub(crate) const ALL: [Self; 4] = [Self::Embedded, Self::RabbitMq, Self::Kafka, Self::Redis];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded broker, which holds them in the service's memory",
            Self::RabbitMq => "RabbitMQ, quorum queue",
            Self::Kafka => "Kafka, 6 partitions",
            Self::Redis => "Redis Streams",
        }
    }
}

/// A part of a broker of one's own.
pub(crate) enum Ground {
    Embedded,
    RabbitMq(Vhost),
    Kafka(Prefix),
    Redis(Database),
}

impl Ground {
    pub(crate) async fn open(broker: Broker) -> Result<Self> {
        Ok(match broker {
            Broker::Embedded => Self::Embedded,
            Broker::RabbitMq => {
                Server::RabbitMq.available()?;
                Self::RabbitMq(Vhost::create_on(servers::rabbitmq().await?).await?)
            }
            Broker::Kafka => {
                Server::Kafka.available()?;
                Self::Kafka(Prefix::on(servers::kafka().await?))
            }
            Broker::Redis => {
                Server::Redis.available()?;
                Self::Redis(Database::create_on(servers::redis().await?).await?)
            }
        })
    }

    /// What a service is configured with to use it.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let url = |url: &str| ("brokers.main.url".to_owned(), url.to_owned());
        match self {
            Self::Embedded => Vec::new(),
            Self::RabbitMq(vhost) => vec![url(&vhost.url)],
            Self::Kafka(prefix) => {
                let named = ("naming.prefix".to_owned(), prefix.name().to_owned());
                vec![url(prefix.url()), named]
            }
            Self::Redis(database) => vec![url(&database.url)],
        }
    }

    /// Makes the subscription and publishes to it, and waits until the broker says that it has all.
    pub(crate) async fn fill(&self, count: u64) -> Result<()> {
        match self {
            Self::Embedded => return Ok(()),
            Self::RabbitMq(vhost) => {
                service::declare(&self.settings()).await?;
                publish(&vhost.url, count).await?;
            }
            Self::Kafka(prefix) => {
                service::declare(&self.settings()).await?;
                let prefix = prefix.clone();
                tokio::task::spawn_blocking(move || produce(&prefix, count)).await??;
            }
            Self::Redis(database) => {
                service::declare(&self.settings()).await?;
                add(database, count).await?;
            }
        }
        self.holds(count).await
    }

    /// Waits until nothing is left.
    pub(crate) async fn is_empty(&self) -> Result<()> {
        self.holds(0).await
    }

    async fn holds(&self, count: u64) -> Result<()> {
        match self {
            Self::Embedded => {}
            Self::RabbitMq(vhost) => {
                let holds = |queue: &interline_tests::management::Queue| {
                    queue.messages_ready == Some(count) && queue.messages_unacknowledged == Some(0)
                };
                let management = &vhost.management;
                management.wait_for_queue(QUEUE, holds, LIMIT).await?;
            }
            Self::Kafka(prefix) => prefix.wait_left(GROUP, TOPIC, count, LIMIT).await?,
            Self::Redis(database) => {
                let holds = database.wait_for_group(TOPIC, GROUP, count, LIMIT);
                holds.await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn end(self) -> Result<()> {
        match self {
            Self::Embedded => {}
            Self::RabbitMq(vhost) => vhost.delete().await?,
            Self::Kafka(prefix) => prefix.delete().await?,
            Self::Redis(database) => database.delete().await?,
        }
        Ok(())
    }
}

/// Without confirmations: the queue's depth says that all arrived.
async fn publish(url: &str, count: u64) -> Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let properties = BasicProperties::default().with_delivery_mode(2);
    for n in 0..count {
        let body = Piece::number(n).json();
        channel
            .basic_publish(
                EXCHANGE.into(),
                TOPIC.into(),
                BasicPublishOptions::default(),
                &body,
                properties.clone(),
            )
            .await?;
    }
    channel.close(200, "filled".into()).await?;
    connection.close(200, "filled".into()).await?;
    Ok(())
}

fn produce(prefix: &Prefix, count: u64) -> Result<()> {
    let mut config = prefix.client();
    config
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .set("partitioner", "murmur2_random");
    let producer: BaseProducer = config.create()?;
    let topic = prefix.named(TOPIC);
    for n in 0..count {
        let body = Piece::number(n).json();
        let mut record = BaseRecord::<(), _>::to(&topic).payload(&body);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    producer.poll(Duration::from_millis(10));
                    record = back;
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
        if n % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    Ok(producer.flush(LIMIT)?)
}

async fn add(database: &Database, count: u64) -> Result<()> {
    let mut connection = database.connection().await?;
    let mut next = 0;
    while next < count {
        let end = (next + TOGETHER).min(count);
        let mut commands = redis::pipe();
        for n in next..end {
            let add = commands.cmd("XADD").arg(TOPIC).arg("NOMKSTREAM").arg("*");
            add.arg("payload").arg(Piece::number(n).json()).ignore();
        }
        let () = commands.query_async(&mut connection).await?;
        next = end;
    }
    Ok(())
}
