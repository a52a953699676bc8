//! What happens when partitions are given and taken. Runs on the consumer's own thread, inside a poll.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use tracing::{debug, info, warn};

use super::admin;
use super::assigned::{Assigned, Kind};
use super::core::lock;
use super::group::{Group, Stall};
use super::ledger::Note;
use super::link::Watch;
use super::member::Member;
use super::topology::Source;

/// How long the positions of new partitions may be asked for.
const ANSWER: Duration = Duration::from_secs(5);

pub(super) struct Rebalancing {
    watch: Watch,
    group: Weak<Group>,
}

impl Rebalancing {
    pub(super) fn new(group: &Arc<Group>) -> Self {
        Self {
            watch: Watch::new(&group.core),
            group: Arc::downgrade(group),
        }
    }
}

impl ClientContext for Rebalancing {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.watch.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.watch.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        if let Some(group) = self.group.upgrade() {
            group.measure(&statistics);
        }
    }
}

impl ConsumerContext for Rebalancing {
    fn pre_rebalance(&self, client: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Some(group) = self.group.upgrade() else {
            return;
        };
        match rebalance {
            Rebalance::Assign(list) => group.assign(client, list),
            Rebalance::Revoke(list) => group.revoke(client, list),
            Rebalance::Error(error) => warn!(group = &*group.id, "rebalance: {error}"),
        }
    }

    fn post_rebalance(&self, _client: &BaseConsumer<Self>, _rebalance: &Rebalance<'_>) {
        if let Some(group) = self.group.upgrade() {
            group.rebalances.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let Some(group) = self.group.upgrade() else {
            return;
        };
        if let Err(error) = &result {
            debug!(group = &*group.id, "not committed: {error}");
        }
        group.answered(offsets, result.is_ok());
    }
}

impl Group {
    fn assign(self: &Arc<Self>, client: &BaseConsumer<Rebalancing>, list: &TopicPartitionList) {
        if list.count() == 0 {
            return;
        }
        let mut asked = TopicPartitionList::new();
        for element in list.elements() {
            asked.add_partition(element.topic(), element.partition());
        }
        let asking = || client.committed_offsets(asked.clone(), ANSWER);
        let committed = match admin::patient(asking) {
            Ok(committed) => Some(committed),
            Err(error) => {
                // The server still has the positions; only what was finished above them is not known.
                warn!(
                    group = &*self.id,
                    "what was finished out of order in these partitions may be handled again: the cluster did not \
                     say what is noted beside their positions: {error}"
                );
                None
            }
        };
        self.begin(client, committed.as_ref());
        let members = self.members();
        let mut assigned = lock(&self.assigned);
        for element in list.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let Some((member, kind)) = owner(&members, topic) else {
                continue;
            };
            if kind == Kind::Ignored && partition == 0 {
                info!(
                    group = &*self.id,
                    "topic `{topic}` fits a pattern and is not read: its name is one of those for retries, dead \
                     letters and replies; subscribe to it by its name if it is yours"
                );
            }
            let note = committed
                .as_ref()
                .and_then(|committed| committed.find_partition(topic, partition))
                .map(|element| Note::parse(element.metadata()))
                .unwrap_or_default();
            let fresh = Assigned::new(&self.core, &member, topic, partition, kind, note);
            assigned.push(fresh);
        }
    }

    /// Sets the first position where nobody could from outside.
    fn begin(&self, client: &BaseConsumer<Rebalancing>, committed: Option<&TopicPartitionList>) {
        let Some(committed) = committed else {
            return;
        };
        let mut first = lock(&self.first);
        if first.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for element in committed.elements() {
            let place = (element.topic().to_owned(), element.partition());
            let Some(offset) = first.remove(&place) else {
                continue;
            };
            if matches!(element.offset(), Offset::Offset(_)) {
                continue;
            }
            // An offset that the server told us.
            let _ = list.add_partition_offset(&place.0, place.1, Offset::Offset(offset));
        }
        if list.count() == 0 {
            return;
        }
        if let Err(error) = client.commit(&list, CommitMode::Sync) {
            warn!(
                group = &*self.id,
                "the first position is not set, so all there is will be read: {error}"
            );
        }
    }

    fn revoke(&self, client: &BaseConsumer<Rebalancing>, list: &TopicPartitionList) {
        let lost = client.assignment_lost();
        // The library remembers that a partition is paused, also when it comes back to us much later.
        if let Err(error) = client.resume(list) {
            debug!(group = &*self.id, "not resumed: {error}");
        }
        let mut gone = Vec::new();
        lock(&self.assigned).retain(|assigned| {
            let stays = list
                .find_partition(&assigned.topic, assigned.partition)
                .is_none();
            if !stays {
                gone.push(Arc::clone(assigned));
            }
            stays
        });
        if gone.is_empty() {
            return;
        }
        if lost {
            // They are somebody else's already: nothing can be committed, nothing is waited for.
            self.lost(&gone, "the group went on without this member");
        } else {
            for assigned in &gone {
                assigned.leave();
            }
            if !self.closing.load(Ordering::Acquire) {
                let deadline = Instant::now() + self.core.settings.revoke_bound();
                for assigned in &gone {
                    assigned.wait_until_idle(deadline);
                }
            }
            self.commit_at_last(client, &gone);
        }
        for assigned in &gone {
            assigned.end();
        }
    }

