//! A broker in a database of its own, and what the cases do with it over and over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use interline::config::{Config, Faults};
use interline::message::headers::name;
use interline::message::{Incoming, MessageId, Outgoing, TopicPattern};
pub use interline::messaging::redis::RedisStreams as Broker;
use interline::messaging::{
    BrokerContext, Consumer, ConsumerState, Delivery, Group, MessageBroker, Settled, Settlement,
    Subscription,
};
use interline::observability::metrics::InMemoryMetrics;
use interline::testing::ServerFixture;
use interline_tests::redis::Database;
use interline_tests::servers;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Outcome = Result<(), Error>;

/// The longest that anything may take that is expected to happen.
pub const LIMIT: Duration = Duration::from_secs(30);
/// How long nothing may happen where nothing is to happen.
pub const QUIET: Duration = Duration::from_millis(400);

pub struct Stage {
    pub database: Database,
    pub metrics: InMemoryMetrics,
    pub broker: Arc<Broker>,
}

impl Stage {
    pub async fn new() -> Result<Self, Error> {
        Self::with(|config| config).await
    }

    pub async fn with(change: impl FnOnce(Config) -> Config) -> Result<Self, Error> {
        Self::on(servers::redis().await?, change).await
    }

    pub async fn on(
        server: &ServerFixture,
        change: impl FnOnce(Config) -> Config,
    ) -> Result<Self, Error> {
        let database = Database::create_on(server).await?;
        let metrics = InMemoryMetrics::default();
        let broker = broker(&database.url, "one", &metrics, change);
        servers::connect(&*broker).await?;
        Ok(Self {
            database,
            metrics,
            broker,
        })
    }

    /// Another instance of the service.
    pub async fn another(
        &self,
        instance: &str,
        change: impl FnOnce(Config) -> Config,
    ) -> Result<Arc<Broker>, Error> {
        let broker = broker(&self.database.url, instance, &self.metrics, change);
        servers::connect(&*broker).await?;
        Ok(broker)
    }

    pub async fn end(self) -> Outcome {
        self.broker.disconnect(Instant::now() + LIMIT).await;
        self.database.delete().await?;
        Ok(())
    }
}

pub fn broker(
    url: &str,
    instance: &str,
    metrics: &InMemoryMetrics,
    change: impl FnOnce(Config) -> Config,
) -> Arc<Broker> {
    let config = change(Config::new().with("brokers.main.url", url));
    let mut context = BrokerContext::new("main", "billing", instance);
    context.metrics = Some(Arc::new(metrics.clone()));
    let mut faults = Faults::new();
    let broker = Broker::read(&context, &config.section("brokers.main"), &mut faults);
    Arc::new(broker.unwrap_or_else(|| panic!("{:?}", faults.iter().collect::<Vec<_>>())))
}

pub fn subscription(topic: &'static str) -> Subscription {
    let topic = TopicPattern::parse(topic).expect("a valid topic");
    Subscription::new(topic, Group::Named("billing".into()))
}

pub fn message(topic: &str, body: &str) -> Outgoing {
    let id = MessageId::parse(&format!("{topic}/{body}")).expect("a valid id");
    let body = Bytes::copy_from_slice(body.as_bytes());
    let mut outgoing = Outgoing::new(topic.to_owned(), id, body);
    outgoing.headers.set(name::CONTENT_TYPE, "text/plain");
    outgoing
}

/// One after the other, so that they lie there in this order.
pub async fn publish(broker: &Broker, bodies: impl IntoIterator<Item = String>) -> Outcome {
    for body in bodies {
        broker.publish(message("t", &body)).await?;
    }
    Ok(())
}

pub async fn apply(broker: &Broker, subscription: &Subscription) -> Outcome {
    let topology = broker.topology(&[Arc::new(subscription.clone())]);
    Ok(broker.apply(&topology).await?)
}

/// A consumer with what it was handed.
pub struct Inbox {
    pub consumer: Arc<dyn Consumer>,
    pub deliveries: mpsc::Receiver<Delivery>,
}

impl Inbox {
    pub async fn open(broker: &Broker, subscription: Subscription) -> Result<Self, Error> {
        let inbox = Self::begin(broker, subscription).await?;
        inbox.until(|state| *state == ConsumerState::Running).await;
        Ok(inbox)
    }

    pub async fn begin(broker: &Broker, subscription: Subscription) -> Result<Self, Error> {
        let (sender, deliveries) = mpsc::channel(2_048);
        let consumer = broker.subscribe(Arc::new(subscription), sender).await?;
        Ok(Self {
            consumer,
            deliveries,
        })
    }

    pub async fn until(&self, wanted: impl Fn(&ConsumerState) -> bool) {
        let consumer = &self.consumer;
        eventually(
            async || wanted(&consumer.state()),
            || format!("{:?}", consumer.state()),
        )
        .await;
    }

    /// The next delivery that can still be settled.
    pub async fn next(&mut self) -> (Arc<Incoming>, Settlement) {
        loop {
            let delivery = timeout(LIMIT, self.deliveries.recv())
                .await
                .expect("a delivery in time")
                .expect("it runs");
            if delivery.settlement.is_current() {
                return (delivery.incoming, delivery.settlement);
            }
        }
    }

    /// Takes and acknowledges the next; its body.
    pub async fn take(&mut self) -> String {
        let (incoming, settlement) = self.next().await;
        assert_eq!(settlement.done().await.expect("settled"), Settled::Yes);
        text(&incoming)
    }

    pub async fn take_all(&mut self, count: usize) -> Vec<String> {
        let mut bodies = Vec::with_capacity(count);
        while bodies.len() < count {
            bodies.push(self.take().await);
        }
        bodies
    }

    pub async fn expect_quiet(&mut self) {
        if let Ok(Some(delivery)) = timeout(QUIET, self.deliveries.recv()).await {
            panic!("`{}` came", text(&delivery.incoming));
        }
    }
}

pub fn text(incoming: &Incoming) -> String {
    String::from_utf8_lossy(&incoming.body).into_owned()
}

/// Waits until something holds; says what is instead if it never does.
pub async fn eventually(mut holds: impl AsyncFnMut() -> bool, instead: impl Fn() -> String) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < LIMIT, "instead: {}", instead());
        sleep(Duration::from_millis(10)).await;
    }
}

/// Numbers as bodies.
pub fn numbers(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|number| format!("{number:04}"))
}
