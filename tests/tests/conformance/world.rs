//! What a case works with: a broker under test, processes that connect to it, readers.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use interline::MessageId;
use interline::config::{Config, Faults};
use interline::message::{Incoming, Outgoing, TopicPattern};
use interline::messaging::kafka::Kafka;
use interline::messaging::memory::{MemoryBroker, MemoryOptions, MemoryStore};
use interline::messaging::rabbitmq::RabbitMq;
use interline::messaging::redis::{RedisPubSub, RedisStreams};
use interline::messaging::{
    BrokerContext, ConnectionState, Consumer, ConsumerState, DeadLetterStore, Delivery,
    DeliveryMode, Group, MessageBroker, Settled, Settlement, Subscription,
};
use interline::observability::metrics::{InMemoryMetrics, PARTITIONS_LOST};
use interline::testing::FaultProxy;
use interline_tests::kafka_shares;
use interline_tests::management::Queue;
use interline_tests::redis::Database;
use interline_tests::servers::{self, Vhost};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// How a case ends.
pub(crate) type Outcome = Result<(), Box<dyn Error + Send + Sync>>;
/// A case.
pub(crate) type CaseFn = fn(Arc<World>) -> BoxFuture<'static, Outcome>;

/// How long something may take that has to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// How long nothing may happen where nothing is to happen.
pub(crate) const QUIET: Duration = Duration::from_millis(400);

/// Names the cases of a file.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        /// The cases of this file.
        pub(crate) const CASES: &[(&str, $crate::world::CaseFn)] =
            &[$((stringify!($case), |world| Box::pin($case(world)))),+];
    };
}
pub(crate) use cases;

/// A broker under test.
pub(crate) enum Bench {
    Kafka(KafkaBench),
    Memory(MemoryStore),
    RabbitMq(Vhost),
    Redis(Database),
    RedisPubSub(ChannelBench),
}

/// A part of the shared Redis server: connections are told apart by the database, channels by the
/// prefix.
pub(crate) struct ChannelBench {
    database: Database,
    prefix: String,
}

/// A part of the shared Kafka server, told apart by its prefix.
pub(crate) struct KafkaBench {
    url: String,
    /// Where the server is reached whatever is cut.
    direct: String,
    prefix: String,
    metrics: InMemoryMetrics,
    /// Where connections can be cut.
    proxy: Option<FaultProxy>,
}

/// After this long without an answer of the group's coordinator a member's partitions are lost.
const KAFKA_SESSION: Duration = Duration::from_millis(1_000);

impl Bench {
    /// `cut` says whether connections will be cut.
    pub(crate) async fn kafka(cut: bool) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let server = servers::kafka().await?;
        let (proxy, url) = if cut {
            let (proxy, url) = servers::kafka_proxy().await?;
            (Some(proxy), url)
        } else {
            (None, server.url().to_owned())
        };
        Ok(Self::Kafka(KafkaBench {
            url,
            direct: server.url().to_owned(),
            metrics: InMemoryMetrics::default(),
            prefix: servers::unique_prefix(),
            proxy,
        }))
    }

    pub(crate) fn memory() -> Self {
        let mut options = MemoryOptions::for_tests(1);
        options.strict_topology = true;
        Self::Memory(MemoryStore::new(options))
    }

    pub(crate) async fn rabbitmq() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let server = servers::rabbitmq().await?;
        Ok(Self::RabbitMq(Vhost::create_on(server).await?))
    }

    pub(crate) async fn redis() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let server = servers::redis().await?;
        Ok(Self::Redis(Database::create_on(server).await?))
    }

    pub(crate) async fn redis_pubsub() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let server = servers::redis().await?;
        Ok(Self::RedisPubSub(ChannelBench {
            database: Database::create_on(server).await?,
            prefix: servers::unique_prefix(),
        }))
    }
}

/// One broker with everything that a case does to it.
pub(crate) struct World {
    bench: Bench,
}

impl World {
    pub(crate) fn new(bench: Bench) -> Self {
        Self { bench }
    }

