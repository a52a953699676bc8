//! A group of this process: who reads in it, what is ours of it, and what is committed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{error, warn};

use super::admin::First;
use super::assigned::Assigned;
use super::core::{Core, Link, lock};
use super::errors;
use super::member::Member;
use super::positions::Seek;
use super::rebalance::Rebalancing;
use super::thread as reader;

/// The wait before a commit is tried again that a rebalance held up.
const COMMIT_AGAIN: Duration = Duration::from_millis(50);

pub(super) type Client = BaseConsumer<Rebalancing>;

/// What a group reads. Retries have a group of their own: the cluster shares out partitions by their
/// number, and among those of retries a member could be left without any that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Sources,
    Retries,
    /// Messages for later, which belong to no subscription.
    Later,
}

/// A group of this process, with everything that reads in it.
pub(super) struct Group {
    pub(super) id: Arc<str>,
    pub(super) role: Role,
    pub(super) core: Arc<Core>,
    pub(super) members: Mutex<Vec<Arc<Member>>>,
    /// Counts the subscriptions that were added.
    pub(super) version: AtomicU64,
    /// What is ours now.
    pub(super) assigned: Mutex<Vec<Arc<Assigned>>>,
    /// Positions that a member has to set when it is given the partition.
    pub(super) first: Mutex<First>,
    /// How often partitions were given or taken.
    pub(super) rebalances: AtomicU64,
    pub(super) closing: AtomicBool,
    pub(super) closed: watch::Sender<bool>,
    /// Partitions that the library reports as having messages and giving none, since when.
    pub(super) stalled: Mutex<HashMap<(String, i32), Stall>>,
    /// The ends of partitions as the cluster said them last: one whose fetches are not answered, or not made,
    /// knows of nothing new.
    pub(super) ends: Mutex<HashMap<(String, i32), i64>>,
    pub(super) seeks: Mutex<Vec<Seek>>,
    pub(super) runtime: Handle,
}

/// The position at which a partition stands still.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stall {
    pub(super) at: i64,
    pub(super) since: Instant,
}

impl Group {
    /// The group of this name; its thread is started with the first subscription.
    pub(super) fn of(core: &Arc<Core>, id: &str, role: Role) -> Arc<Self> {
        let mut groups = lock(&core.groups);
        if let Some(group) = groups.get(id)
            && !group.closing.load(Ordering::Acquire)
        {
            return Arc::clone(group);
        }
        let group = Arc::new(Self {
            id: id.into(),
            role,
            core: Arc::clone(core),
            members: Mutex::default(),
            version: AtomicU64::new(0),
            assigned: Mutex::default(),
            first: Mutex::default(),
            rebalances: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            closed: watch::Sender::new(false),
            stalled: Mutex::default(),
            ends: Mutex::default(),
            seeks: Mutex::default(),
            runtime: Handle::current(),
        });
        groups.insert(id.into(), Arc::clone(&group));
        if let Err(error) = reader::start(&group) {
            error!(group = id, "no thread to read with: {error}");
            group.closed.send_replace(true);
        }
        group
    }

    pub(super) fn add(&self, member: &Arc<Member>) {
        lock(&self.members).push(Arc::clone(member));
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(super) fn members(&self) -> Vec<Arc<Member>> {
        lock(&self.members).clone()
    }

    pub(super) fn reads_sources(&self) -> bool {
        self.role == Role::Sources
    }

    /// Begins to close; [`Group::closed`] waits for the end.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(super) async fn closed(&self) {
        // The sender is this struct's own.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    pub(super) fn ends(&self) -> bool {
        self.closing.load(Ordering::Acquire) || self.core.is_closed()
    }

    /// Commits what is finished of these partitions; does not wait for the answer.
    pub(super) fn commit(&self, client: &Client, of: &[Arc<Assigned>]) {
        let mut list = TopicPartitionList::new();
        let mut committed = Vec::new();
        for assigned in of {
            let Some((offset, note)) = lock(&assigned.ledger).take_commit() else {
                continue;
            };
            place(&mut list, assigned, offset, note);
            committed.push(assigned);
        }
        if committed.is_empty() {
            return;
        }
        if let Err(error) = client.commit(&list, CommitMode::Async) {
            if errors::code(&error) != Some(RDKafkaErrorCode::NoOffset) {
                tracing::debug!(group = &*self.id, "not committed: {error}");
            }
            for assigned in committed {
                lock(&assigned.ledger).not_committed();
            }
        }
    }

    /// Seals partitions that are to be given up and commits what is finished of them, for the last time: what
    /// cannot be committed now comes again, though it is settled.
    pub(super) fn commit_at_last(&self, client: &Client, of: &[Arc<Assigned>]) {
        let is_up = || *self.core.link.borrow() == Link::Up;
        // Without the cluster nobody waits for what was committed already.
        let whatever_was_committed = is_up();
        let mut list = TopicPartitionList::new();
        for assigned in of {
            if let Some((offset, note)) = assigned.seal(whatever_was_committed) {
                place(&mut list, assigned, offset, note);
            }
        }
        if list.count() == 0 {
            return;
        }
        let deadline = Instant::now() + self.core.settings.revoke_bound();
        while let Err(error) = client.commit(&list, CommitMode::Sync) {
            let passes = errors::code(&error).is_some_and(|code| {
                let moves = [
                    RDKafkaErrorCode::RebalanceInProgress,
                    RDKafkaErrorCode::StaleMemberEpoch,
                ];
                moves.contains(&code) || errors::is_being_found(code)
            });
            if passes && is_up() && Instant::now() < deadline {
                thread::sleep(COMMIT_AGAIN);
                continue;
            }
            self.lost(of, &errors::told(&error).1);
            return;
        }
    }

    /// Partitions went before it could be committed what was settled last.
    pub(super) fn lost(&self, all: &[Arc<Assigned>], why: &str) {
        if all.is_empty() {
            return;
        }
        for assigned in all {
            assigned.member.lost.record(1.0);
        }
        warn!(
            broker = %self.core.context.name,
            group = &*self.id,
            partitions = all.len(),
            "partitions were taken away, and what was settled last may come again: {why}"
        );
    }

    /// Takes the cluster's answer to a commit.
    pub(super) fn answered(&self, list: &TopicPartitionList, is_committed: bool) {
        let all = lock(&self.assigned).clone();
        for element in list.elements() {
            let found = all.iter().find(|assigned| {
                *assigned.topic == *element.topic() && assigned.partition == element.partition()
            });
            let Some(assigned) = found else { continue };
            let mut ledger = lock(&assigned.ledger);
            match element.offset() {
                rdkafka::Offset::Offset(offset) if is_committed && element.error().is_ok() => {
                    ledger.confirmed(offset);
                }
                _ => ledger.not_committed(),
            }
        }
    }
}

fn place(list: &mut TopicPartitionList, of: &Assigned, offset: i64, note: String) {
    let mut element = list.add_partition(&of.topic, of.partition);
    // Both are within what the library takes: an offset that was read, a text of ours.
    let _ = element.set_offset(rdkafka::Offset::Offset(offset));
    element.set_metadata(note);
}

/// Stops or starts reading one partition.
pub(super) fn pause(client: &Client, assigned: &Assigned, pause: bool) {
    let mut list = TopicPartitionList::new();
    list.add_partition(&assigned.topic, assigned.partition);
    let outcome = if pause {
        client.pause(&list)
    } else {
        client.resume(&list)
    };
    if let Err(error) = outcome {
        // It was taken away meanwhile.
        tracing::debug!(topic = &*assigned.topic, "{error}");
    }
}
