//! RabbitMQ, and the loops that a user of `lapin` would write.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use interline::config::Config;
use interline_tests::servers::{self, Vhost};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::order::{Order, Probe};
use crate::transport::{Load, Open, Place, Publishing, Transport};
use crate::{LIMIT, Result};

/// What the SDK's defaults are, for loops of the same shape.
const CONCURRENCY: usize = 16;
const PREFETCH: u16 = 32;
const PUBLISHING_CHANNELS: usize = 2;
const EXCHANGE: &str = "interline";
const TOPIC: &str = "bench.orders";

/// A virtual host of its own, and one kind of queue.
pub(crate) struct RabbitMq {
    vhost: Vhost,
    version: String,
    kind: &'static str,
}

#[derive(Deserialize)]
struct Overview {
    rabbitmq_version: String,
}

impl RabbitMq {
    /// `kind`: `classic` or `quorum`.
    pub(crate) async fn with_queues(kind: &'static str) -> Result<Self> {
        let vhost = Vhost::create_on(servers::rabbitmq().await?).await?;
        let overview: Overview = vhost.management.get(&["overview"]).await?;
        Ok(Self {
            vhost,
            version: overview.rabbitmq_version,
            kind,
        })
    }

    async fn connect(&self) -> Result<Connection> {
        let properties = ConnectionProperties::default();
        Ok(Connection::connect(&self.vhost.url, properties).await?)
    }

    async fn consumer(&self, group: &str) -> Result<(Connection, Channel, Consumer)> {
        let connection = self.connect().await?;
        let channel = connection.create_channel().await?;
        let qos = BasicQosOptions { global: false };
        channel.basic_qos(PREFETCH, qos).await?;
        let options = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume(
                queue(group).into(),
                "raw".into(),
                options,
                FieldTable::default(),
            )
            .await?;
        Ok((connection, channel, consumer))
    }

    async fn publishing_channels(&self, count: usize) -> Result<(Connection, Vec<Arc<Channel>>)> {
        let connection = self.connect().await?;
        let mut channels = Vec::with_capacity(count);
        for _ in 0..count {
            let channel = connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            channels.push(Arc::new(channel));
        }
        Ok((connection, channels))
    }
}

fn queue(group: &str) -> String {
    format!("{group}.{TOPIC}")
}

impl Transport for RabbitMq {
    fn title(&self) -> String {
        format!("RabbitMQ {}, {} queue", self.version, self.kind)
    }

    fn config(&self) -> Config {
        Config::new().with("brokers.main.url", self.vhost.url.as_str())
    }

    fn config_of(&self, group: &str) -> Config {
        self.config()
            .with("subscribers.handle.group", group)
            .with("subscribers.handle.rabbitmq.queue_kind", self.kind)
    }

    fn place(&self, group: &str) -> Place {
        Place {
            url: self.vhost.url.clone(),
            source: queue(group),
            group: group.to_owned(),
        }
    }

    fn raw_consumers(&self) -> &'static [&'static str] {
        &[
            "lapin, one at a time",
            "lapin, 16 at once in one task",
            "lapin, 16 at once, a task each",
            "lapin, acknowledgements not waited for",
        ]
    }

    fn consume_raw(
        &self,
        which: usize,
        group: &str,
        probe: Arc<Probe>,
    ) -> BoxFuture<'_, Result<Open>> {
        let group = group.to_owned();
        Box::pin(async move {
            let (connection, channel, consumer) = self.consumer(&group).await?;
            match which {
                0 => one_at_a_time(&channel, consumer, &probe).await?,
                1 => in_one_task(&channel, consumer, &probe).await?,
                2 => a_task_each(&channel, consumer, &probe).await?,
                _ => without_waiting(&channel, consumer, &probe).await?,
            }
            Ok(Box::new((connection, channel)) as Open)
        })
    }

    fn raw_publishers(&self) -> &'static [&'static str] {
        &[
            "lapin, one channel, few properties",
            "lapin, two channels, few properties",
            "lapin, two channels, the properties and headers that Interline writes",
        ]
    }

    fn publish_raw(&self, which: usize, load: Load) -> BoxFuture<'_, Result<Publishing>> {
        Box::pin(async move {
            let count = if which == 0 { 1 } else { PUBLISHING_CHANNELS };
            let (connection, channels) = self.publishing_channels(count).await?;
            let properties: fn(&Order) -> BasicProperties = match which {
                0 | 1 => few_properties,
                _ => all_properties,
            };
            Ok(Box::pin(async move {
                publish(&channels, load, properties).await?;
                drop(connection);
                Ok(())
            }) as Publishing)
        })
    }

    fn holds<'a>(&'a self, group: &'a str, ready: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let name = queue(group);
            let settled = |queue: &interline_tests::management::Queue| {
                queue.messages_ready == Some(ready) && queue.messages_unacknowledged == Some(0)
            };
            let management = &self.vhost.management;
            management.wait_for_queue(&name, settled, LIMIT).await?;
            Ok(())
        })
    }

    fn purge<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { Ok(self.vhost.management.purge_queue(&queue(group)).await?) })
    }

    fn remove<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { Ok(self.vhost.management.delete_queue(&queue(group)).await?) })
    }

    fn end(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { Ok(self.vhost.management.delete_vhost(&self.vhost.name).await?) })
    }
}

