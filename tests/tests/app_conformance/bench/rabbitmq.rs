//! RabbitMQ, with a virtual host for each place and a plain AMQP client.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use interline::config::Config;
use interline::message::headers::name;
use interline::{HeaderValue, Headers};
use interline_tests::servers::{self, Vhost};
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use tokio::sync::mpsc;

use super::{Bench, Seen, Trouble};

/// More than any case publishes.
const LISTENED_MAX: usize = 10_000;
const EXCHANGE: &str = "interline";

/// A virtual host of its own.
pub(crate) struct RabbitMqBench {
    pub(crate) vhost: Vhost,
    outside: Connection,
    /// Publishes with confirmations.
    publishing: Channel,
}

impl RabbitMqBench {
    pub(crate) async fn open() -> Result<Self, Trouble> {
        let vhost = Vhost::create_on(servers::rabbitmq().await?).await?;
        let outside = Connection::connect(&vhost.url, ConnectionProperties::default()).await?;
        let publishing = outside.create_channel().await?;
        publishing
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            vhost,
            outside,
            publishing,
        })
    }

    /// Publishes with these properties, in any way a client can.
    pub(crate) async fn publish_as(
        &self,
        (exchange, routing_key): (&str, &str),
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<(), Trouble> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let confirmed = self
            .publishing
            .basic_publish(
                exchange.into(),
                routing_key.into(),
                options,
                body,
                properties,
            )
            .await?
            .await?;
        if !confirmed.is_ack() || confirmed.take_message().is_some() {
            return Err(format!("nobody listens to `{routing_key}`").into());
        }
        Ok(())
    }

    /// Takes everything out of a queue that is there now.
    pub(crate) async fn take_all(&self, queue: &str) -> Result<Vec<Seen>, Trouble> {
        // What is not there costs the channel.
        let channel = self.outside.create_channel().await?;
        let mut taken = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(got) = channel.basic_get(queue.into(), options).await? {
            taken.push(seen(&got.delivery.properties, got.delivery.data.clone()));
        }
        channel.close(200, "OK".into()).await?;
        Ok(taken)
    }
}

impl Bench for RabbitMqBench {
    fn configure(&self, config: Config, broker: &str) -> Config {
        config.with(&format!("brokers.{broker}.url"), self.vhost.url.as_str())
    }

