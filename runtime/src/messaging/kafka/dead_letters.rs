//! The dead letters of a subscription: read, sent back, removed.
//!
//! Each letter lies under a key of its own. It is taken out by a record of that key without a value, so
//! that what was taken out stays so whenever the cluster compacts the topic.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::mpsc;

use crate::handling::BoxFuture;
use crate::message::headers::name;
use crate::message::{Headers, Incoming, Origin, Place};
use crate::messaging::{BrokerError, BrokerErrorKind, DeadLetterStore, Subscription};

use super::assigned::key_of;
use super::core::{Core, Link};
use super::errors;
use super::headers;
use super::link::{self, Watch, client_id};
use super::publish::Record;
use super::topology::{self, Names};
use super::way_back::WayBack;

/// How long the cluster may be silent while its dead letters are read.
const SILENCE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);
/// Letters that are on their way back at once, and so many more are read ahead: so many come twice at most
/// when that is cut short.
const LOT: usize = 128;

pub(super) struct DeadLetters(pub(super) Arc<Core>);

/// One letter with the key under which it lies.
struct Letter {
    key: Vec<u8>,
    incoming: Incoming,
}

type Letters = mpsc::Receiver<Result<Letter, BrokerError>>;

/// At most `most` letters that `choose` gives something for.
async fn lot<T>(
    letters: &mut Letters,
    most: usize,
    choose: impl Fn(&Incoming) -> Option<T>,
) -> Result<Vec<(Letter, T)>, BrokerError> {
    let mut lot = Vec::new();
    while lot.len() < most
        && let Some(letter) = letters.recv().await
    {
        let letter = letter?;
        if let Some(chosen) = choose(&letter.incoming) {
            lot.push((letter, chosen));
        }
    }
    Ok(lot)
}

/// How many went well; else the first error.
fn counted(outcomes: Vec<Result<(), BrokerError>>) -> Result<usize, BrokerError> {
    outcomes
        .into_iter()
        .try_fold(0, |count, outcome| outcome.map(|()| count + 1))
}

impl DeadLetters {
    fn names(&self, subscription: &Subscription) -> Names {
        let prefix = self.0.context.prefix.as_deref();
        topology::names(prefix, &self.0.settings, subscription)
    }

    /// The letters in their order, as they lie there now.
    async fn read(
        &self,
        subscription: &Subscription,
        names: &Names,
    ) -> Result<Letters, BrokerError> {
        let core = Arc::clone(&self.0);
        if *core.link.borrow() != Link::Up {
            return Err(core.not_connected());
        }
        let topic = names.dead_letters.clone();
        if core.ask_for_topic(&topic).await?.is_none() {
            let text = format!("dead letters `{topic}`: the topic does not exist");
            return Err(core.error(BrokerErrorKind::NotFound, text));
        }
        let (send, letters) = mpsc::channel(LOT);
        let fallback: Arc<str> = subscription.topic.as_str().into();
        tokio::task::spawn_blocking(move || {
            let told = |(kind, text): (BrokerErrorKind, String)| {
                core.error(kind, format!("dead letters `{topic}`: {text}"))
            };
            if let Err(error) = scan(&core, &topic, &fallback, &send) {
                // Whoever read has what it wanted.
                let _ = send.blocking_send(Err(told(error)));
            }
        });
        Ok(letters)
    }

    async fn remove(&self, names: &Names, letter: &Letter) -> Result<(), BrokerError> {
        let none = Headers::new();
        let record = Record {
            topic: &names.dead_letters,
            partition: None,
            key: Some(&letter.key),
            body: None,
            headers: &none,
            timestamp: None,
        };
        let sent = self.0.send_copy(&record).await;
        sent.map_err(|error| error.into_broker_error(&self.0, &names.dead_letters))
    }

    /// Sends a letter back to its subscription alone, and removes it once that is acknowledged.
    async fn move_back(
        &self,
        names: &Names,
        back: &WayBack,
        (letter, headers): (Letter, Headers),
    ) -> Result<(), BrokerError> {
        self.send_back(back, &letter, headers).await?;
        self.remove(names, &letter).await
    }

