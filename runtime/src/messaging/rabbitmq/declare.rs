//! Makes (or only looks for) what the topology names, on a channel that is thrown away: a
//! difference to what is there closes it.

use std::sync::Arc;

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Connection};
use tracing::warn;

use crate::messaging::{BrokerError, BrokerErrorKind, ExchangeKind, TopologyMode};

use super::connection::{Live, limited};
use super::core::Core;
use super::topology::{Arguments, Part, Value, exchange_kind};

const REPLY_SUCCESS: u16 = 200;

/// Makes what all publishes need: the configured exchange. What is missing afterwards is told by
/// each publish, so this is no reason not to connect.
pub(super) async fn shared(core: &Core, live: &Live) {
    let exchange = &core.settings.exchange;
    if exchange.is_empty() || exchange.starts_with("amq.") || core.context.read_only {
        return;
    }
    let part = Part::Exchange {
        name: exchange.clone(),
        kind: ExchangeKind::Topic,
    };
    let made = all(
        core,
        &live.consume,
        &[(part.clone(), core.settings.topology)],
    )
    .await;
    let Err(error) = made else {
        return;
    };
    let is_there = all(core, &live.consume, &[(part, TopologyMode::Verify)]).await;
    if is_there.is_err() || error.kind() == BrokerErrorKind::TopologyConflict {
        warn!(broker = %core.context.name, "{error}");
    }
}

/// Makes or checks the parts in order; the first that fails ends it.
pub(super) async fn all(
    core: &Core,
    connection: &Connection,
    parts: &[(Part, TopologyMode)],
) -> Result<(), BrokerError> {
    let broker = &core.context.name;
    if parts.iter().all(|(_, mode)| *mode == TopologyMode::Off) {
        return Ok(());
    }
    let channel = limited(broker, "a channel", connection.create_channel()).await?;
    for (part, mode) in parts {
        one(broker, &channel, part, *mode).await?;
    }
    // It has served; an error of closing it changes nothing.
    let _ = limited(
        broker,
        "a channel",
        channel.close(REPLY_SUCCESS, "OK".into()),
    )
    .await;
    Ok(())
}

async fn one(
    broker: &Arc<str>,
    channel: &Channel,
    part: &Part,
    mode: TopologyMode,
) -> Result<(), BrokerError> {
    let passive = match mode {
        TopologyMode::Off => return Ok(()),
        TopologyMode::Verify => true,
        TopologyMode::Apply => false,
    };
    match part {
        Part::Exchange { name, kind } => {
            let options = ExchangeDeclareOptions {
                passive,
                durable: true,
                ..ExchangeDeclareOptions::default()
            };
            let short = short(broker, name)?;
            let kind = lapin::ExchangeKind::Custom(exchange_kind(*kind).to_owned());
            let declared = channel.exchange_declare(short, kind, options, FieldTable::default());
            limited(broker, &format!("exchange `{name}`"), declared).await
        }
        Part::Queue {
            name,
            of_instance,
            arguments,
        } => {
            // A queue of this instance alone is made here or nowhere.
            let passive = passive && !of_instance;
            let options = QueueDeclareOptions {
                passive,
                durable: true,
                ..QueueDeclareOptions::default()
            };
            let short = short(broker, name)?;
            let declared = channel.queue_declare(short, options, table(broker, arguments)?);
            limited(broker, &format!("queue `{name}`"), declared)
                .await
                .map(|_| ())
        }
        // A binding cannot be looked for; messages that do not arrive would show it.
        Part::Binding { .. } | Part::Chain { .. } if passive => Ok(()),
        Part::Chain { to, from, key } => {
            let bound = channel.exchange_bind(
                short(broker, to)?,
                short(broker, from)?,
                short(broker, key)?,
                ExchangeBindOptions::default(),
                FieldTable::default(),
            );
            let what = format!("binding of exchange `{to}` to exchange `{from}`");
            limited(broker, &what, bound).await
        }
        Part::Binding {
            queue,
            exchange,
            key,
            arguments,
        } => {
            let bound = channel.queue_bind(
                short(broker, queue)?,
                short(broker, exchange)?,
                short(broker, key)?,
                QueueBindOptions::default(),
                table(broker, arguments)?,
            );
            let what = format!("binding of queue `{queue}` to exchange `{exchange}`");
            limited(broker, &what, bound).await
        }
    }
}

/// Deletes queues with everything in them. One that is not there is no error.
pub(super) async fn delete(
    core: &Core,
    connection: &Connection,
    queues: &[String],
) -> Result<(), BrokerError> {
    let broker = &core.context.name;
    let channel = limited(broker, "a channel", connection.create_channel()).await?;
    for queue in queues {
        let deleted = channel.queue_delete(short(broker, queue)?, QueueDeleteOptions::default());
        limited(broker, &format!("queue `{queue}`"), deleted).await?;
    }
    Ok(())
}

/// How many messages wait in a queue; `None` if it is gone, or does not answer.
pub(super) async fn depth(
    core: &Core,
    connection: &Connection,
    queue: &str,
) -> Result<Option<u64>, BrokerError> {
    let broker = &core.context.name;
    let channel = limited(broker, "a channel", connection.create_channel()).await?;
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let asked = channel.queue_declare(short(broker, queue)?, options, FieldTable::default());
    // What is not there costs the channel.
    let Ok(found) = limited(broker, &format!("queue `{queue}`"), asked).await else {
        return Ok(None);
    };
    let closing = channel.close(REPLY_SUCCESS, "OK".into());
    // It has served; an error of closing it changes nothing.
    let _ = limited(broker, "a channel", closing).await;
    Ok(Some(u64::from(found.message_count())))
}

pub(super) fn short(broker: &Arc<str>, name: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(name).map_err(|_| {
        let start: String = name.chars().take(60).collect();
        let message = format!("the name `{start}..` is longer than AMQP's 255 bytes");
        BrokerError::new(BrokerErrorKind::Configuration, broker, message)
    })
}

fn table(broker: &Arc<str>, arguments: &Arguments) -> Result<FieldTable, BrokerError> {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Value::Bool(value) => AMQPValue::Boolean(*value),
            Value::Int(value) => AMQPValue::LongLongInt(*value),
            Value::Text(text) => AMQPValue::LongString(text.as_bytes().into()),
        };
        table.insert(short(broker, name)?, value);
    }
    Ok(table)
}
