//! Makes and checks topics, and gives a group its first position.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::Offset;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::time::{Instant, sleep, timeout};

use crate::messaging::{BrokerError, BrokerErrorKind, Start, TopologyMode};

use super::core::{Core, Link};
use super::errors;
use super::later::is_level;
use super::link::{Topic, Watch, client_id};
use super::topology::{self, Part, Source};

/// How long the cluster may take to make topics.
const MAKE_LIMIT: Duration = Duration::from_secs(30);
/// How often all of it is done where the cluster is there and a connection was not.
const APPLIED_MAX: usize = 3;
/// How long it may take until a new topic is known to the server that we ask.
const KNOWN_LIMIT: Duration = Duration::from_secs(10);
const KNOWN_PAUSE: Duration = Duration::from_millis(25);
/// How long the group's coordinator may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How the name of a topic with replies to a service ends.
pub(super) const REPLIES: &str = ".replies";

/// A part with what is done about it, and the subscription that needs it.
pub(super) struct Wanted {
    pub(super) part: Part,
    pub(super) mode: TopologyMode,
    pub(super) subscription: Option<Arc<str>>,
}

/// Positions that could not be set from outside, because the group runs already: by topic and partition.
/// A member sets them when it is given the partition.
pub(super) type First = HashMap<(String, i32), i64>;

/// Makes, or as its mode says checks, everything that is wanted.
pub(super) async fn apply(core: &Arc<Core>, wanted: &[Wanted]) -> Result<First, BrokerError> {
    let mut applied = apply_once(core, wanted).await;
    for _ in 1..APPLIED_MAX {
        match applied {
            // A client that is new gives up its first connection when it knows the servers by their numbers, and
            // what it was asked at that moment is lost. All of this can be done again.
            Err(error)
                if error.kind() == BrokerErrorKind::Unreachable
                    && *core.link.borrow() == Link::Up =>
            {
                applied = apply_once(core, wanted).await;
            }
            _ => break,
        }
    }
    applied
}

async fn apply_once(core: &Arc<Core>, wanted: &[Wanted]) -> Result<First, BrokerError> {
    let there = core.ask_for_topics().await?;
    for topic in &there {
        if wanted.iter().any(|one| is_topic(&one.part, &topic.name)) {
            core.know_topic(&topic.name, topic.partitions);
        }
    }
    let there: HashSet<&str> = there.iter().map(|topic| topic.name.as_str()).collect();
    let missing = |one: &&Wanted| match &one.part {
        Part::Topic { name, .. } => !there.contains(name.as_str()),
        Part::Group { .. } => false,
    };
    check(core, wanted.iter().filter(missing))?;
    let mut makes = Vec::new();
    for one in wanted.iter().filter(missing) {
        if one.mode == TopologyMode::Apply {
            makes.push(&one.part);
        }
    }
    // A topic first, then those that have as many partitions.
    let (own, like): (Vec<&Part>, Vec<&Part>) = makes.into_iter().partition(|part| {
        matches!(
            part,
            Part::Topic {
                partitions_of: None,
                ..
            }
        )
    });
    make_topics(core, &own).await?;
    make_topics(core, &like).await?;
    let groups: Vec<Part> = wanted
        .iter()
        .filter(|one| matches!(one.part, Part::Group { .. }))
        .map(|one| one.part.clone())
        .collect();
    if groups.is_empty() {
        return Ok(First::new());
    }
    let topics = core.ask_for_topics().await?;
    let begun = Arc::clone(core);
    let beginning =
        tokio::task::spawn_blocking(move || begin_groups(&begun, &groups, &topics)).await;
    match beginning {
        Ok(outcome) => outcome,
        Err(error) => Err(core.error(BrokerErrorKind::ConnectionLost, error.to_string())),
    }
}

fn is_topic(part: &Part, wanted: &str) -> bool {
    matches!(part, Part::Topic { name, .. } if name == wanted)
}