    /// Whether partitions share what one group reads, so that a group's order is that of a partition.
    pub(crate) fn is_kafka(&self) -> bool {
        matches!(self.bench, Bench::Kafka(_))
    }

    /// Whether everybody who listens gets every message, once.
    pub(crate) fn is_pubsub(&self) -> bool {
        matches!(self.bench, Bench::RedisPubSub(_))
    }

    /// Whether a subscription can name a template.
    pub(crate) fn has_patterns(&self) -> bool {
        !matches!(self.bench, Bench::Redis(_))
    }

    /// Whether a topic keeps what was published before anybody subscribed.
    pub(crate) fn keeps_history(&self) -> bool {
        !matches!(self.bench, Bench::RabbitMq(_) | Bench::RedisPubSub(_))
    }

    /// Whether a message outlives its time only when it is read.
    pub(crate) fn expires_when_read(&self) -> bool {
        matches!(self.bench, Bench::Kafka(_) | Bench::Redis(_))
    }

    /// A process that has connected.
    pub(crate) async fn process(&self, instance: &str) -> Process {
        let mut context = BrokerContext::new("main", "billing", instance);
        let broker: Arc<dyn MessageBroker> = match &self.bench {
            Bench::Kafka(bench) => {
                context.prefix = Some(bench.prefix.as_str().into());
                context.metrics = Some(Arc::new(bench.metrics.clone()));
                let config = Config::new()
                    .with("brokers.main.url", bench.url.as_str())
                    // One order of everything is what most cases look at.
                    .with("brokers.main.partitions", 1)
                    .with("brokers.main.session_timeout", KAFKA_SESSION)
                    .with("brokers.main.commit_interval", Duration::from_millis(50))
                    .with("brokers.main.librdkafka.topic_metadata_refresh_interval_ms", 300);
                let mut faults = Faults::new();
                let section = config.section("brokers.main");
                let broker = Kafka::read(&context, &section, &mut faults);
                faults.into_result().expect("the settings are good ones");
                Arc::new(broker.expect("there is no mistake"))
            }
            Bench::Memory(store) => Arc::new(MemoryBroker::new(store, &context)),
            Bench::RabbitMq(vhost) => {
                let config = Config::new().with("brokers.main.url", vhost.url.as_str());
                let mut faults = Faults::new();
                let section = config.section("brokers.main");
                let broker = RabbitMq::read(&context, &section, &mut faults);
                faults.into_result().expect("the url is a good one");
                Arc::new(broker.expect("there is no mistake"))
            }
            Bench::Redis(database) => {
                let config = Config::new().with("brokers.main.url", database.url.as_str());
                let mut faults = Faults::new();
                let section = config.section("brokers.main");
                let broker = RedisStreams::read(&context, &section, &mut faults);
                faults.into_result().expect("the url is a good one");
                Arc::new(broker.expect("there is no mistake"))
            }
            Bench::RedisPubSub(bench) => {
                context.prefix = Some(bench.prefix.as_str().into());
                let config = Config::new().with("brokers.main.url", bench.database.url.as_str());
                let mut faults = Faults::new();
                let section = config.section("brokers.main");
                let broker = RedisPubSub::read(&context, &section, &mut faults);
                faults.into_result().expect("the url is a good one");
                Arc::new(broker.expect("there is no mistake"))
            }
        };
        broker.connect().await.expect("the broker takes us");
        let process = Process { broker };
        process.until_ready().await;
        process
    }

