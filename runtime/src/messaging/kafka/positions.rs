//! Reading again: the positions of a subscription moved, a window of a topic replayed without a group.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::handling::BoxFuture;
use crate::message::{Incoming, Origin, Place};
use crate::messaging::{BrokerError, BrokerErrorKind, Position, PositionStore, Subscription};

use super::admin;
use super::assigned::{Assigned, Kind};
use super::core::{Core, lock};
use super::errors;
use super::group::{Client, Group};
use super::headers;
use super::link::{Topic, Watch, client_id};
use super::member::Member;
use super::topology::{self, Source};

/// How long the cluster may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
/// How long a seek may take: the consumer may just be made anew, and each partition has its questions.
const SEEK_MAX: Duration = Duration::from_secs(30);
/// How long the cluster may be silent while a window is read.
const SILENCE: Duration = Duration::from_secs(15);

type Wrong = (BrokerErrorKind, String);

/// A wish to read on elsewhere, for the thread that reads.
pub(super) struct Seek {
    pub(super) member: Arc<Member>,
    to: Position,
    done: oneshot::Sender<Result<usize, Wrong>>,
}

/// Moves the positions of a subscription that nobody reads.
pub(super) async fn reset(
    core: &Arc<Core>,
    subscription: &Subscription,
    to: Position,
) -> Result<(), BrokerError> {
    let names = topology::names(core.context.prefix.as_deref(), &core.settings, subscription);
    let topics = core.ask_for_topics().await?;
    let resetting = Arc::clone(core);
    let outcome = tokio::task::spawn_blocking(move || {
        let core = &resetting;
        let client = reader(core, &names.group)?;
        let mut positions = TopicPartitionList::new();
        for topic in of_source(&names.source, &topics)? {
            for partition in 0..i32::try_from(topic.partitions).unwrap_or(i32::MAX) {
                let offset = resolve(&client, &topic.name, partition, to)?;
                let offset = Offset::Offset(offset);
                positions
                    .add_partition_offset(&topic.name, partition, offset)
                    .map_err(|error| errors::told(&error))?;
            }
        }
        if positions.count() == 0 {
            return Err((BrokerErrorKind::NotFound, none_of(&names.source)));
        }
        client
            .commit(&positions, CommitMode::Sync)
            .map_err(|error| match errors::code(&error) {
                Some(
                    RDKafkaErrorCode::UnknownMemberId
                    | RDKafkaErrorCode::IllegalGeneration
                    | RDKafkaErrorCode::RebalanceInProgress
                    | RDKafkaErrorCode::StaleMemberEpoch,
                ) => {
                    let text = format!(
                        "group `{}` is being read; stop its instances, or seek in each of them",
                        names.group
                    );
                    (BrokerErrorKind::Refused, text)
                }
                _ => errors::told(&error),
            })
    });
    finish(core, outcome.await)
}

/// Moves the positions of what this process reads of a subscription now; in how many partitions.
pub(super) async fn seek(
    core: &Arc<Core>,
    subscription: &Subscription,
    to: Position,
) -> Result<usize, BrokerError> {
    let groups: Vec<Arc<Group>> = lock(&core.groups).values().cloned().collect();
    let found = groups.iter().find_map(|group| {
        let members = group.members();
        let member = members.into_iter().find(|member| {
            group.reads_sources()
                && !member.is_stopped()
                && member.subscription.topic == subscription.topic
                && member.subscription.group == subscription.group
        })?;
        Some((group, member))
    });
    let Some((group, member)) = found else {
        let text = format!(
            "subscription `{}` is not read by this process",
            subscription.label
        );
        return Err(core.error(BrokerErrorKind::NotFound, text));
    };
    let (done, outcome) = oneshot::channel();
    lock(&group.seeks).push(Seek { member, to, done });
    // When this ends without an outcome its receiver is gone, and nobody carries the wish out later on.
    let outcome = tokio::select! {
        biased;
        outcome = outcome => outcome.ok(),
        () = group.closed() => None,
        () = sleep(SEEK_MAX) => {
            let text = format!(
                "whether subscription `{}` was moved is not known: there was no answer within {SEEK_MAX:?}; \
                 asking again does no harm",
                subscription.label
            );
            return Err(core.error(BrokerErrorKind::Timeout, text));
        }
    };
    match outcome {
        Some(Ok(count)) => Ok(count),
        Some(Err((kind, text))) => Err(core.error(kind, text)),
        None => Err(core.not_connected()),
    }
}