/// Tells everything that is missing and is somebody else's to make.
fn check<'a>(core: &Core, missing: impl Iterator<Item = &'a Wanted>) -> Result<(), BrokerError> {
    let mut told = Vec::new();
    for one in missing.filter(|one| one.mode == TopologyMode::Verify) {
        let Part::Topic {
            name,
            partitions,
            config,
            ..
        } = &one.part
        else {
            continue;
        };
        let mut text = format!("topic `{name}`");
        if let Some(label) = &one.subscription {
            text.push_str(&format!(" of subscription `{label}`"));
        }
        text.push_str(&format!(" (partitions {partitions}"));
        for (key, value) in config {
            text.push_str(&format!(", {key}={value}"));
        }
        text.push(')');
        told.push(text);
    }
    if told.is_empty() {
        return Ok(());
    }
    let text = format!(
        "missing: {}; make them, or write `topology = \"apply\"`",
        told.join(", ")
    );
    Err(core.error(BrokerErrorKind::NotFound, text))
}

/// Makes topics, and waits until they are known. One that exists already is fine.
pub(super) async fn make_topics(core: &Core, parts: &[&Part]) -> Result<(), BrokerError> {
    if parts.is_empty() {
        return Ok(());
    }
    let told = |(kind, text): (BrokerErrorKind, String)| core.error(kind, text);
    let mut config = core.settings.client(&client_id(core)).map_err(told)?;
    super::properties::keep_for_producers(&mut config);
    let made: Result<AdminClient<_>, _> = config.create();
    let admin = made.map_err(|error| told(errors::told(&error)))?;
    let mut names = Vec::with_capacity(parts.len());
    let mut topics = Vec::with_capacity(parts.len());
    for part in parts {
        let Part::Topic {
            name,
            partitions,
            partitions_of,
            replication,
            config,
        } = part
        else {
            continue;
        };
        let source = partitions_of
            .as_deref()
            .and_then(|topic| core.partitions_of(topic))
            .and_then(|count| i32::try_from(count).ok());
        // As the source has them, whatever was declared for it.
        let count = topology::partitions_like(*partitions, source);
        let mut topic = NewTopic::new(name, count, TopicReplication::Fixed(*replication));
        for (key, value) in config {
            topic = topic.set(key, value);
        }
        names.push(name.as_str());
        topics.push(topic);
    }
    let options = AdminOptions::new()
        .request_timeout(Some(MAKE_LIMIT))
        .operation_timeout(Some(MAKE_LIMIT));
    let answered = timeout(MAKE_LIMIT * 2, admin.create_topics(&topics, &options)).await;
    // It waits for a thread of its own.
    drop(topics);
    let _ = tokio::task::spawn_blocking(move || drop(admin)).await;
    let results = match answered {
        Ok(Ok(results)) => results,
        Ok(Err(error)) => return Err(told(errors::told(&error))),
        Err(_) => {
            let text = format!("topics were not made within {:?}", MAKE_LIMIT * 2);
            return Err(core.error(BrokerErrorKind::Timeout, text));
        }
    };
    for result in results {
        if let Err((name, code)) = result
            && code != RDKafkaErrorCode::TopicAlreadyExists
        {
            let text = format!("topic `{name}` could not be made: {}", errors::words(code));
            return Err(core.error(errors::kind(code), text));
        }
    }
    known(core, &names).await
}

async fn known(core: &Core, names: &[&str]) -> Result<(), BrokerError> {
    let begun = Instant::now();
    for name in names {
        while core.ask_for_topic(name).await?.is_none() {
            if begun.elapsed() > KNOWN_LIMIT {
                let text = format!("topic `{name}` was made and is not to be seen");
                return Err(core.error(BrokerErrorKind::Timeout, text));
            }
            sleep(KNOWN_PAUSE).await;
        }
    }
    Ok(())
}

/// Whether a topic looks like one of ours for retries, dead letters, replies or messages for later, which no
/// pattern means.
pub(super) fn is_own(topic: &str) -> bool {
    let suffixes = [".dlq", REPLIES];
    suffixes.iter().any(|suffix| topic.ends_with(suffix))
        || topic.contains(".retry.")
        || is_level(topic)
}

