//! A look at the queues with a plain AMQP client.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use tokio::time::timeout;

use crate::trouble::{Outcome, Trouble};

const PASSIVE: QueueDeclareOptions = QueueDeclareOptions {
    passive: true,
    durable: false,
    exclusive: false,
    auto_delete: false,
    nowait: false,
};

/// How a queue is at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) ready: u32,
    pub(crate) consumers: u32,
}

/// A plain connection.
pub(crate) struct Outside(Connection);

impl Outside {
    pub(crate) async fn connect(url: &str) -> Outcome<Self> {
        let connecting = Connection::connect(url, ConnectionProperties::default());
        Ok(Self(connecting.await?))
    }

    /// The queue, unless there is none or it does not answer.
    pub(crate) async fn counts(&self, queue: &str) -> Outcome<Option<Counts>> {
        // What is not there costs the channel.
        let channel = self.0.create_channel().await?;
        let asked = channel.queue_declare(queue.into(), PASSIVE, FieldTable::default());
        let Ok(Ok(queue)) = timeout(Duration::from_secs(10), asked).await else {
            return Ok(None);
        };
        channel.close(200, "OK".into()).await?;
        Ok(Some(Counts {
            ready: queue.message_count(),
            consumers: queue.consumer_count(),
        }))
    }

    /// Takes everything out of a queue: the identity and the body of each message.
    pub(crate) async fn drain(&self, queue: &str) -> Outcome<Vec<(String, Vec<u8>)>> {
        let Some(counts) = self.counts(queue).await? else {
            return Err(Trouble::new(format!("there is no queue `{queue}`")));
        };
        let channel = self.0.create_channel().await?;
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consuming =
            channel.basic_consume(queue.into(), "drain".into(), options, FieldTable::default());
        let mut consumer = consuming.await?;
        let mut taken = Vec::new();
        for _ in 0..counts.ready {
            let Ok(Some(delivery)) = timeout(Duration::from_secs(20), consumer.next()).await else {
                let (got, of) = (taken.len(), counts.ready);
                return Err(Trouble::new(format!(
                    "queue `{queue}` gave {got} of its {of} messages"
                )));
            };
            let delivery = delivery?;
            let id = delivery.properties.message_id().as_ref();
            let id = id.map(ToString::to_string).unwrap_or_default();
            taken.push((id, delivery.data));
        }
        channel.close(200, "OK".into()).await?;
        Ok(taken)
    }
}