    async fn send_back(
        &self,
        back: &WayBack,
        letter: &Letter,
        mut headers: Headers,
    ) -> Result<(), BrokerError> {
        let core = &self.0;
        let incoming = &letter.incoming;
        if !headers.contains(name::TOPIC) {
            headers.set(name::TOPIC, incoming.topic.to_string());
        }
        let key = key_of(incoming);
        headers.remove(name::MESSAGE_KEY);
        // Its time has come already.
        let now = i64::try_from(core.context.clock.unix_millis()).unwrap_or(i64::MAX);
        let rung = i64::try_from(back.rung.as_millis()).unwrap_or_default();
        let topic = back.topic.as_str();
        let record = Record {
            topic,
            partition: None,
            key: key.as_deref(),
            body: Some(&incoming.body),
            headers: &headers,
            timestamp: Some(now.saturating_sub(rung)),
        };
        let sent = core.send_copy(&record).await;
        sent.map_err(|error| error.into_broker_error(core, topic))
    }
}

/// Reads the topic twice: once to know what still lies there, once for the letters themselves.
fn scan(
    core: &Arc<Core>,
    topic: &str,
    fallback: &Arc<str>,
    send: &mpsc::Sender<Result<Letter, BrokerError>>,
) -> Result<(), (BrokerErrorKind, String)> {
    let client = scanner(core)?;
    let partitions = core.partitions_of(topic).unwrap_or(1);
    // Read in order, partition by partition.
    for partition in 0..i32::try_from(partitions).unwrap_or(1) {
        let there = lying(&client, topic, partition)?;
        if there.is_empty() {
            continue;
        }
        let mut left = there.len();
        let mut wanted = true;
        each(&client, topic, partition, |message| {
            let is_letter = message.key().and_then(|key| there.get(key)) == Some(&message.offset());
            if let Some(key) = message.key().filter(|_| is_letter) {
                left -= 1;
                let incoming = letter(core, message, fallback);
                let key = key.to_vec();
                wanted = send.blocking_send(Ok(Letter { key, incoming })).is_ok();
            }
            wanted && left > 0
        })?;
        if !wanted {
            break;
        }
    }
    Ok(())
}

/// How many letters lie in a topic. Blocks.
pub(super) fn count(core: &Arc<Core>, topic: &str) -> Result<u64, (BrokerErrorKind, String)> {
    let client = scanner(core)?;
    let metadata = link::metadata(&client, Some(topic), SILENCE);
    let metadata = metadata.map_err(|error| errors::told(&error))?;
    let found = metadata.topics().iter().find(|one| one.name() == topic);
    let partitions = found.map_or(0, |found| found.partitions().len());
    let mut count = 0;
    for partition in 0..i32::try_from(partitions).unwrap_or(1) {
        let there = lying(&client, topic, partition)?;
        count += u64::try_from(there.len()).unwrap_or_default();
    }
    Ok(count)
}

fn scanner(core: &Arc<Core>) -> Result<BaseConsumer<Watch>, (BrokerErrorKind, String)> {
    let mut config = core.settings.reader(
        &client_id(core),
        &format!("{}.dead-letters", core.context.service),
    )?;
    config
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "50")
        .set("isolation.level", "read_committed");
    let made = config.create_with_context(Watch::new(core));
    made.map_err(|error| errors::told(&error))
}

/// The keys of the letters that lie in a partition, each with the offset of its letter.
fn lying(
    client: &BaseConsumer<Watch>,
    topic: &str,
    partition: i32,
) -> Result<HashMap<Vec<u8>, i64>, (BrokerErrorKind, String)> {
    let mut there: HashMap<Vec<u8>, i64> = HashMap::new();
    each(client, topic, partition, |message| {
        // A record without a key is nothing that we could take out.
        if let Some(key) = message.key() {
            match message.payload() {
                None => drop(there.remove(key)),
                // A repeat after a crash is the same letter, in its first place.
                Some(_) => {
                    there.entry(key.to_vec()).or_insert(message.offset());
                }
            }
        }
        true
    })?;
    Ok(there)
}