/// Gives groups a position wherever they have none. Blocks.
fn begin_groups(core: &Arc<Core>, parts: &[Part], topics: &[Topic]) -> Result<First, BrokerError> {
    let mut first = First::new();
    let mut by_group: BTreeMap<&str, Vec<&Part>> = BTreeMap::new();
    for part in parts {
        if let Part::Group { name, .. } = part {
            by_group.entry(name).or_default().push(part);
        }
    }
    for (group, parts) in by_group {
        let told = |(kind, text): (BrokerErrorKind, String)| {
            core.error(kind, format!("group `{group}`: {text}"))
        };
        let config = core.settings.reader(&client_id(core), group);
        let client: BaseConsumer<Watch> = config
            .map_err(told)?
            .create_with_context(Watch::new(core))
            .map_err(|error| told(errors::told(&error)))?;
        for part in parts {
            first.extend(begin(&client, part, topics).map_err(told)?);
        }
    }
    Ok(first)
}

/// Where the group begins in a source that it never read. From then on it misses nothing: what it has
/// no position in came later and is read from its beginning.
fn begin(
    client: &BaseConsumer<Watch>,
    part: &Part,
    topics: &[Topic],
) -> Result<First, (BrokerErrorKind, String)> {
    let Part::Group {
        source,
        start,
        marker,
        ..
    } = part
    else {
        return Ok(First::new());
    };
    let wanted: Vec<&Topic> = match source {
        Source::Topic(topic) => topics.iter().filter(|one| one.name == *topic).collect(),
        Source::Pattern(pattern) => {
            let pattern = regex_lite::Regex::new(pattern).map_err(|error| {
                let text = format!("`{pattern}` is not a regular expression: {error}");
                (BrokerErrorKind::Configuration, text)
            })?;
            topics
                .iter()
                .filter(|one| pattern.is_match(&one.name) && !is_own(&one.name))
                .collect()
        }
    };
    let marked = marker
        .as_deref()
        .filter(|marker| topics.iter().any(|one| one.name == *marker));
    let mut asked = TopicPartitionList::new();
    for topic in &wanted {
        for partition in 0..i32::try_from(topic.partitions).unwrap_or(i32::MAX) {
            asked.add_partition(&topic.name, partition);
        }
    }
    if let Some(marker) = marked {
        asked.add_partition(marker, 0);
    }
    if asked.count() == 0 {
        return Ok(First::new());
    }
    let committed = patient(|| client.committed_offsets(asked.clone(), ANSWER));
    let committed = committed.map_err(|error| errors::told(&error))?;
    let existed = committed
        .elements()
        .iter()
        .any(|element| matches!(element.offset(), Offset::Offset(_)));
    if existed {
        return Ok(First::new());
    }
    let mut first = TopicPartitionList::new();
    let mut set = |topic: &str, partition: i32, offset: i64| {
        first
            .add_partition_offset(topic, partition, Offset::Offset(offset))
            .map_err(|error| errors::told(&error))
    };
    for topic in &wanted {
        for partition in 0..i32::try_from(topic.partitions).unwrap_or(i32::MAX) {
            let watermarks = patient(|| client.fetch_watermarks(&topic.name, partition, ANSWER));
            let (low, high) = watermarks.map_err(|error| errors::told(&error))?;
            let offset = match start {
                Start::Earliest => low,
                Start::New => high,
            };
            set(&topic.name, partition, offset)?;
        }
    }
    if let Some(marker) = marked {
        set(marker, 0, 0)?;
    }
    match patient(|| client.commit(&first, CommitMode::Sync)) {
        Ok(()) => Ok(First::new()),
        Err(error) => match errors::code(&error) {
            // The group runs already, without this subscription: its members set the position when
            // they are given the partitions.
            Some(
                RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::RebalanceInProgress
                | RDKafkaErrorCode::StaleMemberEpoch,
            ) => Ok(first
                .elements()
                .iter()
                .filter_map(|element| {
                    let offset = element.offset().to_raw()?;
                    Some(((element.topic().to_owned(), element.partition()), offset))
                })
                .collect()),
            _ => Err(errors::told(&error)),
        },
    }
}

