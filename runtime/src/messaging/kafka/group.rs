//! One consumer for each group, on a thread of its own: it reads, hands over in batches, commits, and
//! gives partitions up in order. Polling never waits for a handler.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::messaging::{BrokerError, BrokerErrorKind, TopologyMode};

use super::admin::{self, First, Wanted};
use super::assigned::Assigned;
use super::batch;
use super::core::{Core, Link, lock};
use super::errors;
use super::link::client_id;
use super::member::Member;
use super::parked::Parked;
use super::positions::Seek;
use super::rebalance::Rebalancing;
use super::topology::{self, Source};

/// The longest wait for a message: a stop and a new subscription are seen within this time.
const POLL: Duration = Duration::from_millis(50);
/// The wait while partitions are paused: soon there may be room.
const POLL_FULL: Duration = Duration::from_millis(2);
/// Most messages that are handed over at once.
const BATCH: usize = 512;
/// How long changes of the subscriptions are collected.
const SETTLE: Duration = Duration::from_millis(20);
/// How long a subscription that ended keeps its topics: others that end with it need no rebalance each.
const LINGER: Duration = Duration::from_millis(300);
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// How long a consumer that is made anew waits for the old one to close.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// How long a member that was given nothing waits before it counts as running.
const EMPTY_HANDED: Duration = Duration::from_secs(1);

pub(super) type Client = BaseConsumer<Rebalancing>;

/// What a group reads. Retries have a group of their own: the cluster shares out partitions by their
/// number, and among those of retries a member could be left without any that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Sources,
    Retries,
    /// Messages for later, which belong to no subscription.
    Later,
}

