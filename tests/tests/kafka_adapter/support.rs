//! A broker under a prefix of its own, and what the cases do with it over and over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use interline::config::{Config, Faults};
use interline::message::{Incoming, MessageId, Outgoing, Place, TopicPattern};
use interline::messaging::kafka::Kafka;
use interline::messaging::{
    BrokerContext, Consumer, ConsumerState, Delivery, Group, MessageBroker, Settled, Subscription,
};
use interline::observability::metrics::InMemoryMetrics;
use interline_tests::servers;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Outcome = Result<(), Error>;

/// The longest that anything may take that is expected to happen.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A part of the shared server.
pub struct Stage {
    pub url: String,
    pub prefix: String,
    pub metrics: InMemoryMetrics,
    /// Whether its processes speak the protocol of Kafka 4.
    pub new_protocol: bool,
}

impl Stage {
    pub async fn new() -> Result<Self, Error> {
        let url = servers::kafka().await?.url().to_owned();
        Ok(Self::at(url))
    }

    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: servers::unique_prefix(),
            metrics: InMemoryMetrics::default(),
            new_protocol: false,
        }
    }

    /// The same, whose processes speak the protocol of Kafka 4.
    pub async fn of_new_protocol() -> Result<Self, Error> {
        let mut stage = Self::new().await?;
        stage.new_protocol = true;
        Ok(stage)
    }

    /// A process that is not connected yet.
    pub fn process(&self, instance: &str, change: impl FnOnce(Config) -> Config) -> Arc<Kafka> {
        let config = Config::new()
            .with("brokers.main.url", self.url.as_str())
            .with("brokers.main.partitions", 1)
            .with("brokers.main.commit_interval", Duration::from_millis(50))
            .with(
                "brokers.main.librdkafka.topic_metadata_refresh_interval_ms",
                300,
            );
        let config = if self.new_protocol {
            config.with("brokers.main.group_protocol", "consumer")
        } else {
            config.with("brokers.main.session_timeout", Duration::from_millis(1_500))
        };
        let config = change(config);
        let mut context = BrokerContext::new("main", "billing", instance);
        context.metrics = Some(Arc::new(self.metrics.clone()));
        context.prefix = Some(self.prefix.as_str().into());
        let mut faults = Faults::new();
        let broker = Kafka::read(&context, &config.section("brokers.main"), &mut faults);
        Arc::new(broker.unwrap_or_else(|| panic!("{:?}", faults.iter().collect::<Vec<_>>())))
    }

    pub async fn connected(&self, instance: &str) -> Result<Arc<Kafka>, Error> {
        self.connected_with(instance, |config| config).await
    }

    pub async fn connected_with(
        &self,
        instance: &str,
        change: impl FnOnce(Config) -> Config,
    ) -> Result<Arc<Kafka>, Error> {
        let broker = self.process(instance, change);
        servers::connect(&*broker).await?;
        Ok(broker)
    }

    /// A name as it is on the server.
    pub fn named(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    pub fn admin(&self) -> Result<AdminClient<DefaultClientContext>, Error> {
        let servers = self.url.trim_start_matches("kafka://");
        Ok(ClientConfig::new()
            .set("bootstrap.servers", servers)
            .create()?)
    }

    pub async fn delete_topic(&self, topic: &str) -> Outcome {
        let admin = self.admin()?;
        let options = AdminOptions::new().operation_timeout(Some(LIMIT));
        let deleted = admin.delete_topics(&[&self.named(topic)], &options).await?;
        for topic in deleted {
            topic.map_err(|(name, code)| format!("{name}: {code}"))?;
        }
        Ok(())
    }
}

pub fn subscription(topic: &str) -> Subscription {
    of_group(topic, "billing")
}

pub fn of_group(topic: &str, group: &str) -> Subscription {
    let topic = TopicPattern::parse(topic.to_owned()).expect("a valid topic");
    Subscription::new(topic, Group::Named(group.into()))
}

pub fn message(topic: &str, body: &str) -> Outgoing {
    let id = MessageId::parse(&format!("{topic}/{body}")).expect("a valid id");
    Outgoing::new(
        topic.to_owned(),
        id,
        Bytes::copy_from_slice(body.as_bytes()),
    )
}

pub fn text(incoming: &Incoming) -> String {
    String::from_utf8_lossy(&incoming.body).into_owned()
}

pub fn partition(incoming: &Incoming) -> i32 {
    match incoming.origin.place {
        Place::Kafka { partition, .. } => partition,
        ref other => panic!("{other:?}"),
    }
}

pub async fn publish(broker: &Kafka, outgoing: Outgoing) {
    let published = timeout(LIMIT, broker.publish(outgoing)).await;
    published.expect("in time").expect("it is published");
}

pub async fn close(broker: &Kafka) {
    broker.disconnect(Instant::now() + LIMIT).await;
}

/// A consumer with what it was handed.
pub struct Inbox {
    pub consumer: Arc<dyn Consumer>,
    pub deliveries: mpsc::Receiver<Delivery>,
}

impl Inbox {
    pub async fn open(broker: &Kafka, subscription: Subscription) -> Result<Self, Error> {
        let inbox = Self::begin(broker, subscription).await?;
        inbox.until(|state| *state == ConsumerState::Running).await;
        Ok(inbox)
    }

    pub async fn begin(broker: &Kafka, subscription: Subscription) -> Result<Self, Error> {
        let (sender, deliveries) = mpsc::channel(2 * usize::from(subscription.prefetch));
        let consumer = broker.subscribe(Arc::new(subscription), sender).await?;
        Ok(Self {
            consumer,
            deliveries,
        })
    }

    pub async fn until(&self, wanted: impl Fn(&ConsumerState) -> bool) {
        let consumer = &self.consumer;
        eventually(
            || wanted(&consumer.state()),
            || format!("{:?}", consumer.state()),
        )
        .await;
    }

    /// The next delivery that can still be settled.
    pub async fn next(&mut self) -> Delivery {
        loop {
            let delivery = timeout(LIMIT, self.deliveries.recv())
                .await
                .expect("a delivery in time")
                .expect("a consumer that runs");
            if delivery.settlement.is_current() {
                return delivery;
            }
        }
    }

    /// Takes the next delivery, acknowledges it, and gives its message.
    pub async fn take(&mut self) -> Incoming {
        let delivery = self.next().await;
        let settled = delivery.settlement.done().await.expect("settled");
        assert_eq!(settled, Settled::Yes);
        Arc::unwrap_or_clone(delivery.incoming)
    }

    /// Nothing arrives for a while.
    pub async fn expect_quiet(&mut self, time: Duration) {
        if let Ok(Some(delivery)) = timeout(time, self.deliveries.recv()).await {
            panic!("`{}` came", text(&delivery.incoming));
        }
    }
}

pub async fn eventually(condition: impl Fn() -> bool, shown: impl Fn() -> String) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {}", shown());
        sleep(Duration::from_millis(10)).await;
    }
}
