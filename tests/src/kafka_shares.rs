//! What a test asks a Kafka cluster about the groups that read from it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(50);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What a member of a group was given.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Share {
    /// What the member calls itself.
    pub client_id: String,
    /// Topics and partitions.
    pub partitions: Vec<(String, i32)>,
}

/// Waits until `group` has settled on `members`, each with partitions of its own.
///
/// # Errors
///
/// When the cluster does not answer, or it has not come about within `limit`.
pub async fn until_shared(
    url: &str,
    group: &str,
    members: usize,
    limit: Duration,
) -> Result<Vec<Share>, Error> {
    let all_have = |shares: &[Share]| {
        shares.len() == members && shares.iter().all(|share| !share.partitions.is_empty())
    };
    until_shares(url, group, all_have, limit).await
}

/// Waits until `group` has settled on shares that are `wanted`.
///
/// # Errors
///
/// As [`until_shared`].
pub async fn until_shares(
    url: &str,
    group: &str,
    wanted: impl Fn(&[Share]) -> bool,
    limit: Duration,
) -> Result<Vec<Share>, Error> {
    let begun = Instant::now();
    loop {
        let (servers, asked) = (servers(url), group.to_owned());
        let shares = spawn_blocking(move || shares(&servers, &asked)).await??;
        if wanted(&shares) {
            return Ok(shares);
        }
        if begun.elapsed() > limit {
            return Err(format!("group `{group}` is shared as {shares:?}").into());
        }
        sleep(AGAIN).await;
    }
}

/// Waits until everything in the topics of this prefix was read, and every position in them lies at the end:
/// what was settled outlives those who settled it. Dead letters are read in no group.
///
/// # Errors
///
/// When the cluster does not answer, or it has not come about within `limit`.
pub async fn until_committed(url: &str, prefix: &str, limit: Duration) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let (servers, prefix) = (servers(url), prefix.to_owned());
        let behind = spawn_blocking(move || behind(&servers, &prefix)).await??;
        let Some(behind) = behind else {
            return Ok(());
        };
        if begun.elapsed() > limit {
            return Err(behind.into());
        }
        sleep(AGAIN).await;
    }
}

/// What of some topics a group has not finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// What was not handed to a handler yet.
    pub unread: u64,
    /// What some handler has or had, and did not finish.
    pub held: u64,
}

/// What `group` has not finished in the topics for which `is_read` says yes, by the positions and notes that
/// it committed.
///
/// # Errors
///
/// When the cluster does not answer.
pub async fn unfinished(
    url: &str,
    group: &str,
    is_read: impl Fn(&str) -> bool + Send + 'static,
) -> Result<Unfinished, Error> {
    let (servers, group) = (servers(url), group.to_owned());
    Ok(spawn_blocking(move || count(&servers, &group, is_read)).await??)
}

/// How many members a group has.
///
/// # Errors
///
/// When the cluster does not answer.
pub async fn members(url: &str, group: &str) -> Result<usize, Error> {
    let (servers, group) = (servers(url), group.to_owned());
    let asked = spawn_blocking(move || {
        let list = client(&servers, &group)?.fetch_group_list(Some(&group), ANSWER)?;
        let found = list.groups().iter().find(|one| one.name() == group);
        Ok::<_, KafkaError>(found.map_or(0, |found| found.members().len()))
    });
    Ok(asked.await??)
}

fn servers(url: &str) -> String {
    url.trim_start_matches("kafka://").to_owned()
}

fn client(servers: &str, group: &str) -> Result<BaseConsumer, KafkaError> {
    ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", group)
        .create()
}

/// What each member has; nothing while it is being shared out.
fn shares(servers: &str, group: &str) -> Result<Vec<Share>, KafkaError> {
    let list = client(servers, group)?.fetch_group_list(Some(group), ANSWER)?;
    let found = list.groups().iter().find(|one| one.name() == group);
    let Some(found) = found.filter(|found| found.state() == "Stable") else {
        return Ok(Vec::new());
    };
    let shares = found.members().iter().map(|member| Share {
        client_id: member.client_id().to_owned(),
        partitions: member.assignment().and_then(partitions).unwrap_or_default(),
    });
    Ok(shares.collect())
}

