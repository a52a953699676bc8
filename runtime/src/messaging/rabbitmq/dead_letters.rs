//! The dead letters of a subscription: read, moved back, removed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future;
use lapin::message::BasicGetMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};
use tokio::task::unconstrained;
use tokio::time::sleep;

use crate::handling::BoxFuture;
use crate::message::headers::name;
use crate::message::{HeaderValue, Headers, Incoming, Origin, Place};
use crate::messaging::{BrokerError, BrokerErrorKind, DeadLetterStore, Subscription};

use super::connection::{Live, limited};
use super::consumer::topic;
use super::core::{Core, Link};
use super::declare::short;
use super::headers;
use super::topology::{self, Names};

const REPLY_SUCCESS: u16 = 200;
/// Dead letters that are on their way back at once: so many come twice at most when that is cut short.
const LOT: usize = 128;
/// How many dead letters beyond those that were asked for are moved to keep their order.
const ORDER_KEPT_MAX: u32 = 1_000;
/// How often, and how far apart, the server is asked whether it has taken back what was looked at.
const BACK_LOOKS: u32 = 50;
const BACK_PAUSE: Duration = Duration::from_millis(10);

pub(super) struct DeadLetters(pub(super) Arc<Core>);

/// A look at the dead letters: what is taken out stays out until the look ends, and goes back then.
struct Look<'a> {
    core: &'a Core,
    live: Arc<Live>,
    channel: Channel,
    subscription: &'a Subscription,
    names: Names,
    /// How many there were when it began; what is given back meanwhile is not looked at again.
    left: u32,
    /// How many there should be when it has ended.
    remaining: u32,
    out: BTreeSet<u64>,
}

impl<'a> Look<'a> {
    async fn begin(core: &'a Core, subscription: &'a Subscription) -> Result<Self, BrokerError> {
        let broker = &core.context.name;
        let Some(live) = core.live() else {
            let (kind, text) = match &*core.link.borrow() {
                Link::Failed(why) => (
                    BrokerErrorKind::Unreachable,
                    format!("not connected: {why}"),
                ),
                _ => (BrokerErrorKind::Unreachable, "not connected".to_owned()),
            };
            return Err(BrokerError::new(kind, broker, text));
        };
        let names = topology::names(core.context.prefix.as_deref(), subscription);
        let channel = limited(broker, "a channel", live.consume.create_channel()).await?;
        let left = count(core, &channel, &names.dead_letters).await?;
        Ok(Self {
            core,
            live,
            channel,
            subscription,
            names,
            left,
            remaining: left,
            out: BTreeSet::new(),
        })
    }

