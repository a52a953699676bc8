//! What an instance has for itself: it outlives the connection, not the instance.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use interline::messaging::rabbitmq::RabbitMq;
use interline::messaging::{ConnectionState, Group, MessageBroker, Subscription, TopologyMode};
use interline::observability::metrics::InMemoryMetrics;
use interline::testing::FaultProxy;
use interline_tests::harness::Case;
use tokio::time::{Instant, sleep};

use crate::support::{
    Error, Inbox, LIMIT, Outcome, Stage, broker, message, subscription, until_state,
};

const QUEUE: &str = "billing.audit.a.b.two";

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "an_instance_misses_nothing_while_its_connection_is_cut",
            cut,
        ),
        Case::new("what_a_crashed_instance_leaves_goes_by_itself", crashed),
        Case::new(
            "what_an_instance_has_for_itself_is_made_also_where_the_rest_is_verified",
            verified,
        ),
    ]
}

fn of_instance() -> Subscription {
    let mut subscription = subscription("a.b");
    subscription.group = Group::EachInstance {
        service: "billing".into(),
        instance: "two".into(),
        subscriber: "audit".into(),
    };
    subscription
}

/// An instance that comes to the server through a proxy.
async fn instance(stage: &Stage, expires: &str) -> Result<(FaultProxy, Arc<RabbitMq>), Error> {
    let url = &stage.vhost.url;
    let place = url
        .split_once('@')
        .and_then(|(_, rest)| rest.split_once('/'));
    let (place, _) = place.expect("an address with a user and a virtual host");
    let proxy = FaultProxy::start(place).await?;
    let through = url.replace(place, &proxy.address().to_string());
    let broker = broker(&through, "two", &InMemoryMetrics::default(), |config| {
        config.with("brokers.main.instance_queue_expires", expires)
    });
    broker.connect().await?;
    Ok((proxy, broker))
}

async fn cut() -> Outcome {
    let stage = Stage::new().await?;
    let (proxy, two) = instance(&stage, "5m").await?;
    let mut inbox = Inbox::open(&two, of_instance()).await?;
    stage.broker.publish(message("a.b", "later", "{}")).await?;
    let held = inbox.next().await;
    let headers = held.incoming.headers.clone();
    let second = Duration::from_secs(1);
    held.settlement
        .retry(held.incoming, second, headers)
        .await?;
    let mut expected = BTreeSet::from(["later".to_owned()]);
    for index in 0..300 {
        match index {
            100 => {
                proxy.refuse(true).await?;
                proxy.reset_all().await;
                until_state(&two, ConnectionState::Connecting).await;
            }
            200 => proxy.restore().await?,
            _ => {}
        }
        let id = index.to_string();
        // Nobody else is there to take it: it is confirmed because the queue is.
        stage.broker.publish(message("a.b", &id, "{}")).await?;
        expected.insert(id);
    }
    let mut seen = BTreeSet::new();
    while seen != expected {
        // What was out at the cut comes twice, and the first copy cannot be settled any more.
        let delivery = inbox.next().await;
        seen.insert(delivery.incoming.id.to_string());
        delivery.settlement.done().await?;
    }
    two.disconnect(Instant::now() + LIMIT).await;
    let left = stage.management().queues().await?;
    let left: Vec<&str> = left.iter().map(|queue| &*queue.name).collect();
    assert_eq!(left, ["billing.audit.a.b.dlq"]);
    stage.end().await
}

async fn crashed() -> Outcome {
    let stage = Stage::new().await?;
    let (proxy, two) = instance(&stage, "1s").await?;
    let mut inbox = Inbox::open(&two, of_instance()).await?;
    stage.broker.publish(message("a.b", "1", "{}")).await?;
    inbox.take().await;
    // Longer than the queue would last without its reader.
    sleep(Duration::from_secs(2)).await;
    stage.broker.publish(message("a.b", "2", "{}")).await?;
    inbox.take().await;
    proxy.refuse(true).await?;
    proxy.reset_all().await;
    let deadline = Instant::now() + LIMIT;
    while stage.management().queue(QUEUE).await?.is_some() {
        assert!(Instant::now() < deadline, "the queue is still there");
        sleep(Duration::from_millis(50)).await;
    }
    // It comes back to a queue that is new.
    proxy.restore().await?;
    until_state(&two, ConnectionState::Ready).await;
    let deadline = Instant::now() + LIMIT;
    while stage
        .broker
        .publish(message("a.b", "3", "{}"))
        .await
        .is_err()
    {
        assert!(Instant::now() < deadline, "the queue is not made again");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(inbox.take().await.id.as_str(), "3");
    two.disconnect(Instant::now() + LIMIT).await;
    stage.end().await
}

async fn verified() -> Outcome {
    let stage = Stage::new().await?;
    let mut wanted = of_instance();
    wanted.topology = TopologyMode::Verify;
    stage
        .broker
        .setup_dead_letter_queue("billing.audit.a.b")
        .await?;
    let mut inbox = Inbox::open(&stage.broker, wanted).await?;
    stage.broker.publish(message("a.b", "1", "{}")).await?;
    assert_eq!(inbox.take().await.id.as_str(), "1");
    stage.end().await
}
