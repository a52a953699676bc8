//! Behaviour of the embedded broker through the port.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::handling::{PublishError, PublishErrorKind};
use crate::message::{Headers, Incoming, MessageId, Outgoing, TopicPattern, headers::name};
use crate::messaging::{
    BrokerContext, Connected, ConnectionState, Consumer, ConsumerState, CrashPoint, CrashPoints,
    Delivery, Group, MessageBroker, OrderedBy, Settled, Start, Subscription, TopologyMode,
};

use super::{Activity, EventKind, MemoryBroker, MemoryOptions, MemoryStore};

mod flow;
mod outages;
mod random;
mod topics;

/// A store for one test.
fn store() -> MemoryStore {
    MemoryStore::new(MemoryOptions::for_tests(7))
}

/// A process that is connected.
async fn process(store: &MemoryStore, instance: &str) -> MemoryBroker {
    let broker = MemoryBroker::new(store, &BrokerContext::new("main", "billing", instance));
    assert_eq!(broker.connect().await.unwrap(), Connected::Yes);
    broker
}

/// A store with one process.
async fn alone() -> (MemoryStore, MemoryBroker) {
    let store = store();
    let broker = process(&store, "1").await;
    (store, broker)
}

fn subscription(topic: &str, group: &str) -> Subscription {
    Subscription::new(
        TopicPattern::new(topic.to_owned()),
        Group::Named(group.into()),
    )
}

/// A consumer with what it got.
struct Reader {
    consumer: Arc<dyn Consumer>,
    deliveries: mpsc::Receiver<Delivery>,
}

async fn read(broker: &MemoryBroker, subscription: Subscription) -> Reader {
    let (sender, deliveries) = mpsc::channel(usize::from(subscription.prefetch));
    let consumer = broker.subscribe(Arc::new(subscription), sender);
    Reader {
        consumer: consumer.await.unwrap(),
        deliveries,
    }
}

impl Reader {
    /// The next delivery, which is there already.
    fn take(&mut self) -> Delivery {
        self.deliveries.try_recv().expect("a delivery")
    }

    /// Takes and settles everything that comes; the bodies.
    async fn drain(&mut self) -> Vec<String> {
        let mut bodies = Vec::new();
        while let Ok(delivery) = self.deliveries.try_recv() {
            bodies.push(text(&delivery.incoming));
            assert_eq!(delivery.settlement.done().await.unwrap(), Settled::Yes);
        }
        bodies
    }

    fn is_empty(&mut self) -> bool {
        self.deliveries.try_recv().is_err()
    }
}

fn text(incoming: &Incoming) -> String {
    String::from_utf8(incoming.body.to_vec()).unwrap()
}

fn message(topic: &str, body: &str) -> Outgoing {
    let id = MessageId::parse(&format!("{topic}/{body}")).unwrap();
    let mut outgoing = Outgoing::new(
        topic.to_owned(),
        id.clone(),
        Bytes::copy_from_slice(body.as_bytes()),
    );
    outgoing.headers.set(name::MESSAGE_ID, id.to_string());
    outgoing
}

async fn publish(broker: &MemoryBroker, topic: &str, body: &str) {
    broker.publish(message(topic, body)).await.unwrap();
}

async fn publish_all(broker: &MemoryBroker, topic: &str, bodies: &[&str]) {
    for body in bodies {
        publish(broker, topic, body).await;
    }
}

fn kind(error: &PublishError) -> PublishErrorKind {
    error.kind()
}

/// The message and settlement of a delivery.
fn parts(delivery: Delivery) -> (Arc<Incoming>, crate::messaging::Settlement) {
    (delivery.incoming, delivery.settlement)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