    async fn next(&mut self) -> Result<Option<(u64, Incoming, BasicProperties)>, BrokerError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let broker = &self.core.context.name;
        let what = format!("dead letters `{}`", self.names.dead_letters);
        let queue = short(broker, &self.names.dead_letters)?;
        let got = self.channel.basic_get(queue, BasicGetOptions::default());
        let Some(BasicGetMessage { delivery, .. }) = limited(broker, &what, got).await? else {
            return Ok(None);
        };
        let tag = delivery.delivery_tag;
        self.out.insert(tag);
        let mut headers = headers::read(&delivery.properties);
        let died = explain(&mut headers);
        let (exchange, routing_key) = match &died {
            Some(died) => (died.exchange.as_str(), died.routing_key.as_str()),
            None => (delivery.exchange.as_str(), delivery.routing_key.as_str()),
        };
        let topic = match headers.text(name::TOPIC) {
            Some(topic) => (*topic).into(),
            None => topic(
                self.subscription,
                exchange,
                routing_key,
                &headers,
                &"".into(),
            ),
        };
        let place = Place::RabbitMq {
            exchange: delivery.exchange.as_str().into(),
            routing_key: delivery.routing_key.as_str().into(),
            queue: self.names.dead_letters.as_str().into(),
        };
        let origin = Origin::new(Arc::clone(broker), place);
        let properties = delivery.properties.clone();
        let body = Bytes::from(delivery.data);
        let mut incoming = Incoming::new(topic, body, headers, origin);
        incoming.redelivered = delivery.redelivered;
        Ok(Some((tag, incoming, properties)))
    }

    /// Takes out at most `most` letters for which `choose` gives new headers, as copies to be.
    async fn lot(
        &mut self,
        most: usize,
        choose: &(dyn Fn(&Incoming) -> Option<Headers> + Send + Sync),
    ) -> Result<Vec<Copy>, BrokerError> {
        let mut lot = Vec::new();
        while lot.len() < most
            && let Some((tag, letter, original)) = self.next().await?
        {
            let Some(mut headers) = choose(&letter) else {
                continue;
            };
            if !headers.contains(name::TOPIC) {
                headers.set(name::TOPIC, letter.topic.to_string());
            }
            lot.push(Copy {
                tag,
                body: letter.body,
                properties: headers::copy(&original, &headers, false),
            });
        }
        Ok(lot)
    }

    /// Sends letters back, a lot at a time: while the server confirms one lot, the next is read. A letter
    /// is removed when its own copy is confirmed.
    async fn send_back(
        &mut self,
        limit: usize,
        choose: &(dyn Fn(&Incoming) -> Option<Headers> + Send + Sync),
    ) -> Result<usize, BrokerError> {
        let (core, live) = (self.core, Arc::clone(&self.live));
        let queue = self.names.queue.clone();
        // One turn for all, so that they go back in their order.
        let turn = core.next_turn();
        let mut moved = 0;
        let mut lot = self.lot(limit.min(LOT), choose).await?;
        while !lot.is_empty() {
            let tags: Vec<u64> = lot.iter().map(|copy| copy.tag).collect();
            let sending = lot.drain(..).map(|copy| {
                let content = (copy.body, copy.properties);
                core.publish_copy_in_turn(&live, turn, &queue, content)
            });
            let left = limit - moved - tags.len();
            // Held up by nothing but the server, or they would go out in any order.
            let sending = unconstrained(future::join_all(sending));
            let (sent, next) = future::join(sending, self.lot(left.min(LOT), choose)).await;
            let mut failed = None;
            for (tag, sent) in tags.into_iter().zip(sent) {
                match sent {
                    Ok(()) => {
                        self.remove(tag).await?;
                        moved += 1;
                    }
                    Err(error) => drop(failed.get_or_insert(error)),
                }
            }
            if let Some(error) = failed {
                return Err(error.into_broker_error(&core.context.name, &queue));
            }
            lot = next?;
        }
        Ok(moved)
    }

    async fn remove(&mut self, tag: u64) -> Result<(), BrokerError> {
        self.out.remove(&tag);
        self.remaining = self.remaining.saturating_sub(1);
        let acknowledged = self
            .channel
            .basic_ack(tag, BasicAckOptions { multiple: false });
        limited(&self.core.context.name, "a dead letter", acknowledged).await
    }

    /// Gives back what was only looked at, in its order.
    async fn end(mut self) -> Result<(), BrokerError> {
        // A quorum queue puts what is given back behind the rest; so the rest goes through our hands
        // too, unless it is a great many.
        if !self.out.is_empty() && self.left <= ORDER_KEPT_MAX {
            while self.next().await?.is_some() {}
        }
        let broker = &self.core.context.name;
        let out = std::mem::take(&mut self.out);
        for tag in out {
            let options = BasicNackOptions {
                multiple: false,
                requeue: true,
            };
            limited(
                broker,
                "a dead letter",
                self.channel.basic_nack(tag, options),
            )
            .await?;
        }
        // A quorum queue takes them back after a moment; the next look should find them.
        for _ in 0..BACK_LOOKS {
            let there = count(self.core, &self.channel, &self.names.dead_letters).await?;
            if there >= self.remaining {
                break;
            }
            sleep(BACK_PAUSE).await;
        }
        let close = self.channel.close(REPLY_SUCCESS, "OK".into());
        limited(broker, "a channel", close).await
    }
}

/// How many there are, in a queue that has to be there.
async fn count(core: &Core, channel: &Channel, queue: &str) -> Result<u32, BrokerError> {
    let broker = &core.context.name;
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let asked = channel.queue_declare(short(broker, queue)?, options, FieldTable::default());
    let queue = limited(broker, &format!("dead letters `{queue}`"), asked).await?;
    Ok(queue.message_count())
}

impl DeadLetterStore for DeadLetters {
    fn list<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Incoming>, BrokerError>> {
        Box::pin(async move {
            let mut look = Look::begin(&self.0, subscription).await?;
            let mut found = Vec::new();
            while found.len() < limit {
                match look.next().await? {
                    Some((_, letter, _)) => found.push(letter),
                    None => break,
                }
            }
            look.end().await?;
            Ok(found)
        })
    }