/// Asks again for as long as a coordinator or leader is only just being found.
pub(super) fn patient<T>(mut ask: impl FnMut() -> KafkaResult<T>) -> KafkaResult<T> {
    let begun = std::time::Instant::now();
    loop {
        let outcome = ask();
        let transient = match &outcome {
            Ok(_) => false,
            Err(error) => errors::code(error).is_some_and(errors::is_being_found),
        };
        if !transient || begun.elapsed() > ANSWER {
            return outcome;
        }
        std::thread::sleep(KNOWN_PAUSE);
    }
}

/// Deletes groups that nobody reads in.
pub(super) async fn delete_groups(core: &Core, groups: &[String]) -> Result<(), BrokerError> {
    let told = |(kind, text): (BrokerErrorKind, String)| core.error(kind, text);
    let mut config = core.settings.client(&client_id(core)).map_err(told)?;
    super::properties::keep_for_producers(&mut config);
    let made: Result<AdminClient<_>, _> = config.create();
    let admin = made.map_err(|error| told(errors::told(&error)))?;
    let names: Vec<&str> = groups.iter().map(String::as_str).collect();
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let outcome = admin.delete_groups(&names, &options).await;
    // It waits for a thread of its own.
    let _ = tokio::task::spawn_blocking(move || drop(admin)).await;
    outcome.map_err(|error| told(errors::told(&error)))?;
    Ok(())
}

/// Removes the records below an offset, by topic and partition.
pub(super) async fn delete_records(
    core: &Core,
    places: &[(String, i32, i64)],
) -> Result<(), BrokerError> {
    if places.is_empty() {
        return Ok(());
    }
    let told = |(kind, text): (BrokerErrorKind, String)| core.error(kind, text);
    let wrong = |error: KafkaError| told(errors::told(&error));
    let mut config = core.settings.client(&client_id(core)).map_err(told)?;
    super::properties::keep_for_producers(&mut config);
    let mut list = TopicPartitionList::new();
    for (topic, partition, below) in places {
        let below = Offset::Offset(*below);
        list.add_partition_offset(topic, *partition, below)
            .map_err(wrong)?;
    }
    let admin: AdminClient<_> = config.create().map_err(wrong)?;
    let options = AdminOptions::new()
        .request_timeout(Some(ANSWER))
        .operation_timeout(Some(ANSWER));
    let outcome = admin.delete_records(&list, &options).await;
    // It waits for a thread of its own.
    let _ = tokio::task::spawn_blocking(move || drop(admin)).await;
    for element in outcome.map_err(wrong)?.elements() {
        if let Err(error) = element.error() {
            let (kind, text) = errors::told(&error);
            return Err(core.error(kind, format!("topic `{}`: {text}", element.topic())));
        }
    }
    Ok(())
}

/// The settings of topics, as far as they may be seen.
pub(super) async fn describe_topics(
    core: &Core,
    topics: &[&str],
) -> Result<HashMap<String, ConfigResource>, BrokerError> {
    if topics.is_empty() {
        return Ok(HashMap::new());
    }
    let told = |(kind, text): (BrokerErrorKind, String)| core.error(kind, text);
    let mut config = core.settings.client(&client_id(core)).map_err(told)?;
    super::properties::keep_for_producers(&mut config);
    let made: Result<AdminClient<_>, _> = config.create();
    let admin = made.map_err(|error| told(errors::told(&error)))?;
    // The library refuses one that is named twice.
    let names: BTreeSet<&str> = topics.iter().copied().collect();
    let topics: Vec<_> = names.into_iter().map(ResourceSpecifier::Topic).collect();
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let described = admin.describe_configs(&topics, &options).await;
    // It waits for a thread of its own.
    let _ = tokio::task::spawn_blocking(move || drop(admin)).await;
    let described = described.map_err(|error| told(errors::told(&error)))?;
    let named = described.into_iter().flatten().filter_map(|one| {
        let OwnedResourceSpecifier::Topic(name) = &one.specifier else {
            return None;
        };
        Some((name.clone(), one))
    });
    Ok(named.collect())
}