/// An assignment, as the protocol of consumers writes it: a version, and topics with their partitions.
fn partitions(mut bytes: &[u8]) -> Option<Vec<(String, i32)>> {
    fn number<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (number, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(*number)
    }
    let bytes = &mut bytes;
    let _version: [u8; 2] = number(bytes)?;
    let mut given = Vec::new();
    for _ in 0..i32::from_be_bytes(number(bytes)?) {
        let length = usize::try_from(i16::from_be_bytes(number(bytes)?)).ok()?;
        let (topic, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        for _ in 0..i32::from_be_bytes(number(bytes)?) {
            let partition = i32::from_be_bytes(number(bytes)?);
            given.push((String::from_utf8_lossy(topic).into_owned(), partition));
        }
    }
    Some(given)
}

fn count(
    servers: &str,
    group: &str,
    is_read: impl Fn(&str) -> bool,
) -> Result<Unfinished, KafkaError> {
    let client = client(servers, group)?;
    let metadata = client.fetch_metadata(None, ANSWER)?;
    let mut all = TopicPartitionList::new();
    for topic in metadata
        .topics()
        .iter()
        .filter(|topic| is_read(topic.name()))
    {
        for partition in topic.partitions() {
            all.add_partition(topic.name(), partition.id());
        }
    }
    let mut unfinished = Unfinished::default();
    if all.count() == 0 {
        return Ok(unfinished);
    }
    let committed = client.committed_offsets(all, ANSWER)?;
    for element in committed.elements() {
        let (topic, partition) = (element.topic(), element.partition());
        let (low, end) = client.fetch_watermarks(topic, partition, ANSWER)?;
        let at = match element.offset() {
            Offset::Offset(at) => at.max(low),
            _ => low,
        };
        let read = handed_out(element.metadata()).clamp(at, end.max(at));
        unfinished.unread += u64::try_from(end - read).unwrap_or(0);
        unfinished.held += u64::try_from(read - at).unwrap_or(0);
    }
    Ok(unfinished)
}

/// One above the highest offset that was handed out, as the note beside a position tells.
fn handed_out(note: &str) -> i64 {
    let first = note.strip_prefix("interline1 ");
    let number = first.and_then(|rest| rest.split(' ').next()?.parse().ok());
    number.unwrap_or(0)
}

/// Who is behind in what.
fn behind(servers: &str, prefix: &str) -> Result<Option<String>, KafkaError> {
    let outside = client(servers, "outside")?;
    let metadata = outside.fetch_metadata(None, ANSWER)?;
    let mut all = TopicPartitionList::new();
    let mut ends = BTreeMap::new();
    let topics = metadata.topics().iter();
    for topic in topics.filter(|topic| topic.name().starts_with(prefix)) {
        if topic.name().ends_with(".dlq") {
            continue;
        }
        for partition in topic.partitions() {
            let (name, partition) = (topic.name().to_owned(), partition.id());
            let (_, end) = outside.fetch_watermarks(&name, partition, ANSWER)?;
            if end > 0 {
                all.add_partition(&name, partition);
                ends.insert((name, partition), end);
            }
        }
    }
    let mut unread: BTreeSet<_> = ends.keys().cloned().collect();
    let groups = outside.fetch_group_list(None, ANSWER)?;
    let own = groups.groups().iter();
    for group in own.filter(|group| group.name().starts_with(prefix)) {
        let committed = client(servers, group.name())?.committed_offsets(all.clone(), ANSWER)?;
        for element in committed.elements() {
            let Offset::Offset(at) = element.offset() else {
                continue;
            };
            let place = (element.topic().to_owned(), element.partition());
            if at < ends[&place] {
                let (group, end) = (group.name(), ends[&place]);
                return Ok(Some(format!("`{group}` is at {at} of {end} in {place:?}")));
            }
            unread.remove(&place);
        }
    }
    let nobody = unread.first();
    Ok(nobody.map(|place| format!("nobody has read {place:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read() {
        assert_eq!(partitions(&[]), None);
        assert_eq!(partitions(&[0, 3, 0, 0, 0, 0]), Some(Vec::new()));
        let mut two = vec![0, 3, 0, 0, 0, 2];
        two.extend([0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1]);
        two.extend([0, 2, b'u', b'v', 0, 0, 0, 1, 0, 0, 0, 7]);
        let given = [("t", 0), ("t", 1), ("uv", 7)];
        let given = given.map(|(topic, partition)| (topic.to_owned(), partition));
        assert_eq!(partitions(&two), Some(given.into()));
        assert_eq!(partitions(&two[..two.len() - 1]), None);
    }
}