    /// Every connection is lost, and made again by whoever had it. Returns when the loss is there.
    pub(crate) async fn disconnect(&self, process: &Process) {
        match &self.bench {
            Bench::Kafka(bench) => {
                let proxy = bench
                    .proxy
                    .as_ref()
                    .expect("a bench whose connections can be cut");
                // What is settled is committed after a moment.
                sleep(Duration::from_millis(300)).await;
                proxy.refuse(true).await.expect("nobody gets in");
                proxy.reset_all().await;
                until("the loss of the connection is noticed", || {
                    process.broker.health_check().state != ConnectionState::Ready
                })
                .await;
                sleep(2 * KAFKA_SESSION).await;
                proxy.restore().await.expect("it is whole again");
                // The members come back one after the other, and the partitions move with each.
                sleep(4 * KAFKA_SESSION).await;
                return;
            }
            Bench::Memory(store) => {
                store.faults().disconnect(Duration::from_secs(1));
            }
            Bench::RabbitMq(vhost) => {
                let begun = Instant::now();
                // The list of connections is some seconds behind.
                while vhost.management.close_connections().await.expect("closed") < 2 {
                    assert!(begun.elapsed() < LIMIT, "the connections are not listed");
                    sleep(Duration::from_millis(50)).await;
                }
            }
            Bench::Redis(database) => {
                let closed = database.close_connections("").await.expect("closed");
                assert!(closed >= 2, "two connections are shared");
            }
            Bench::RedisPubSub(bench) => {
                let closed = bench.database.close_connections("").await.expect("closed");
                assert!(closed >= 1, "one connection publishes");
            }
        }
        until("the loss of the connection is noticed", || {
            process.broker.health_check().state != ConnectionState::Ready
        })
        .await;
    }

    /// Waits until a group has shared out among so many what it reads, where the broker shares out parts.
    pub(crate) async fn until_shared(&self, group: &str, members: usize) -> Outcome {
        let Bench::Kafka(bench) = &self.bench else {
            return Ok(());
        };
        let group = format!("{}{group}", bench.prefix);
        kafka_shares::until_shared(&bench.direct, &group, members, LIMIT).await?;
        Ok(())
    }

    /// Waits until a loss of the connection would not bring back anything that was settled, everything
    /// being settled.
    pub(crate) async fn until_kept(&self) -> Outcome {
        let Bench::Kafka(bench) = &self.bench else {
            return Ok(());
        };
        kafka_shares::until_committed(&bench.direct, &bench.prefix, LIMIT).await
    }

    /// Whether what was settled just before a cut may come again, marked as redelivered: RabbitMQ forgets
    /// acknowledgements that its queue has not written when a connection ends.
    pub(crate) fn repeats_after_a_cut(&self) -> bool {
        matches!(self.bench, Bench::RabbitMq(_))
    }

    /// How often something was taken from a process of ours with which went what it had settled last. Only
    /// then may that come again.
    pub(crate) fn losses(&self) -> u64 {
        match &self.bench {
            Bench::Kafka(bench) => bench.metrics.count(PARTITIONS_LOST, &[]),
            _ => 0,
        }
    }

    /// Waits until the server counts so many messages of a queue as out. Elsewhere a settlement that has
    /// returned has been taken.
    pub(crate) async fn until_out(&self, queue: &str, count: u64) {
        if let Bench::RabbitMq(vhost) = &self.bench {
            let out = |queue: &Queue| queue.messages_unacknowledged == Some(count);
            let counted = vhost.management.wait_for_queue(queue, out, LIMIT).await;
            counted.expect("it is counted");
        }
    }

    /// Ends a world in which everything went well.
    pub(crate) async fn close(&self) -> Outcome {
        if let Bench::RabbitMq(vhost) = &self.bench {
            vhost.management.delete_vhost(&vhost.name).await?;
        }
        match &self.bench {
            Bench::Redis(database) => database.delete().await?,
            Bench::RedisPubSub(bench) => bench.database.delete().await?,
            _ => {}
        }
        Ok(())
    }
}

/// One process's connection to the broker.
pub(crate) struct Process {
    pub(crate) broker: Arc<dyn MessageBroker>,
}

impl Process {
    pub(crate) async fn until_ready(&self) {
        until("connected", || {
            self.broker.health_check().state == ConnectionState::Ready
        })
        .await;
    }

    /// Makes the subscription exist without reading it.
    pub(crate) async fn apply(&self, subscription: &Subscription) {
        let topology = self.broker.topology(&[Arc::new(subscription.clone())]);
        self.broker.apply(&topology).await.expect("it is applied");
    }

    /// Reads a subscription, from when it runs.
    pub(crate) async fn read(&self, subscription: &Subscription) -> Reader {
        let reader = self.read_when_possible(subscription).await;
        reader.until_state(&ConsumerState::Running).await;
        reader
    }

