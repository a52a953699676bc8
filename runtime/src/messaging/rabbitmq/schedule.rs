//! Messages for later, held by the server without a plugin: one queue with a time to live for each
//! power of two of seconds. A message waits in the queues whose bits its wait has, the longest first,
//! and so any wait costs at most one hop per bit.
//!
//! The topic stays the routing key; the bits are a second one (the header `CC`), which the exchanges
//! between the queues route by. The last exchange leads to the configured one. It also leads to a queue
//! that keeps nothing: a message that nobody listens to any more goes there, where it would otherwise
//! stop the ones behind it.

use std::time::{Duration, SystemTime};

use lapin::types::MAX_SHORT_STRING_LENGTH;

use tokio::time::Instant;

use crate::handling::{PublishError, PublishErrorKind};
use crate::message::{HeaderValue, Outgoing};
use crate::messaging::{BrokerError, BrokerErrorKind, ExchangeKind, Scheduling};

use super::core::Core;
use super::declare;
use super::lane::Job;
use super::publish::{judge, properties};
use super::topology::{self, Part, Value};

/// How many powers of two there are. The longest time to live of a queue is 2^32 ms.
const LEVELS: u32 = 23;
/// The first word of the second routing key; no topic has such a character.
const MARK: &str = "~wait";

pub(super) const SCHEDULING: Scheduling = Scheduling::new(
    Duration::from_secs(1),
    Duration::from_secs((1 << LEVELS) - 1),
)
.durable();

/// The exchange in front of the queue of a level.
fn level_name(exchange: &str, level: u32) -> String {
    format!("{exchange}.wait.{}s", 1_u64 << level)
}

fn due_name(exchange: &str) -> String {
    format!("{exchange}.wait.due")
}

/// The second routing key of a wait: its bits, the highest first.
fn bits(seconds: u64) -> String {
    let mut key = MARK.to_owned();
    for level in (0..LEVELS).rev() {
        key.push_str(if seconds >> level & 1 == 1 {
            ".1"
        } else {
            ".0"
        });
    }
    key
}

/// What of these keys has this bit at this level.
fn pattern(level: u32, bit: char) -> String {
    let mut pattern = MARK.to_owned();
    for _ in level + 1..LEVELS {
        pattern.push_str(".*");
    }
    pattern.push('.');
    pattern.push(bit);
    pattern.push_str(".#");
    pattern
}

/// What has to exist for waits whose highest bit is `highest`, in the order in which it is made.
pub(super) fn parts(exchange: &str, highest: u32) -> Vec<Part> {
    let due = due_name(exchange);
    let sink = format!("{due}.nobody");
    let topic = |name: &str| Part::Exchange {
        name: name.to_owned(),
        kind: ExchangeKind::Topic,
    };
    let bound = |queue: &str, exchange: &str, key: String| Part::Binding {
        queue: queue.to_owned(),
        exchange: exchange.to_owned(),
        key,
        arguments: Vec::new(),
    };
    let chained = |to: &str, from: &str, key: String| Part::Chain {
        to: to.to_owned(),
        from: from.to_owned(),
        key,
    };
    let mut parts = vec![
        topic(exchange),
        topic(&due),
        Part::Queue {
            name: sink.clone(),
            of_instance: false,
            arguments: vec![
                ("x-queue-type".to_owned(), Value::Text("classic".to_owned())),
                ("x-max-length".to_owned(), Value::Int(0)),
            ],
        },
        bound(&sink, &due, "#".to_owned()),
        chained(exchange, &due, "#".to_owned()),
    ];
    let mut next = due;
    for level in 0..=highest {
        let name = level_name(exchange, level);
        parts.push(topic(&name));
        parts.push(topology::wait_queue(
            &name,
            Duration::from_secs(1 << level),
            &next,
        ));
        parts.push(bound(&name, &name, pattern(level, '1')));
        parts.push(chained(&next, &name, pattern(level, '0')));
        next = name;
    }
    parts
}