    fn redrive<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
        choose: &'a (dyn Fn(&Incoming) -> Option<Headers> + Send + Sync),
    ) -> BoxFuture<'a, Result<usize, BrokerError>> {
        Box::pin(async move {
            let mut look = Look::begin(&self.0, subscription).await?;
            let moved = look.send_back(limit, choose).await?;
            look.end().await?;
            Ok(moved)
        })
    }

    fn purge<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
        choose: &'a (dyn Fn(&Incoming) -> bool + Send + Sync),
    ) -> BoxFuture<'a, Result<usize, BrokerError>> {
        Box::pin(async move {
            let mut look = Look::begin(&self.0, subscription).await?;
            let mut removed = 0;
            while removed < limit {
                match look.next().await? {
                    Some((tag, letter, _)) if choose(&letter) => {
                        look.remove(tag).await?;
                        removed += 1;
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            look.end().await?;
            Ok(removed)
        })
    }
}

/// A letter on its way back.
struct Copy {
    tag: u64,
    body: Bytes,
    properties: BasicProperties,
}

/// Where the broker says that a message died.
struct Died {
    exchange: String,
    routing_key: String,
}

/// A message that the server itself moved here says why in the server's words; they become ours.
fn explain(headers: &mut Headers) -> Option<Died> {
    if headers.contains(name::DLQ_REASON) {
        return None;
    }
    let HeaderValue::List(deaths) = headers.get("x-death")? else {
        return None;
    };
    // The latest death comes first.
    let HeaderValue::Table(death) = deaths.first()? else {
        return None;
    };
    let field = |name: &str| {
        death
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    };
    let text = |name: &str| Some(field(name)?.to_text()?.into_owned());
    let reason = text("reason")?;
    let reason = match reason.as_str() {
        "delivery_limit" | "expired" | "rejected" | "maxlen" => reason,
        other => format!("broker_{other}"),
    };
    let routing_key = match field("routing-keys") {
        Some(HeaderValue::List(keys)) => keys.first()?.to_text()?.into_owned(),
        _ => String::new(),
    };
    let died = Died {
        exchange: text("exchange").unwrap_or_default(),
        routing_key,
    };
    let queue = text("queue");
    let time = field("time").and_then(HeaderValue::to_u64);
    headers.set(name::DLQ_REASON, reason);
    if let Some(queue) = queue {
        headers.set(name::DLQ_ORIGIN, queue);
    }
    if let Some(seconds) = time.filter(|seconds| *seconds < 253_402_300_800) {
        let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
        headers.set(name::DLQ_FAILED_AT, crate::message::format_time(time));
    }
    Some(died)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_by_the_server_is_told_in_our_words() {
        let death = vec![
            ("count".to_owned(), HeaderValue::Int(1)),
            ("reason".to_owned(), HeaderValue::from("delivery_limit")),
            ("queue".to_owned(), HeaderValue::from("billing.orders")),
            ("exchange".to_owned(), HeaderValue::from("interline")),
            ("time".to_owned(), HeaderValue::Timestamp(1_700_000_000)),
            (
                "routing-keys".to_owned(),
                HeaderValue::List(vec![HeaderValue::from("orders.placed")]),
            ),
        ];
        let mut headers = Headers::new();
        headers.set(
            "x-death",
            HeaderValue::List(vec![HeaderValue::Table(death)]),
        );
        let died = explain(&mut headers).unwrap();
        assert_eq!(
            (died.exchange.as_str(), died.routing_key.as_str()),
            ("interline", "orders.placed")
        );
        assert_eq!(
            headers.text(name::DLQ_REASON).as_deref(),
            Some("delivery_limit")
        );
        assert_eq!(
            headers.text(name::DLQ_ORIGIN).as_deref(),
            Some("billing.orders")
        );
        assert_eq!(
            headers.text(name::DLQ_FAILED_AT).as_deref(),
            Some("2023-11-14T22:13:20.000Z")
        );
        // Ours stays ours.
        headers.set(name::DLQ_REASON, "decode");
        assert!(explain(&mut headers).is_none());
        assert_eq!(headers.text(name::DLQ_REASON).as_deref(), Some("decode"));
    }
}