/// Reads a partition from its beginning to its present end, as long as `visit` wants more.
fn each(
    client: &BaseConsumer<Watch>,
    topic: &str,
    partition: i32,
    mut visit: impl FnMut(&BorrowedMessage<'_>) -> bool,
) -> Result<(), (BrokerErrorKind, String)> {
    let told = |error: KafkaError| errors::told(&error);
    let watermarks = client.fetch_watermarks(topic, partition, SILENCE);
    let (low, high) = watermarks.map_err(told)?;
    if low >= high {
        return Ok(());
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(low))
        .map_err(told)?;
    client.assign(&list).map_err(told)?;
    let mut heard = Instant::now();
    let outcome = loop {
        match client.poll(POLL) {
            Some(Ok(message)) => {
                heard = Instant::now();
                if message.offset() >= high || !visit(&message) {
                    break Ok(());
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => break Ok(()),
            Some(Err(error))
                if errors::code(&error) == Some(RDKafkaErrorCode::UnknownTopicOrPartition) =>
            {
                break Err(told(error));
            }
            Some(Err(_)) => {}
            None if heard.elapsed() > SILENCE => {
                let text = format!("nothing came for {SILENCE:?}");
                break Err((BrokerErrorKind::Timeout, text));
            }
            None => {}
        }
    };
    client.unassign().map_err(told)?;
    outcome
}

fn letter(core: &Core, message: &BorrowedMessage<'_>, fallback: &Arc<str>) -> Incoming {
    let headers = headers::read(message.headers());
    let topic = match headers.text(name::TOPIC) {
        Some(topic) => (*topic).into(),
        None => Arc::clone(fallback),
    };
    let place = Place::Kafka {
        topic: message.topic().into(),
        partition: message.partition(),
        offset: message.offset(),
    };
    let origin = Origin::new(Arc::clone(&core.context.name), place);
    let body = Bytes::copy_from_slice(message.payload().unwrap_or_default());
    Incoming::new(topic, body, headers, origin)
}

impl DeadLetterStore for DeadLetters {
    fn list<'a>(
        &'a self,
        subscription: &'a Subscription,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Incoming>, BrokerError>> {
        Box::pin(async move {
            let names = self.names(subscription);
            let mut letters = self.read(subscription, &names).await?;
            let mut found = Vec::new();
            while found.len() < limit
                && let Some(letter) = letters.recv().await
            {
                found.push(letter?.incoming);
            }
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
            let names = self.names(subscription);
            let mut letters = self.read(subscription, &names).await?;
            let mut moved = 0;
            let mut now = lot(&mut letters, limit.min(LOT), choose).await?;
            if now.is_empty() {
                return Ok(0);
            }
            let back = WayBack::of(&self.0, subscription, &names).await?;
            while !now.is_empty() {
                let left = limit - moved - now.len();
                let moving = now.drain(..).map(|one| self.move_back(&names, &back, one));
                let (outcomes, next) = future::join(
                    future::join_all(moving),
                    lot(&mut letters, left.min(LOT), choose),
                )
                .await;
                moved += counted(outcomes)?;
                now = next?;
            }
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
            let names = self.names(subscription);
            let mut letters = self.read(subscription, &names).await?;
            let choose = |letter: &Incoming| choose(letter).then_some(());
            let mut removed = 0;
            loop {
                let left = limit - removed;
                let now = lot(&mut letters, left.min(LOT), choose).await?;
                if now.is_empty() {
                    break;
                }
                let removing = now.iter().map(|(letter, ())| self.remove(&names, letter));
                removed += counted(future::join_all(removing).await)?;
            }
            Ok(removed)
        })
    }
}