    /// Begins a partition anew where its offsets go back.
    pub(super) fn replace(&self, old: &Arc<Assigned>) -> Arc<Assigned> {
        let fresh = Assigned::new(
            &self.core,
            &old.member,
            &old.topic,
            old.partition,
            old.kind,
            Note::default(),
        );
        let mut all = lock(&self.assigned);
        if let Some(slot) = all.iter_mut().find(|one| Arc::ptr_eq(one, old)) {
            *slot = Arc::clone(&fresh);
        }
        drop(all);
        old.end();
        fresh
    }

    /// Lag, and partitions that stand still.
    fn measure(&self, statistics: &Statistics) {
        let all = lock(&self.assigned).clone();
        let ends = lock(&self.ends).clone();
        let mut stalled = lock(&self.stalled);
        let before = std::mem::take(&mut *stalled);
        for member in self.members() {
            if !member.lag.is_enabled() {
                continue;
            }
            let mut lag = 0;
            for assigned in all.iter().filter(|one| Arc::ptr_eq(&one.member, &member)) {
                let partition = statistics
                    .topics
                    .get(&*assigned.topic)
                    .and_then(|topic| topic.partitions.get(&assigned.partition));
                lag += partition.map_or(0, |partition| partition.consumer_lag.max(0));
            }
            // Exact up to 2^53, which no lag reaches.
            #[allow(clippy::cast_precision_loss)]
            member.lag.record(lag as f64);
        }
        for assigned in all.iter().filter(|one| one.kind != Kind::Ignored) {
            let partition = statistics
                .topics
                .get(&*assigned.topic)
                .and_then(|topic| topic.partitions.get(&assigned.partition));
            let Some(partition) = partition else {
                continue;
            };
            let place = (assigned.topic.to_string(), assigned.partition);
            let told = ends.get(&place).copied().unwrap_or_default();
            let end = partition.ls_offset.max(told);
            if partition.next_offset < 0 || partition.next_offset >= end {
                continue;
            }
            let since = before
                .get(&place)
                .filter(|stall| stall.at == partition.next_offset)
                .map_or_else(Instant::now, |stall| stall.since);
            let at = partition.next_offset;
            stalled.insert(place, Stall { at, since });
        }
    }
}

/// Whose a topic is, and what it is to them.
fn owner(members: &[Arc<Member>], topic: &str) -> Option<(Arc<Member>, Kind)> {
    // A subscription that has ended gives way to one that reads the same.
    let living = members.iter().filter(|member| !member.is_stopped());
    let all: Vec<&Arc<Member>> = living
        .chain(members.iter().filter(|member| member.is_stopped()))
        .collect();
    for member in &all {
        if let Some(rung) = member.names.rung_of(topic) {
            return Some((Arc::clone(member), Kind::Retry(rung)));
        }
        if member.names.source == Source::Topic(topic.to_owned()) {
            return Some((Arc::clone(member), Kind::Source));
        }
    }
    for member in &all {
        let Source::Pattern(pattern) = &member.names.source else {
            continue;
        };
        if regex_lite::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(topic)) {
            let kind = if admin::is_own(topic) {
                Kind::Ignored
            } else {
                Kind::Source
            };
            return Some((Arc::clone(member), kind));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics;

    use super::*;
    use crate::messaging::kafka::assigned::tests::partition;
    use crate::messaging::kafka::core::Link;
    use crate::messaging::kafka::group::Role;

    #[tokio::test]
    async fn a_partition_that_is_not_fetched_stands_still_if_the_cluster_has_more_of_it() {
        let (assigned, _deliveries) = partition(Kind::Source);
        let core = &assigned.member.core;
        let group = Group::of(core, "g", Role::Sources);
        lock(&group.assigned).push(Arc::clone(&assigned));
        let place = (assigned.topic.to_string(), assigned.partition);
        // It was fetched to its end as it was then.
        let read_to = |next_offset| {
            let partition = statistics::Partition {
                next_offset,
                ls_offset: 5,
                ..Default::default()
            };
            let topic = statistics::Topic {
                partitions: [(place.1, partition)].into(),
                ..Default::default()
            };
            Statistics {
                topics: [(place.0.clone(), topic)].into(),
                ..Default::default()
            }
        };
        let stall = || {
            let stalled = lock(&group.stalled);
            stalled.get(&place).map(|stall| (stall.at, stall.since))
        };
        group.measure(&read_to(5));
        assert_eq!(stall(), None);
        lock(&group.ends).insert(place.clone(), 9);
        group.measure(&read_to(5));
        let first = stall().expect("there is more of it");
        assert_eq!(first.0, 5);
        group.measure(&read_to(5));
        assert_eq!(stall(), Some(first), "since then");
        group.measure(&read_to(7));
        let later = stall().expect("there still is");
        assert!(later.0 == 7 && later.1 >= first.1);
        group.measure(&read_to(9));
        assert_eq!(stall(), None);
        core.set_link(Link::Closed);
    }
}