impl Seek {
    /// Carries it out on the thread that reads.
    pub(super) fn run(self, group: &Arc<Group>, client: &Client) {
        if self.done.is_closed() {
            // Nobody expects any more that it reads on elsewhere.
            return;
        }
        let outcome = self.move_all(group, client);
        // Whoever asked may have given up waiting.
        let _ = self.done.send(outcome);
    }

    fn move_all(&self, group: &Arc<Group>, client: &Client) -> Result<usize, Wrong> {
        let told = |error: KafkaError| errors::told(&error);
        let of_member: Vec<Arc<Assigned>> = lock(&group.assigned)
            .iter()
            .filter(|one| Arc::ptr_eq(&one.member, &self.member) && one.kind == Kind::Source)
            .cloned()
            .collect();
        let mut positions = TopicPartitionList::new();
        for assigned in &of_member {
            let (topic, partition) = (&assigned.topic, assigned.partition);
            let offset = Offset::Offset(resolve(client, topic, partition, self.to)?);
            positions
                .add_partition_offset(topic, partition, offset)
                .map_err(told)?;
        }
        // The questions take their time, and whoever asked may have given up meanwhile.
        if of_member.is_empty() || self.done.is_closed() {
            return Ok(0);
        }
        client.commit(&positions, CommitMode::Sync).map_err(told)?;
        // What is out now belongs to the old positions; settling it changes nothing any more.
        for assigned in &of_member {
            drop(group.replace(assigned));
        }
        // They are paused where it had read far ahead, and that is gone.
        client.resume(&positions).map_err(told)?;
        let sought = client.seek_partitions(positions, ANSWER).map_err(told)?;
        for element in sought.elements() {
            element.error().map_err(told)?;
        }
        Ok(of_member.len())
    }
}

/// Reads a window of a topic into `messages`; how many there were.
pub(super) async fn replay(
    core: &Arc<Core>,
    topic: &str,
    window: (Position, Position),
    messages: mpsc::Sender<Incoming>,
) -> Result<u64, BrokerError> {
    let name = format!(
        "{}{topic}",
        core.context.prefix.as_deref().unwrap_or_default()
    );
    let Some(partitions) = core.ask_for_topic(&name).await? else {
        let text = format!("topic `{name}` does not exist");
        return Err(core.error(BrokerErrorKind::NotFound, text));
    };
    replay_all(core, vec![(name, partitions)], window, messages).await
}

/// The same for each topic of a subscription.
async fn replay_source(
    core: &Arc<Core>,
    subscription: &Subscription,
    window: (Position, Position),
    messages: mpsc::Sender<Incoming>,
) -> Result<u64, BrokerError> {
    let names = topology::names(core.context.prefix.as_deref(), &core.settings, subscription);
    let topics = core.ask_for_topics().await?;
    let found = of_source(&names.source, &topics);
    let found = found.map_err(|(kind, text)| core.error(kind, text))?;
    if found.is_empty() {
        return Err(core.error(BrokerErrorKind::NotFound, none_of(&names.source)));
    }
    let found = found.iter().map(|one| (one.name.clone(), one.partitions));
    replay_all(core, found.collect(), window, messages).await
}

