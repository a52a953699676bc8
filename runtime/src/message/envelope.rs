//! A message under way: [`Incoming`] on its way to a handler, [`Outgoing`] on its way to a broker.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::contract::Contract;
use super::headers::{Headers, name};
use super::id::MessageId;

/// A message as a handler sees it: data, cheap to share. How it is settled is not part of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Incoming {
    /// The topic it was published to.
    pub topic: Arc<str>,
    /// The body, exactly as it was published.
    pub body: Bytes,
    /// The headers, ours and foreign ones.
    pub headers: Headers,
    /// The key, if it has one.
    pub key: Option<Arc<str>>,
    /// Its identity: the header `message-id`, else derived from its origin.
    pub id: MessageId,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Whether the broker has handed it out before.
    pub redelivered: bool,
    /// Where it was read.
    pub origin: Origin,
}

impl Incoming {
    /// A message read at `origin`. The attempt is that of the header `x-attempt`; the id falls back
    /// to one derived from the origin.
    #[must_use]
    pub fn new(topic: Arc<str>, body: Bytes, headers: Headers, origin: Origin) -> Self {
        let id = headers
            .text(name::MESSAGE_ID)
            .and_then(|id| MessageId::parse(&id))
            .unwrap_or_else(|| origin.message_id(&body));
        let attempt = headers
            .get(name::ATTEMPT)
            .and_then(|value| u32::try_from(value.to_u64()?).ok())
            .unwrap_or(1)
            .max(1);
        let key = headers.text(name::MESSAGE_KEY).map(|key| Arc::from(&*key));
        Self {
            topic,
            body,
            headers,
            key,
            id,
            attempt,
            redelivered: false,
            origin,
        }
    }

    /// The name of its contract, if the sender wrote one.
    #[must_use]
    pub fn message_type(&self) -> Option<Cow<'_, str>> {
        self.headers.text(name::MESSAGE_TYPE)
    }

    /// When its first attempt failed, if one did.
    #[must_use]
    pub fn first_failure(&self) -> Option<SystemTime> {
        parse_time(&self.headers.text(name::FIRST_FAILURE)?)
    }
}

/// Where a message was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// The broker, by its name in the configuration.
    pub broker: Arc<str>,
    /// The place on that broker.
    pub place: Place,
}

impl Origin {
    /// A place on a broker.
    #[must_use]
    pub fn new(broker: Arc<str>, place: Place) -> Self {
        Self { broker, place }
    }

    /// An identity for a message that came without one. A place that names the message (a partition
    /// and offset) gives the same one again; a queue does not, so there the body has to help.
    fn message_id(&self, body: &[u8]) -> MessageId {
        let text = match &self.place {
            Place::Kafka {
                topic,
                partition,
                offset,
            } => format!("{}/{topic}/{partition}/{offset}", self.broker),
            Place::Memory { queue, offset } => format!("{}/{queue}/{offset}", self.broker),
            Place::RabbitMq { queue, .. } => {
                let digest = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, body);
                format!("{}/{queue}/{digest}", self.broker)
            }
            Place::Redis { stream, id, .. } => format!("{}/{stream}/{id}", self.broker),
            Place::RedisChannel { channel } => {
                let digest = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, body);
                format!("{}/{channel}/{digest}", self.broker)
            }
        };
        let uuid = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, text.as_bytes());
        MessageId::parse(&uuid.to_string()).expect("a UUID is a valid message id")
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Kafka {
                topic,
                partition,
                offset,
            } => write!(f, "{}:{topic}/{partition}@{offset}", self.broker),
            Place::Memory { queue, offset } => write!(f, "{}:{queue}@{offset}", self.broker),
            Place::RabbitMq { queue, .. } => write!(f, "{}:{queue}", self.broker),
            Place::RedisChannel { channel } => write!(f, "{}:{channel}", self.broker),
            Place::Redis { stream, id, .. } => write!(f, "{}:{stream}@{id}", self.broker),
        }
    }
}

/// A place on a broker, in the broker's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// Kafka.
    Kafka {
        /// The topic it was read from; that of its retries, if it is one.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
    /// The embedded broker.
    Memory {
        /// The queue of the subscription.
        queue: Arc<str>,
        /// The position in the order of publishing.
        offset: u64,
    },
    /// RabbitMQ.
    RabbitMq {
        /// The exchange it was published to.
        exchange: Arc<str>,
        /// The routing key it was published with.
        routing_key: Arc<str>,
        /// The queue it was read from.
        queue: Arc<str>,
    },
    /// A stream of Redis.
    Redis {
        /// The stream it was read from.
        stream: Arc<str>,
        /// The consumer group.
        group: Arc<str>,
        /// The id of its entry.
        id: Arc<str>,
    },
    /// A channel of Redis.
    RedisChannel {
        /// The channel.
        channel: Arc<str>,
    },
}