/// The channel's own `basic_ack` takes one hop less than that of the delivery.
async fn acknowledge(channel: &Channel, tag: u64) -> lapin::Result<()> {
    channel
        .basic_ack(tag, BasicAckOptions { multiple: false })
        .await
}

async fn one_at_a_time(channel: &Channel, mut consumer: Consumer, probe: &Probe) -> Result<()> {
    while !probe.is_full() {
        let delivery = consumer.next().await.ok_or("the consumer ended")??;
        let order = Order::from_json(&delivery.data)?;
        probe.note(order.n);
        acknowledge(channel, delivery.delivery_tag).await?;
    }
    Ok(())
}

async fn in_one_task(channel: &Channel, consumer: Consumer, probe: &Probe) -> Result<()> {
    let deliveries = consumer.map_err(crate::Error::from);
    deliveries
        .take(probe.expected())
        .try_for_each_concurrent(CONCURRENCY, |delivery| async move {
            let order = Order::from_json(&delivery.data)?;
            probe.note(order.n);
            Ok(acknowledge(channel, delivery.delivery_tag).await?)
        })
        .await
}

async fn a_task_each(channel: &Channel, mut consumer: Consumer, probe: &Arc<Probe>) -> Result<()> {
    let places = Arc::new(Semaphore::new(CONCURRENCY));
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..probe.expected() {
        let delivery = consumer.next().await.ok_or("the consumer ended")??;
        let place = Arc::clone(&places).acquire_owned().await?;
        let (channel, probe) = (channel.clone(), Arc::clone(probe));
        tasks.spawn(async move {
            let order = Order::from_json(&delivery.data)?;
            probe.note(order.n);
            acknowledge(&channel, delivery.delivery_tag).await?;
            drop(place);
            Ok(())
        });
        while let Some(done) = tasks.try_join_next() {
            done??;
        }
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// The leanest loop: an acknowledgement stands in the channel's queue once it was polled.
async fn without_waiting(channel: &Channel, mut consumer: Consumer, probe: &Probe) -> Result<()> {
    while !probe.is_full() {
        let delivery = consumer.next().await.ok_or("the consumer ended")??;
        let order = Order::from_json(&delivery.data)?;
        probe.note(order.n);
        let written = acknowledge(channel, delivery.delivery_tag).now_or_never();
        written.unwrap_or(Ok(()))?;
    }
    Ok(())
}

async fn publish(
    channels: &[Arc<Channel>],
    load: Load,
    properties: fn(&Order) -> BasicProperties,
) -> Result<()> {
    let turns = channels.iter().cycle();
    stream::iter(0..load.count)
        .zip(stream::iter(turns.cloned()))
        .map(|(n, channel)| async move {
            let order = Order::of_size(n, load.size);
            let options = BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            let (body, properties) = (order.json(), properties(&order));
            let confirm = channel
                .basic_publish(EXCHANGE.into(), TOPIC.into(), options, &body, properties)
                .await?;
            match confirm.await? {
                Confirmation::Ack(None) => Ok::<_, crate::Error>(()),
                // With several open, the one that a return is attached to need not be its owner; here
                // none may be returned at all.
                other => Err(format!("not simply confirmed: {other:?}").into()),
            }
        })
        .buffer_unordered(load.open)
        .try_for_each(|()| async { Ok(()) })
        .await
}

fn few_properties(order: &Order) -> BasicProperties {
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_message_id(format!("message-{}", order.n).into())
        .with_type("Order".into())
}

/// As many bytes as Interline writes, for a server that has as much to read and store.
fn all_properties(_: &Order) -> BasicProperties {
    let id = "01936171-7d5e-7cc0-8000-0123456789ab";
    let mut table = FieldTable::default();
    for (name, value) in [
        ("content-type", "application/json"),
        ("message-type", "Order"),
        ("message-id", id),
        ("published-at", "2026-11-25T08:00:00.000Z"),
        ("sender", "interline-tests"),
        ("correlation-id", id),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ] {
        table.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    table.insert("message-version".into(), AMQPValue::LongLongInt(1));
    BasicProperties::default()
        .with_headers(table)
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_message_id(id.into())
        .with_type("Order".into())
        .with_correlation_id(id.into())
        .with_app_id("interline-tests".into())
        .with_timestamp(1_764_057_600)
}