async fn replay_all(
    core: &Arc<Core>,
    topics: Vec<(String, usize)>,
    (from, until): (Position, Position),
    messages: mpsc::Sender<Incoming>,
) -> Result<u64, BrokerError> {
    let replaying = Arc::clone(core);
    let outcome = tokio::task::spawn_blocking(move || {
        let core = &replaying;
        let prefix = core.context.prefix.as_deref().unwrap_or_default();
        // It has to be named for a group; it never joins one and commits nothing.
        let client = reader(core, &format!("{}.replay", core.context.service))?;
        let mut count = 0;
        for (name, partitions) in &topics {
            let shown = name.strip_prefix(prefix).unwrap_or(name).into();
            for partition in 0..i32::try_from(*partitions).unwrap_or(i32::MAX) {
                let first = resolve(&client, name, partition, from)?;
                let end = resolve(&client, name, partition, until)?;
                let window = Window {
                    core,
                    client: &client,
                    topic: name,
                    shown: &shown,
                    partition,
                    messages: &messages,
                };
                count += window.read(first, end)?;
            }
        }
        Ok(count)
    });
    finish(core, outcome.await)
}

/// The positions of every subscription on a cluster.
pub(super) struct Positions(pub(super) Arc<Core>);

impl PositionStore for Positions {
    fn reset<'a>(
        &'a self,
        subscription: &'a Subscription,
        to: Position,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(reset(&self.0, subscription, to))
    }

    fn seek<'a>(
        &'a self,
        subscription: &'a Subscription,
        to: Position,
    ) -> BoxFuture<'a, Result<usize, BrokerError>> {
        Box::pin(seek(&self.0, subscription, to))
    }

    fn replay<'a>(
        &'a self,
        subscription: &'a Subscription,
        window: (Position, Position),
        messages: mpsc::Sender<Incoming>,
    ) -> BoxFuture<'a, Result<u64, BrokerError>> {
        Box::pin(replay_source(&self.0, subscription, window, messages))
    }
}

struct Window<'a> {
    core: &'a Core,
    client: &'a BaseConsumer<Watch>,
    topic: &'a str,
    shown: &'a Arc<str>,
    partition: i32,
    messages: &'a mpsc::Sender<Incoming>,
}

impl Window<'_> {
    fn read(&self, first: i64, end: i64) -> Result<u64, Wrong> {
        let told = |error: KafkaError| errors::told(&error);
        if first >= end {
            return Ok(0);
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(self.topic, self.partition, Offset::Offset(first))
            .map_err(told)?;
        self.client.assign(&list).map_err(told)?;
        let (mut count, mut heard) = (0, Instant::now());
        let wire: Arc<str> = self.topic.into();
        loop {
            match self.client.poll(POLL) {
                Some(Ok(message)) if message.offset() >= end => break,
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let place = Place::Kafka {
                        topic: Arc::clone(&wire),
                        partition: self.partition,
                        offset: message.offset(),
                    };
                    let origin = Origin::new(Arc::clone(&self.core.context.name), place);
                    let headers = headers::read(message.headers());
                    let body = Bytes::copy_from_slice(message.payload().unwrap_or_default());
                    let topic = Arc::clone(self.shown);
                    let mut incoming = Incoming::new(topic, body, headers, origin);
                    if let Some(key) = message.key() {
                        incoming.key = Some(String::from_utf8_lossy(key).as_ref().into());
                    }
                    if self.messages.blocking_send(incoming).is_err() {
                        break;
                    }
                    count += 1;
                    if message.offset() + 1 >= end {
                        break;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    return Err(told(error));
                }
                // The library goes on by itself.
                Some(Err(_)) | None if heard.elapsed() > SILENCE => {
                    let text = format!("nothing came of `{}` for {SILENCE:?}", self.topic);
                    return Err((BrokerErrorKind::Timeout, text));
                }
                Some(Err(_)) | None => {}
            }
        }
        self.client.unassign().map_err(told)?;
        Ok(count)
    }
}

fn reader(core: &Arc<Core>, group: &str) -> Result<BaseConsumer<Watch>, Wrong> {
    let mut config = core.settings.reader(&client_id(core), group)?;
    config
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed");
    let made = config.create_with_context(Watch::new(core));
    made.map_err(|error| errors::told(&error))
}