/// A message ready to be published: encoded, identified, with all its headers.
///
/// Publishing it again, for example after an unknown outcome, sends the same message with the same
/// identity.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outgoing {
    /// The topic.
    pub topic: Cow<'static, str>,
    /// The body.
    pub body: Bytes,
    /// The headers.
    pub headers: Headers,
    /// The key, if it has one.
    pub key: Option<String>,
    /// Its identity.
    pub id: MessageId,
    /// How long it is worth delivering.
    pub ttl: Option<Duration>,
    /// Its priority, on brokers that have one.
    pub priority: Option<u8>,
    /// Whether it is fine that nobody listens.
    pub subscribers_optional: bool,
    /// The broker, by its name in the configuration; `None` leaves it to the routes.
    pub broker: Option<Cow<'static, str>>,
    /// The contract's topic with its placeholders, a bounded label for metrics; `None` for a topic
    /// that is known only at run time.
    pub template: Option<&'static str>,
    /// When it is published; `None` for now.
    pub due: Option<SystemTime>,
    /// For a reply: where it goes, in place of its topic.
    pub address: Option<ReplyAddress>,
    /// What only Kafka understands.
    pub kafka: KafkaPublish,
    /// What only RabbitMQ understands.
    pub rabbitmq: RabbitMqPublish,
    /// What only Redis understands.
    pub redis: RedisPublish,
}

impl Outgoing {
    /// A message with this topic, identity and body; everything else unset.
    #[must_use]
    pub fn new(topic: impl Into<Cow<'static, str>>, id: MessageId, body: Bytes) -> Self {
        Self {
            topic: topic.into(),
            body,
            headers: Headers::new(),
            key: None,
            id,
            ttl: None,
            priority: None,
            subscribers_optional: false,
            broker: None,
            template: None,
            due: None,
            address: None,
            kafka: KafkaPublish::default(),
            rabbitmq: RabbitMqPublish::default(),
            redis: RedisPublish::default(),
        }
    }

    /// Takes over what the contract fixes: time to live, priority, optional subscribers.
    pub(crate) fn follow(&mut self, contract: &Contract) {
        self.template = Some(contract.topic);
        self.ttl = contract.ttl;
        self.priority = contract.priority;
        self.subscribers_optional = contract.subscribers_optional;
    }
}

/// Where a reply to a request goes. Only the broker that made it understands it; it travels in the
/// header `reply-to`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplyAddress(Arc<str>);

/// Longest address that is accepted, in bytes.
const REPLY_ADDRESS_BYTES_MAX: usize = 255;

impl ReplyAddress {
    /// Takes an address. `None` if it is empty, longer than 255 bytes, or not printable ASCII without
    /// spaces.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty()
            && text.len() <= REPLY_ADDRESS_BYTES_MAX
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.into()))
    }

    /// The text as it stands in the header `reply-to`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ReplyAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What only Kafka understands of a publish; elsewhere it has no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaPublish {
    /// Whether the record has no value, so that a compacted topic forgets its key.
    pub tombstone: bool,
}

/// What only RabbitMQ understands of a publish; elsewhere it has no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RabbitMqPublish {
    /// The exchange, in place of the configured one.
    pub exchange: Option<Cow<'static, str>>,
    /// The routing key, in place of the topic.
    pub routing_key: Option<Cow<'static, str>>,
}

/// What only Redis understands of a publish; elsewhere it has no effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisPublish {
    /// The stream, in place of the one called like the topic.
    pub stream: Option<Cow<'static, str>>,
}

const DAYS_1970_TO_2000: u32 = 10_957;
/// The days of each month in a year that is no leap year.
const MONTHS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// A time as it stands in a header: RFC 3339 in UTC with milliseconds.
pub(crate) fn format_time(time: SystemTime) -> String {
    plain_time(time).unwrap_or_else(|| humantime::format_rfc3339_millis(time).to_string())
}