    fn publish<'a>(
        &'a self,
        topic: &'a str,
        body: Bytes,
        headers: Headers,
    ) -> BoxFuture<'a, Result<(), Trouble>> {
        Box::pin(async move {
            let properties = properties(&headers)?;
            self.publish_as((EXCHANGE, topic), &body, properties).await
        })
    }

    fn listen<'a>(
        &'a self,
        topic: &'a str,
    ) -> BoxFuture<'a, Result<mpsc::Receiver<Seen>, Trouble>> {
        Box::pin(async move {
            let channel = self.outside.create_channel().await?;
            let durable = ExchangeDeclareOptions {
                durable: true,
                ..ExchangeDeclareOptions::default()
            };
            let none = FieldTable::default;
            channel
                .exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, durable, none())
                .await?;
            let exclusive = QueueDeclareOptions {
                exclusive: true,
                ..QueueDeclareOptions::default()
            };
            let queue = channel.queue_declare("".into(), exclusive, none()).await?;
            let queue = queue.name().clone();
            let bind = QueueBindOptions::default();
            channel
                .queue_bind(queue.clone(), EXCHANGE.into(), topic.into(), bind, none())
                .await?;
            let options = BasicConsumeOptions {
                no_ack: true,
                ..BasicConsumeOptions::default()
            };
            let mut consumer = channel
                .basic_consume(queue, "outside".into(), options, none())
                .await?;
            let (send, heard) = mpsc::channel(LISTENED_MAX);
            tokio::spawn(async move {
                // The channel ends with its last handle.
                let _channel = channel;
                while let Some(Ok(delivery)) = consumer.next().await {
                    let seen = seen(&delivery.properties, delivery.data.clone());
                    if send.send(seen).await.is_err() {
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
        Box::pin(async move { self.take_all(&format!("{group}.{topic}.dlq")).await })
    }

    fn left<'a>(&'a self, group: &'a str, topic: &'a str) -> BoxFuture<'a, Result<usize, Trouble>> {
        Box::pin(async move {
            let channel = self.outside.create_channel().await?;
            let passive = QueueDeclareOptions {
                passive: true,
                ..QueueDeclareOptions::default()
            };
            let queue = format!("{group}.{topic}");
            let declared = channel.queue_declare(queue.into(), passive, FieldTable::default());
            let count = declared.await?.message_count();
            channel.close(200, "OK".into()).await?;
            Ok(usize::try_from(count)?)
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Trouble>> {
        Box::pin(async {
            let goodbye = self.outside.close(200, "OK".into());
            // The server drops the connection with the virtual host in any case.
            let _ = tokio::time::timeout(Duration::from_secs(5), goodbye).await;
            self.vhost.management.delete_vhost(&self.vhost.name).await?;
            Ok(())
        })
    }
}

/// Headers as a plain client writes them: what AMQP has a property for, there; the rest as texts.
fn properties(headers: &Headers) -> Result<BasicProperties, Trouble> {
    let mut properties = BasicProperties::default();
    let mut table = FieldTable::default();
    for (header, value) in headers.iter() {
        let text = value.to_text().ok_or("foreign headers are texts")?;
        let text = text.into_owned();
        properties = match header {
            name::CONTENT_TYPE => properties.with_content_type(text.into()),
            name::MESSAGE_ID => properties.with_message_id(text.into()),
            name::CORRELATION_ID => properties.with_correlation_id(text.into()),
            name::MESSAGE_TYPE => properties.with_type(text.into()),
            _ => {
                table.insert(header.into(), AMQPValue::LongString(text.into()));
                properties
            }
        };
    }
    Ok(properties.with_headers(table))
}

fn seen(properties: &BasicProperties, body: Vec<u8>) -> Seen {
    let mut headers = Headers::new();
    let fields = [
        (name::CONTENT_TYPE, properties.content_type()),
        (name::MESSAGE_ID, properties.message_id()),
        (name::CORRELATION_ID, properties.correlation_id()),
        (name::MESSAGE_TYPE, properties.kind()),
    ];
    for (header, value) in fields {
        if let Some(value) = value.as_ref().map(ShortString::to_string) {
            headers.set(header, value);
        }
    }
    for (header, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        // A property and the header of its name say the same.
        let known = headers.text(header.as_str()).map(|text| text.into_owned());
        let value = read(value);
        if let Some(known) = known {
            assert_eq!(value.to_text().as_deref(), Some(&*known), "{header}");
        }
        headers.set(header.to_string(), value);
    }
    Seen {
        headers,
        body: body.into(),
    }
}

fn read(value: &AMQPValue) -> HeaderValue {
    match value {
        AMQPValue::Boolean(value) => HeaderValue::Bool(*value),
        AMQPValue::ShortShortInt(value) => HeaderValue::Int((*value).into()),
        AMQPValue::ShortShortUInt(value) => HeaderValue::Int((*value).into()),
        AMQPValue::ShortInt(value) => HeaderValue::Int((*value).into()),
        AMQPValue::ShortUInt(value) => HeaderValue::Int((*value).into()),
        AMQPValue::LongInt(value) => HeaderValue::Int((*value).into()),
        AMQPValue::LongUInt(value) => HeaderValue::Int((*value).into()),
        AMQPValue::LongLongInt(value) => HeaderValue::Int(*value),
        AMQPValue::Float(value) => HeaderValue::Float((*value).into()),
        AMQPValue::Double(value) => HeaderValue::Float(*value),
        AMQPValue::ShortString(value) => value.to_string().into(),
        AMQPValue::LongString(value) => match std::str::from_utf8(value.as_bytes()) {
            Ok(text) => text.to_owned().into(),
            Err(_) => Bytes::copy_from_slice(value.as_bytes()).into(),
        },
        AMQPValue::ByteArray(value) => Bytes::copy_from_slice(value.as_slice()).into(),
        AMQPValue::Timestamp(value) => HeaderValue::Timestamp(*value),
        AMQPValue::FieldArray(values) => {
            HeaderValue::List(values.as_slice().iter().map(read).collect())
        }
        AMQPValue::FieldTable(table) => {
            let entries = table.inner().iter();
            let read = entries.map(|(name, value)| (name.to_string(), read(value)));
            HeaderValue::Table(read.collect())
        }
        AMQPValue::DecimalValue(value) => {
            HeaderValue::Float(f64::from(value.value) / 10_f64.powi(i32::from(value.scale)))
        }
        AMQPValue::Void => HeaderValue::Null,
    }
}