pub(super) fn of_source<'a>(source: &Source, topics: &'a [Topic]) -> Result<Vec<&'a Topic>, Wrong> {
    match source {
        Source::Topic(name) => Ok(topics.iter().filter(|one| one.name == *name).collect()),
        Source::Pattern(pattern) => {
            let pattern = regex_lite::Regex::new(pattern).map_err(|error| {
                let text = format!("`{pattern}` is not a regular expression: {error}");
                (BrokerErrorKind::Configuration, text)
            })?;
            let matching = |one: &&Topic| pattern.is_match(&one.name) && !admin::is_own(&one.name);
            Ok(topics.iter().filter(matching).collect())
        }
    }
}

fn none_of(source: &Source) -> String {
    format!("`{}` is no topic that there is", source.text())
}

/// A position as an offset of one partition.
fn resolve<C: rdkafka::consumer::ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    position: Position,
) -> Result<i64, Wrong> {
    let told = |error: KafkaError| errors::told(&error);
    let (low, high) = client
        .fetch_watermarks(topic, partition, ANSWER)
        .map_err(told)?;
    let time = match position {
        Position::Earliest => return Ok(low),
        Position::Latest => return Ok(high),
        Position::Time(time) => time,
    };
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let mut asked = TopicPartitionList::new();
    asked
        .add_partition_offset(topic, partition, Offset::Offset(millis))
        .map_err(told)?;
    let found = client.offsets_for_times(asked, ANSWER).map_err(told)?;
    let found = found.find_partition(topic, partition);
    Ok(match found.map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => offset,
        // Nothing is as new as that.
        _ => high,
    })
}

fn finish<T>(
    core: &Core,
    outcome: Result<Result<T, Wrong>, tokio::task::JoinError>,
) -> Result<T, BrokerError> {
    match outcome {
        Ok(Ok(found)) => Ok(found),
        Ok(Err((kind, text))) => Err(core.error(kind, text)),
        Err(error) => Err(core.error(BrokerErrorKind::ConnectionLost, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::messaging::kafka::assigned::tests::partition;
    use crate::messaging::kafka::group::Role;
    use crate::messaging::kafka::rebalance::Rebalancing;

    const LONG: Duration = Duration::from_secs(20);

    async fn wait_for(condition: impl Fn() -> bool) {
        let waiting = async {
            while !condition() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LONG, waiting).await.expect("it comes to pass");
    }

    /// A seek that waits for a thread which has no cluster.
    async fn waiting() -> (
        Arc<Group>,
        Arc<Assigned>,
        tokio::task::JoinHandle<Result<usize, BrokerError>>,
    ) {
        let (assigned, _deliveries) = partition(Kind::Source);
        let member = Arc::clone(&assigned.member);
        let group = Group::of(&member.core, &member.names.group, Role::Sources);
        group.add(&member);
        let seeking = tokio::spawn(async move {
            seek(&member.core, &member.subscription, Position::Earliest).await
        });
        wait_for(|| !lock(&group.seeks).is_empty()).await;
        (group, assigned, seeking)
    }

    #[tokio::test]
    async fn a_seek_ends_with_its_group() {
        let (group, _assigned, seeking) = waiting().await;
        group.close();
        let outcome = timeout(LONG, seeking).await.expect("it ends");
        let error = outcome.unwrap().unwrap_err();
        assert_eq!(error.kind(), BrokerErrorKind::Unreachable);
    }

    #[tokio::test]
    async fn a_seek_that_was_given_up_is_not_carried_out() {
        let (group, assigned, seeking) = waiting().await;
        lock(&group.assigned).push(assigned);
        seeking.abort();
        let wish = lock(&group.seeks).pop().unwrap();
        wait_for(|| wish.done.is_closed()).await;
        let config = group.core.settings.member("c", "g").unwrap();
        let made = config.create_with_context(Rebalancing::new(&group));
        // It has no cluster to ask, so each question would take its time.
        let client: Client = made.unwrap();
        let begun = Instant::now();
        wish.run(&group, &client);
        assert!(begun.elapsed() < ANSWER);
        group.close();
    }
}
