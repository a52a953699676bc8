//! A broker in a virtual host of its own, and what the cases do with it over and over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use interline::config::{Config, Faults};
use interline::message::headers::name;
use interline::message::{Incoming, MessageId, Outgoing, TopicPattern};
use interline::messaging::rabbitmq::RabbitMq;
use interline::messaging::{
    BrokerContext, ConnectionState, Consumer, ConsumerState, Delivery, Group, MessageBroker,
    Settled, Subscription,
};
use interline::observability::metrics::InMemoryMetrics;
use interline_tests::management::Management;
use interline_tests::servers::{self, Vhost};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Outcome = Result<(), Error>;

/// The longest that anything may take that is expected to happen.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The same for a connection that somebody had to repair: it is tried again after 15 to 30 seconds.
pub const REPAIR_LIMIT: Duration = Duration::from_secs(90);

pub struct Stage {
    pub vhost: Vhost,
    pub metrics: InMemoryMetrics,
    pub broker: Arc<RabbitMq>,
}

impl Stage {
    pub async fn new() -> Result<Self, Error> {
        Self::with(|config| config).await
    }

    pub async fn with(change: impl FnOnce(Config) -> Config) -> Result<Self, Error> {
        let vhost = Vhost::create_on(servers::rabbitmq().await?).await?;
        let metrics = InMemoryMetrics::default();
        let broker = broker(&vhost.url, "one", &metrics, change);
        servers::connect(&*broker).await?;
        Ok(Self {
            vhost,
            metrics,
            broker,
        })
    }

    pub fn management(&self) -> &Management {
        &self.vhost.management
    }

    pub async fn end(self) -> Outcome {
        self.broker.disconnect(Instant::now() + LIMIT).await;
        self.vhost.delete().await?;
        Ok(())
    }
}

pub fn broker(
    url: &str,
    instance: &str,
    metrics: &InMemoryMetrics,
    change: impl FnOnce(Config) -> Config,
) -> Arc<RabbitMq> {
    let config = change(Config::new().with("brokers.main.url", url));
    let mut context = BrokerContext::new("main", "billing", instance);
    context.metrics = Some(Arc::new(metrics.clone()));
    let mut faults = Faults::new();
    let broker = RabbitMq::read(&context, &config.section("brokers.main"), &mut faults);
    Arc::new(broker.unwrap_or_else(|| panic!("{:?}", faults.iter().collect::<Vec<_>>())))
}

pub fn subscription(topic: &'static str) -> Subscription {
    let topic = TopicPattern::parse(topic).expect("a valid topic");
    Subscription::new(topic, Group::Named("billing".into()))
}

pub fn message(topic: &str, id: &str, body: impl Into<Bytes>) -> Outgoing {
    let id = MessageId::parse(id).expect("a valid id");
    let mut outgoing = Outgoing::new(topic.to_owned(), id.clone(), body.into());
    outgoing.headers.set(name::MESSAGE_ID, id.to_string());
    outgoing.headers.set(name::CONTENT_TYPE, "application/json");
    outgoing
}

/// A consumer with what it was handed.
pub struct Inbox {
    pub consumer: Arc<dyn Consumer>,
    pub deliveries: mpsc::Receiver<Delivery>,
}

impl Inbox {
    pub async fn open(broker: &RabbitMq, subscription: Subscription) -> Result<Self, Error> {
        let inbox = Self::begin(broker, subscription).await?;
        inbox.until(|state| *state == ConsumerState::Running).await;
        Ok(inbox)
    }

    pub async fn begin(broker: &RabbitMq, subscription: Subscription) -> Result<Self, Error> {
        let (sender, deliveries) = mpsc::channel(1_024);
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

    pub async fn next(&mut self) -> Delivery {
        timeout(LIMIT, self.deliveries.recv())
            .await
            .expect("a delivery in time")
            .expect("a consumer that runs")
    }

    /// Takes the next delivery, acknowledges it, and gives its message.
    pub async fn take(&mut self) -> Incoming {
        let Delivery {
            incoming,
            settlement,
            ..
        } = self.next().await;
        assert_eq!(settlement.done().await.unwrap(), Settled::Yes);
        Arc::unwrap_or_clone(incoming)
    }

    /// Nothing arrives for a while.
    pub async fn is_quiet(&mut self, time: Duration) -> bool {
        timeout(time, self.deliveries.recv()).await.is_err()
    }
}

pub async fn eventually(condition: impl Fn() -> bool, shown: impl Fn() -> String) {
    eventually_within(LIMIT, condition, shown).await;
}

pub async fn eventually_within(
    limit: Duration,
    condition: impl Fn() -> bool,
    shown: impl Fn() -> String,
) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {}", shown());
        sleep(Duration::from_millis(10)).await;
    }
}

pub async fn until_state(broker: &RabbitMq, state: ConnectionState) {
    until_state_within(LIMIT, broker, state).await;
}

/// Waits until it is up again after what was wrong has been repaired.
pub async fn until_repaired(broker: &RabbitMq) {
    until_state_within(REPAIR_LIMIT, broker, ConnectionState::Ready).await;
}

async fn until_state_within(limit: Duration, broker: &RabbitMq, state: ConnectionState) {
    let health = || broker.health_check();
    let shown = || format!("{:?}", health());
    eventually_within(limit, || health().state == state, shown).await;
}