/// The same for the years that services live in, in a tenth of the time: every publish writes one.
fn plain_time(time: SystemTime) -> Option<String> {
    const DAYS_OF_FOUR_YEARS: u32 = 1_461;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let seconds = u32::try_from(seconds).ok()?;
    let days = u32::try_from(days).ok()?.checked_sub(DAYS_1970_TO_2000)?;
    // Every fourth year from 2000 on is a leap year, until 2100.
    let (fours, mut day) = (days / DAYS_OF_FOUR_YEARS, days % DAYS_OF_FOUR_YEARS);
    if fours >= 25 {
        return None;
    }
    let mut year = 2_000 + fours * 4;
    let leap = day < 366;
    if !leap {
        day -= 366;
        year += 1 + day / 365;
        day %= 365;
    }
    let mut month = 0;
    loop {
        let length = MONTHS[month] + u32::from(leap && month == 1);
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let mut text = *b"....-..-..T..:..:...000Z";
    let two = |text: &mut [u8], value: u32| {
        // Two digits each: nothing is cut off.
        text[0] = b'0' + (value / 10 % 10) as u8;
        text[1] = b'0' + (value % 10) as u8;
    };
    let millis = since.subsec_millis();
    two(&mut text[0..2], year / 100);
    two(&mut text[2..4], year % 100);
    two(&mut text[5..7], u32::try_from(month).ok()? + 1);
    two(&mut text[8..10], day + 1);
    two(&mut text[11..13], seconds / 3_600);
    two(&mut text[14..16], seconds / 60 % 60);
    two(&mut text[17..19], seconds % 60);
    two(&mut text[20..22], millis / 10);
    text[22] = b'0' + (millis % 10) as u8;
    String::from_utf8(text.to_vec()).ok()
}

/// Reads a time from a header; `None` for anything else.
pub(crate) fn parse_time(text: &str) -> Option<SystemTime> {
    parse_plain(text.as_bytes()).or_else(|| humantime::parse_rfc3339_weak(text).ok())
}

/// Reads what [`plain_time`] writes, as far as it is a time.
fn parse_plain(text: &[u8]) -> Option<SystemTime> {
    let text: &[u8; 24] = text.try_into().ok()?;
    let marks = [4, 7, 10, 13, 16, 19, 23].map(|at| text[at]);
    if &marks != b"--T::.Z" {
        return None;
    }
    let number = |from: usize, to: usize| {
        text[from..to].iter().try_fold(0_u32, |number, digit| {
            let digit = digit.wrapping_sub(b'0');
            (digit < 10).then(|| number * 10 + u32::from(digit))
        })
    };
    let within =
        |number: u32, first: u32, last: u32| (first..=last).contains(&number).then_some(number);
    let year = within(number(0, 4)?, 2_000, 2_099)? - 2_000;
    let month = within(number(5, 7)?, 1, 12)?;
    let leap = year % 4 == 0;
    let lengths = MONTHS
        .iter()
        .zip(1..)
        .map(|(days, at)| days + u32::from(leap && at == 2));
    let day = within(number(8, 10)?, 1, lengths.clone().nth(month as usize - 1)?)?;
    let (hour, minute) = (
        within(number(11, 13)?, 0, 23)?,
        within(number(14, 16)?, 0, 59)?,
    );
    let (second, millis) = (within(number(17, 19)?, 0, 59)?, number(20, 23)?);
    // Every fourth year from 2000 on is a leap year, until 2100.
    let years = year * 365 + year.div_ceil(4);
    let months: u32 = lengths.take(month as usize - 1).sum();
    let days = DAYS_1970_TO_2000 + years + months + day - 1;
    let seconds = u64::from(days) * 86_400 + u64::from(hour * 3_600 + minute * 60 + second);
    Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, millis * 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin::new(
            "main".into(),
            Place::Memory {
                queue: "q".into(),
                offset: 4,
            },
        )
    }

    #[test]
    fn our_headers_become_fields_and_foreign_nonsense_does_not_fail() {
        let headers: Headers = [
            (name::MESSAGE_ID, "m-1"),
            (name::ATTEMPT, "3"),
            (name::MESSAGE_KEY, "k"),
        ]
        .into_iter()
        .collect();
        let incoming = Incoming::new("t".into(), Bytes::new(), headers, origin());
        assert_eq!((incoming.id.as_str(), incoming.attempt), ("m-1", 3));
        assert_eq!(incoming.key.as_deref(), Some("k"));

        let headers: Headers = [(name::MESSAGE_ID, "has space"), (name::ATTEMPT, "-1")]
            .into_iter()
            .collect();
        let incoming = Incoming::new("t".into(), Bytes::new(), headers, origin());
        assert_eq!(incoming.attempt, 1);
        assert_eq!(incoming.id.as_str().len(), 36);
    }

    #[test]
    fn a_message_without_an_id_gets_the_same_one_again() {
        let read = || Incoming::new("t".into(), Bytes::new(), Headers::new(), origin()).id;
        assert_eq!(read(), read());
    }

    #[test]
    fn times_survive_a_header() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        assert_eq!(format_time(time), "2023-11-14T22:13:20.123Z");
        assert_eq!(parse_time(&format_time(time)), Some(time));
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn times_are_written_as_rfc_3339_writes_them() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        // From 1970 to 2200, and every day around the ends of years and of February.
        let days = (0..84_000).map(|day| day * 86_400_000);
        let some = (0..20_000).map(|_| random.u64(..7_257_600_000_000));
        for millis in days.chain(some) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
            let expected = humantime::format_rfc3339_millis(time).to_string();
            assert_eq!(format_time(time), expected, "{millis} ms, seed {seed}");
            assert_eq!(parse_time(&expected), Some(time), "{expected}, seed {seed}");
        }
    }

    #[test]
    fn what_is_no_time_is_read_as_one_neither_quickly_nor_slowly() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..50_000 {
            let time =
                SystemTime::UNIX_EPOCH + Duration::from_millis(random.u64(..7_257_600_000_000));
            let mut text = format_time(time).into_bytes();
            let at = random.usize(..text.len());
            text[at] = *random.choice(b"0123456789-:TZ. +").expect("some");
            let text = String::from_utf8(text).expect("ASCII");
            let slowly = humantime::parse_rfc3339_weak(&text).ok();
            assert_eq!(parse_time(&text), slowly, "{text}, seed {seed}");
        }
    }
}