/// A group of this process, with everything that reads in it.
pub(super) struct Group {
    pub(super) id: Arc<str>,
    role: Role,
    pub(super) core: Arc<Core>,
    members: Mutex<Vec<Arc<Member>>>,
    version: AtomicU64,
    /// What is ours now.
    pub(super) assigned: Mutex<Vec<Arc<Assigned>>>,
    /// Positions that a member has to set when it is given the partition.
    pub(super) first: Mutex<First>,
    /// How often partitions were given or taken.
    pub(super) rebalances: AtomicU64,
    pub(super) closing: AtomicBool,
    closed: watch::Sender<bool>,
    /// Partitions that the library reports as having messages and giving none, since when.
    pub(super) stalled: Mutex<HashMap<(String, i32), Stall>>,
    pub(super) seeks: Mutex<Vec<Seek>>,
    runtime: Handle,
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
            seeks: Mutex::default(),
            runtime: Handle::current(),
        });
        groups.insert(id.into(), Arc::clone(&group));
        let running = Arc::clone(&group);
        let spawned = thread::Builder::new()
            .name(format!("kafka-{id}"))
            .spawn(move || {
                Thread {
                    group: running,
                    attempt: 0,
                    told: None,
                }
                .run();
            });
        if let Err(error) = spawned {
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

    fn ends(&self) -> bool {
        self.closing.load(Ordering::Acquire) || self.core.is_closed()
    }

    /// Commits what is finished of these partitions; does not wait for the answer.
    fn commit(&self, client: &Client, of: &[Arc<Assigned>]) {
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
                thread::sleep(POLL);
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

/// How a consumer of the group ended.
enum End {
    Stopped,
    /// To be made anew, at once if there is nothing wrong.
    Anew(Option<BrokerError>),
}

struct Thread {
    group: Arc<Group>,
    attempt: u32,
    told: Option<String>,
}

impl Thread {
    fn run(mut self) {
        let group = Arc::clone(&self.group);
        while !group.ends() {
            if lock(&group.members).is_empty() || *group.core.link.borrow() != Link::Up {
                thread::sleep(POLL);
                continue;
            }
            let begun = Instant::now();
            let end = match self.make() {
                Ok(client) => {
                    let end = Session::new(&group, &client).run();
                    let ends = matches!(end, End::Stopped);
                    self.give_up(&client, ends);
                    close(client, ends);
                    end
                }
                Err(error) => End::Anew(Some(error)),
            };
            if begun.elapsed() > BACKOFF_MAX {
                self.attempt = 0;
            }
            let End::Anew(Some(error)) = end else {
                continue;
            };
            self.failed(&error);
            let wait = group.core.backoff(self.attempt, BACKOFF_MAX);
            self.attempt = self.attempt.saturating_add(1);
            let until = Instant::now() + wait;
            while Instant::now() < until && !group.ends() {
                thread::sleep(POLL.min(wait));
            }
        }
        for member in group.members() {
            member.stop_now();
        }
        lock(&group.members).clear();
        group.closed.send_replace(true);
    }

    fn make(&self) -> Result<Client, BrokerError> {
        let core = &self.group.core;
        let told = |(kind, text): (BrokerErrorKind, String)| core.error(kind, text);
        let config = core.settings.member(&client_id(core), &self.group.id);
        let context = Rebalancing::new(&self.group);
        let made = config.map_err(told)?.create_with_context(context);
        made.map_err(|error| told(errors::told(&error)))
    }

    /// Commits what is finished and gives every partition up.
    fn give_up(&self, client: &Client, ends: bool) {
        let all = std::mem::take(&mut *lock(&self.group.assigned));
        if !ends {
            let deadline = Instant::now() + self.group.core.settings.revoke_bound();
            for assigned in &all {
                assigned.leave();
            }
            for assigned in &all {
                assigned.wait_until_idle(deadline);
            }
        }
        if *self.group.core.link.borrow() == Link::Up || ends {
            self.group.commit_at_last(client, &all);
        } else {
            self.group.lost(&all, "the cluster does not answer");
        }
        for assigned in &all {
            assigned.end();
        }
        if self.group.role == Role::Sources {
            for member in self.group.members() {
                member.set_joined(false);
            }
        }
    }

    fn failed(&mut self, error: &BrokerError) {
        let text = error.to_string();
        for member in self.group.members() {
            if !error.is_retryable() {
                member.set_failed(Some(text.clone()));
            }
        }
        if self.told.as_ref() != Some(&text) {
            warn!(broker = %self.group.core.context.name, group = &*self.group.id, "not consuming: {text}");
            self.told = Some(text);
        }
    }
}

/// What has to be there for a subscription, being made.
struct Preparing {
    member: Arc<Member>,
    outcome: Receiver<Result<First, BrokerError>>,
}

struct Session<'a> {
    group: &'a Arc<Group>,
    client: &'a Client,
    seen: u64,
    preparing: Vec<Preparing>,
    /// Subscriptions that have everything they need.
    prepared: Vec<Arc<Member>>,
    /// Subscriptions that lack something, and when to look again.
    failed: Vec<(Arc<Member>, Instant, u32)>,
    over: Option<Instant>,
    subscribed: BTreeSet<String>,
    subscribed_at: Instant,
    rebalances: u64,
    full: HashMap<u64, bool>,
    parked: Parked,
    commit_at: Instant,
}

impl<'a> Session<'a> {
    fn new(group: &'a Arc<Group>, client: &'a Client) -> Self {
        Self {
            group,
            client,
            seen: 0,
            preparing: Vec::new(),
            prepared: Vec::new(),
            failed: Vec::new(),
            over: None,
            subscribed: BTreeSet::new(),
            subscribed_at: Instant::now(),
            rebalances: group.rebalances.load(Ordering::Acquire),
            full: HashMap::new(),
            parked: Parked::default(),
            commit_at: Instant::now(),
        }
    }

    fn run(mut self) -> End {
        loop {
            if self.group.ends() {
                return End::Stopped;
            }
            if let Some(end) = self.look_at_members() {
                return end;
            }
            if let Err(error) = self.read() {
                return End::Anew(Some(error));
            }
            self.parked.release();
            self.look_at_room();
            let seeks = std::mem::take(&mut *lock(&self.group.seeks));
            for seek in seeks {
                seek.run(self.group, self.client);
            }
            let now = Instant::now();
            if now >= self.commit_at {
                self.commit_at = now + self.group.core.settings.commit_interval;
                let all = lock(&self.group.assigned).clone();
                self.group.commit(self.client, &all);
                self.look_at_joined();
                if let Some(error) = self.look_at_progress(now) {
                    return End::Anew(Some(error));
                }
            }
        }
    }

    /// Takes up new subscriptions and leaves those that have ended.
    fn look_at_members(&mut self) -> Option<End> {
        let version = self.group.version.load(Ordering::Acquire);
        if version != self.seen {
            self.seen = version;
            // More of them come in a moment, when a service starts.
            thread::sleep(SETTLE);
            self.seen = self.group.version.load(Ordering::Acquire);
            let known = |member: &Arc<Member>, all: &[Arc<Member>]| {
                all.iter().any(|known| Arc::ptr_eq(known, member))
            };
            for member in self.group.members() {
                let preparing = self
                    .preparing
                    .iter()
                    .any(|one| Arc::ptr_eq(&one.member, &member));
                if !known(&member, &self.prepared) && !preparing {
                    self.prepare(member);
                }
            }
        }
        self.finish_preparing();
        let now = Instant::now();
        let mut due = Vec::new();
        self.failed.retain(|(member, at, _)| {
            let is_due = *at <= now;
            if is_due {
                due.push(Arc::clone(member));
            }
            !is_due
        });
        for member in due {
            self.prepare(member);
        }
        let ended = self.prepared.iter().any(|member| member.is_over());
        match (ended, self.over) {
            (true, None) => self.over = Some(now + LINGER),
            (false, _) => self.over = None,
            (true, Some(at)) if now >= at => {
                self.over = None;
                self.leave();
                if lock(&self.group.members).is_empty() {
                    return Some(End::Anew(None));
                }
            }
            (true, Some(_)) => {}
        }
        // Somebody reads anew what an ended subscription of ours still holds.
        let taken = {
            let all = lock(&self.group.assigned);
            all.iter().any(|assigned| {
                assigned.member.is_over()
                    && self.prepared.iter().any(|member| {
                        !Arc::ptr_eq(member, &assigned.member)
                            && !member.is_stopped()
                            && member.subscription.topic == assigned.member.subscription.topic
                    })
            })
        };
        if taken {
            self.leave();
            return Some(End::Anew(None));
        }
        self.subscribe()
    }

    /// Drops the subscriptions that are over.
    fn leave(&mut self) {
        let keep = |member: &Arc<Member>| !member.is_over();
        self.prepared.retain(keep);
        lock(&self.group.members).retain(keep);
    }

    fn prepare(&mut self, member: Arc<Member>) {
        if member.is_stopped() {
            return;
        }
        let (done, outcome) = sync_channel(1);
        let preparing = Arc::clone(&member);
        let role = self.group.role;
        if role == Role::Later {
            // Whoever has it read a topic has made it, or has seen it.
            self.prepared.push(member);
            return;
        }
        self.group.runtime.spawn(async move {
            let core = &preparing.core;
            let prefix = core.context.prefix.as_deref();
            let subscription = &preparing.subscription;
            let parts = topology::parts(prefix, &core.settings, subscription);
            // What is missing is told once, by the group of the sources.
            let mode = match (role, subscription.topology) {
                (Role::Retries, TopologyMode::Verify) => TopologyMode::Off,
                (_, mode) => mode,
            };
            let wanted: Vec<Wanted> = parts
                .into_iter()
                .filter(|part| role == Role::Sources || preparing.names.is_retry(part))
                .map(|part| Wanted {
                    part,
                    mode,
                    subscription: Some(Arc::clone(&subscription.label)),
                })
                .collect();
            let mut outcome = admin::apply(core, &wanted).await;
            if role == Role::Retries && outcome.is_ok() {
                match core.ask_for_topics().await {
                    Ok(topics) => {
                        let names = topics.into_iter().map(|topic| topic.name);
                        let own = names.filter(|name| preparing.names.rung_of(name).is_some());
                        preparing.set_retries(own.collect());
                    }
                    Err(error) => outcome = Err(error),
                }
            }
            // Nobody waits any more when the consumer is made anew meanwhile.
            let _ = done.send(outcome);
        });
        self.preparing.push(Preparing { member, outcome });
    }

    fn finish_preparing(&mut self) {
        let mut at = 0;
        while at < self.preparing.len() {
            let outcome = match self.preparing[at].outcome.try_recv() {
                Err(TryRecvError::Empty) => {
                    at += 1;
                    continue;
                }
                Ok(outcome) => outcome,
                Err(TryRecvError::Disconnected) => {
                    let text = "the runtime is gone";
                    Err(self.group.core.error(BrokerErrorKind::ConnectionLost, text))
                }
            };
            let Preparing { member, .. } = self.preparing.swap_remove(at);
            match outcome {
                Ok(first) => {
                    lock(&self.group.first).extend(first);
                    if self.group.role == Role::Sources {
                        member.set_failed(None);
                    }
                    self.prepared.push(member);
                }
                Err(error) => self.lacks(member, &error),
            }
        }
    }

    fn lacks(&mut self, member: Arc<Member>, error: &BrokerError) {
        let text = error.to_string();
        let needs_somebody = !error.is_retryable();
        let told = needs_somebody && self.group.role == Role::Sources;
        let news = told && member.set_failed(Some(text.clone()));
        if news {
            warn!(
                broker = %self.group.core.context.name,
                subscription = %member.subscription.label,
                "not consuming: {text}"
            );
        }
        let wait = if needs_somebody {
            Duration::from_secs(2)
        } else {
            Duration::from_millis(200)
        };
        self.failed.push((member, Instant::now() + wait, 0));
    }

    /// Subscribes to everything that is wanted, if that has changed.
    fn subscribe(&mut self) -> Option<End> {
        let mut wanted = BTreeSet::new();
        for member in &self.prepared {
            if self.group.role == Role::Sources {
                wanted.insert(member.names.source.text().to_owned());
                continue;
            }
            wanted.extend(member.retries());
        }
        if wanted == self.subscribed || (wanted.is_empty() && self.subscribed.is_empty()) {
            return None;
        }
        let topics: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let outcome = if topics.is_empty() {
            self.client.unsubscribe();
            Ok(())
        } else {
            self.client.subscribe(&topics)
        };
        if let Err(error) = outcome {
            let (kind, text) = errors::told(&error);
            return Some(End::Anew(Some(self.group.core.error(kind, text))));
        }
        self.subscribed = wanted;
        self.subscribed_at = Instant::now();
        self.rebalances = self.group.rebalances.load(Ordering::Acquire);
        None
    }

    /// Reads what is there, at most a batch, and hands it over.
    fn read(&mut self) -> Result<(), BrokerError> {
        let mut wait = if self.full.values().any(|full| *full) {
            POLL_FULL
        } else {
            POLL
        };
        if let Some(next) = self.parked.next_due() {
            wait = wait.min(next);
        }
        if !self.preparing.is_empty() {
            wait = wait.min(POLL_FULL);
        }
        let mut batch = batch::Batch::new(self.group, BATCH);
        let mut next = self.client.poll(wait);
        while let Some(polled) = next {
            match polled {
                Ok(message) => batch.push(message),
                Err(error) => self.told(&error)?,
            }
            if batch.is_full() {
                break;
            }
            next = self.client.poll(Duration::ZERO);
        }
        batch.hand_over(self.client, &mut self.parked);
        Ok(())
    }

    /// An error that came in place of a message.
    fn told(&self, error: &KafkaError) -> Result<(), BrokerError> {
        let Some(code) = errors::code(error) else {
            return Ok(());
        };
        use RDKafkaErrorCode as Code;
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        let core = &self.group.core;
        match code {
            _ if fatal => Err(core.error(
                BrokerErrorKind::ConnectionLost,
                format!("the consumer cannot go on: {}", errors::words(code)),
            )),
            Code::PollExceeded => Err(core.error(
                BrokerErrorKind::ConnectionLost,
                "the consumer was not polled in time and has left its group",
            )),
            Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed => {
                let text = format!("group `{}`: {}", self.group.id, errors::words(code));
                let text = core.error(BrokerErrorKind::Permission, text).to_string();
                for member in &self.prepared {
                    if member.set_failed(Some(text.clone())) {
                        warn!(subscription = %member.subscription.label, "not consuming: {text}");
                    }
                }
                Ok(())
            }
            // The library goes on by itself; what lasts shows in the health and the log.
            _ => {
                tracing::debug!(group = &*self.group.id, "{}", errors::words(code));
                Ok(())
            }
        }
    }

    /// Pauses the partitions of subscriptions that are full, and resumes them with some room again.
    fn look_at_room(&mut self) {
        let all = lock(&self.group.assigned).clone();
        self.full
            .retain(|epoch, _| all.iter().any(|assigned| assigned.epoch == *epoch));
        for assigned in &all {
            let was = self.full.get(&assigned.epoch).copied().unwrap_or(false);
            let is = assigned.member.is_full(was);
            if was == is {
                continue;
            }
            self.full.insert(assigned.epoch, is);
            if self.parked.holds(assigned) {
                // Paused as it is; what is parked decides.
                continue;
            }
            pause(self.client, assigned, is);
        }
        let full = &self.full;
        self.parked
            .resume_idle(self.client, |epoch| full.get(&epoch).copied() == Some(true));
        for member in &self.prepared {
            member.pump();
        }
    }

    fn look_at_joined(&mut self) {
        if self.group.role != Role::Sources {
            return;
        }
        let changed = self.group.rebalances.load(Ordering::Acquire) != self.rebalances;
        let protocol = matches!(
            self.client.rebalance_protocol(),
            rdkafka::consumer::RebalanceProtocol::None
        );
        // Where no topic matches yet there is nothing to join for: it begins with the first one.
        let waits = self
            .prepared
            .iter()
            .all(|member| matches!(member.names.source, Source::Pattern(_)));
        let late = (!protocol || waits) && self.subscribed_at.elapsed() > EMPTY_HANDED;
        if !self.subscribed.is_empty() && (changed || late) {
            for member in &self.prepared {
                member.set_joined(true);
            }
        }
    }

    /// A partition that has messages and gives none for too long: the consumer is made anew.
    fn look_at_progress(&self, now: Instant) -> Option<BrokerError> {
        let limit = self.group.core.settings.stall_timeout;
        if *self.group.core.link.borrow() != Link::Up {
            return None;
        }
        let mut stalled = lock(&self.group.stalled);
        let all = lock(&self.group.assigned).clone();
        let found = stalled.iter().find(|((topic, partition), stall)| {
            let paused = all.iter().any(|assigned| {
                *assigned.topic == **topic
                    && assigned.partition == *partition
                    && (self.full.get(&assigned.epoch).copied() == Some(true)
                        || self.parked.holds(assigned))
            });
            !paused && now.duration_since(stall.since) > limit
        });
        let ((topic, partition), _) = found?;
        let text = format!(
            "partition {partition} of `{topic}` has messages and gave none for {limit:?}; reading anew"
        );
        stalled.clear();
        Some(self.group.core.error(BrokerErrorKind::ConnectionLost, text))
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        info!(group = &*self.group.id, "the consumer ends");
    }
}

/// Closes a consumer, which tells the group. Whoever waits for the end of the group has a deadline of
/// its own; a consumer that is to be made anew is not kept from it by a cluster that does not answer.
fn close(client: Client, ends: bool) {
    if ends {
        drop(client);
        return;
    }
    let (done, closed) = sync_channel(1);
    let closing = thread::Builder::new().name("kafka-close".to_owned());
    let spawned = closing.spawn(move || {
        drop(client);
        // Nobody waits any more.
        let _ = done.send(());
    });
    if spawned.is_ok() {
        let _ = closed.recv_timeout(CLOSE_MAX);
    }
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