impl Core {
    /// Hands a message to the queues that hold it until it is due.
    pub(super) async fn schedule(
        &self,
        mut outgoing: Outgoing,
        due: SystemTime,
    ) -> Result<(), PublishError> {
        let wait = due.duration_since(self.context.clock.now());
        let wait = wait.unwrap_or(Duration::ZERO);
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        if seconds == 0 {
            return self.publish(outgoing).await;
        }
        self.can_hold(&outgoing, seconds)?;
        let highest = seconds.ilog2();
        let key = HeaderValue::from(bits(seconds));
        outgoing.headers.set("CC", HeaderValue::List(vec![key]));
        let exchange = &self.settings.exchange;
        let first = level_name(exchange, highest);
        let (_, routing_key) = self.address(&outgoing)?;
        if first.len() > MAX_SHORT_STRING_LENGTH {
            let text = "the exchange's name is too long for its waiting queues";
            let kind = PublishErrorKind::Unsupported;
            return Err(PublishError::new(kind, outgoing.topic, text));
        }
        let properties = properties(&outgoing);
        let mut again = true;
        loop {
            let Some(live) = self.wait_until_up().await else {
                return Err(self.closed_to(outgoing));
            };
            if !live.declared.lock().await.contains_key(&first) {
                let parts = parts(exchange, highest);
                let parts: Vec<_> = parts
                    .into_iter()
                    .map(|part| (part, self.settings.topology))
                    .collect();
                let made = declare::all(self, &live.consume, &parts).await;
                if let Err(error) = made {
                    if !live.is_up() {
                        self.wait_for_another(&live).await;
                        continue;
                    }
                    return Err(undeclared(&error, outgoing));
                }
                let mut declared = live.declared.lock().await;
                declared.insert(first.clone(), Instant::now());
            }
            let job = || Job {
                exchange: first.as_str().into(),
                routing_key: routing_key.into(),
                mandatory: true,
                body: outgoing.body.clone(),
                properties: properties.clone(),
            };
            // A missing exchange closes the channel, and with it what is on its way there.
            match live.lane(true, self.next_turn()).publish(job).await {
                Some(verdict) => match judge(verdict, &first, &outgoing) {
                    Err(error) if again && error.kind() == PublishErrorKind::Unroutable => {
                        // Somebody removed it since it was made.
                        live.declared.lock().await.remove(&first);
                        again = false;
                    }
                    judged => return judged,
                },
                None => self.wait_for_another(&live).await,
            }
        }
    }

    fn can_hold(&self, outgoing: &Outgoing, seconds: u64) -> Result<(), PublishError> {
        let exchange = &self.settings.exchange;
        let other = outgoing.rabbitmq.exchange.as_deref();
        let text = if seconds > SCHEDULING.longest.as_secs() {
            format!(
                "it is due in {} days, and RabbitMQ holds messages for at most {}",
                seconds / 86_400,
                SCHEDULING.longest.as_secs() / 86_400
            )
        } else if exchange.is_empty() || exchange.starts_with("amq.") {
            "messages for later need an exchange of one's own: set `exchange` of the broker"
                .to_owned()
        } else if other.is_some_and(|other| other != exchange) {
            format!("messages for later go through the exchange `{exchange}`, and no other")
        } else if outgoing.ttl.is_some() {
            "RabbitMQ would end the wait with the time to live: leave one of the two out".to_owned()
        } else {
            return Ok(());
        };
        let kind = PublishErrorKind::Unsupported;
        Err(PublishError::new(kind, outgoing.topic.clone(), text))
    }
}

fn undeclared(error: &BrokerError, outgoing: Outgoing) -> PublishError {
    let kind = match error.kind() {
        BrokerErrorKind::ConnectionLost | BrokerErrorKind::Timeout => PublishErrorKind::ChannelLost,
        _ => PublishErrorKind::Unroutable,
    };
    let text = format!("the queues that would hold it could not be made: {error}");
    PublishError::new(kind, outgoing.topic.clone(), text).with_outgoing(outgoing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_matched_at_their_level_and_nowhere_else() {
        let key = bits(5);
        assert_eq!(key.split('.').count() as u32, LEVELS + 1);
        assert!(key.ends_with(".1.0.1"));
        let matches = |pattern: &str| {
            let pattern = pattern.strip_suffix(".#").unwrap();
            let mut words = key.split('.');
            pattern
                .split('.')
                .all(|word| words.next().is_some_and(|own| word == "*" || word == own))
        };
        for (level, bit) in [(0, '1'), (1, '0'), (2, '1'), (3, '0'), (22, '0')] {
            assert!(matches(&pattern(level, bit)), "{level}");
            let other = if bit == '1' { '0' } else { '1' };
            assert!(!matches(&pattern(level, other)), "{level}");
        }
    }

    #[test]
    fn every_level_leads_to_the_next_lower_one() {
        let parts = parts("interline", 2);
        let names: Vec<_> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Queue { name, .. } => Some(name.as_str()),
                _ => None,
            })
            .collect();
        let expected = [
            "interline.wait.due.nobody",
            "interline.wait.1s",
            "interline.wait.2s",
            "interline.wait.4s",
        ];
        assert_eq!(names, expected);
        let longest = Duration::from_secs(1 << (LEVELS - 1)).as_millis();
        assert!(longest < 1 << 32);
        const { assert!(SCHEDULING.durable && !SCHEDULING.cancel) };
    }
}