    /// Reads a subscription, whether or not it runs already.
    pub(crate) async fn read_when_possible(&self, subscription: &Subscription) -> Reader {
        let mut wanted = subscription.clone();
        if self.broker.capabilities().at_most_once_only {
            wanted.delivery = DeliveryMode::AtMostOnce;
        }
        let (sender, deliveries) = mpsc::channel(2 * usize::from(wanted.prefetch));
        let consumer = self
            .broker
            .subscribe(Arc::new(wanted), sender)
            .await
            .expect("it can be subscribed");
        Reader {
            consumer,
            deliveries,
        }
    }

    pub(crate) async fn publish(&self, outgoing: Outgoing) {
        let published = timeout(LIMIT, self.broker.publish(outgoing)).await;
        published.expect("in time").expect("it is published");
    }

    pub(crate) fn dead_letters(&self) -> &dyn DeadLetterStore {
        self.broker.dead_letters().expect("dead letters are kept")
    }

    /// The dead letters once there are `count`.
    pub(crate) async fn dead(&self, subscription: &Subscription, count: usize) -> Vec<Incoming> {
        let begun = Instant::now();
        loop {
            let listed = self.dead_letters().list(subscription, count + 10).await;
            let listed = listed.expect("dead letters can be listed");
            if listed.len() == count {
                return listed;
            }
            assert!(begun.elapsed() < LIMIT, "{} dead letters", listed.len());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends in order.
    pub(crate) async fn close(self) {
        self.broker.disconnect(Instant::now() + LIMIT).await;
    }
}

/// A consumer with what it gets.
pub(crate) struct Reader {
    pub(crate) consumer: Arc<dyn Consumer>,
    pub(crate) deliveries: mpsc::Receiver<Delivery>,
}

impl Reader {
    pub(crate) async fn until_state(&self, state: &ConsumerState) {
        until(&format!("{state:?}"), || self.consumer.state() == *state).await;
    }

    /// The next delivery of the connection that is up.
    pub(crate) async fn next(&mut self) -> (Arc<Incoming>, Settlement) {
        loop {
            let delivery = timeout(LIMIT, self.deliveries.recv()).await;
            let delivery = delivery.expect("a delivery in time").expect("it runs");
            if delivery.settlement.is_current() {
                return (delivery.incoming, delivery.settlement);
            }
        }
    }

    /// Takes and acknowledges the next delivery; its body.
    pub(crate) async fn take(&mut self) -> String {
        let (incoming, settlement) = self.next().await;
        assert_eq!(settlement.done().await.expect("settled"), Settled::Yes);
        text(&incoming)
    }

    /// Takes and acknowledges as many.
    pub(crate) async fn take_all(&mut self, count: usize) -> Vec<String> {
        let mut bodies = Vec::with_capacity(count);
        while bodies.len() < count {
            bodies.push(self.take().await);
        }
        bodies
    }

    /// Nothing comes for a while.
    pub(crate) async fn expect_quiet(&mut self) {
        if let Some(incoming) = self.next_unless_quiet().await {
            panic!("`{}` came", text(&incoming));
        }
    }

    /// What comes in a while in which nothing should.
    pub(crate) async fn next_unless_quiet(&mut self) -> Option<Arc<Incoming>> {
        let came = timeout(QUIET, self.deliveries.recv()).await;
        came.ok().flatten().map(|delivery| delivery.incoming)
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A subscription of a group, with defaults elsewhere.
pub(crate) fn subscription(topic: &str, group: &str) -> Subscription {
    let topic = TopicPattern::parse(topic.to_owned()).expect("a valid topic");
    Subscription::new(topic, Group::Named(group.into()))
}

/// A message whose id tells its topic and body.
pub(crate) fn message(topic: &str, body: &str) -> Outgoing {
    let id = MessageId::parse(&format!("{topic}/{body}")).expect("a valid id");
    Outgoing::new(
        topic.to_owned(),
        id,
        Bytes::copy_from_slice(body.as_bytes()),
    )
}

pub(crate) fn text(incoming: &Incoming) -> String {
    String::from_utf8_lossy(&incoming.body).into_owned()
}
