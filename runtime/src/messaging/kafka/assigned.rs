//! One partition while it is ours, and the settlement of what was read from it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::warn;

use crate::handling::BoxFuture;
use crate::message::headers::name;
use crate::message::{HeaderValue, Headers, Incoming, Place};
use crate::messaging::{BrokerError, Copied, Settled, Settler, Ticket, TopologyMode};

use super::admin;
use super::core::{Core, lock};
use super::group::Role;
use super::ledger::{Ledger, Note, Read};
use super::member::{Copying, Member};
use super::publish::{CopyError, Record};
use super::topology::{self, Part};

/// The longest time that a retry waits in this process where it has no topic.
const HELD_MAX: Duration = Duration::from_secs(3_600);
/// How often whoever waits to hand a message out again looks whether it goes before.
const LOOK: Duration = Duration::from_millis(100);

/// What a partition is to its subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Source,
    /// Messages wait this long in it.
    Retry(Duration),
    /// A pattern matched a topic of ours.
    Ignored,
}

impl Kind {
    /// As what its group reads it.
    pub(super) fn read_as(self) -> Role {
        match self {
            Self::Source | Self::Ignored => Role::Sources,
            Self::Retry(_) => Role::Retries,
        }
    }
}

/// One assignment of one partition. Ends when the partition is given up; what is settled then is stale.
pub(super) struct Assigned {
    pub(super) epoch: u64,
    pub(super) topic: Arc<str>,
    /// The topic as its publisher named it.
    shown: Arc<str>,
    pub(super) partition: i32,
    pub(super) kind: Kind,
    pub(super) member: Arc<Member>,
    pub(super) ledger: Mutex<Ledger>,
    idle: Condvar,
    live: AtomicBool,
    leaving: AtomicBool,
    me: Weak<Self>,
}

impl Assigned {
    pub(super) fn new(
        core: &Core,
        member: &Arc<Member>,
        topic: &str,
        partition: i32,
        kind: Kind,
        before: Note,
    ) -> Arc<Self> {
        let prefix = core.context.prefix.as_deref().unwrap_or_default();
        Arc::new_cyclic(|me| Self {
            epoch: core.next_epoch(),
            topic: topic.into(),
            shown: topic.strip_prefix(prefix).unwrap_or(topic).into(),
            partition,
            kind,
            member: Arc::clone(member),
            ledger: Mutex::new(Ledger::new(before)),
            idle: Condvar::new(),
            live: AtomicBool::new(true),
            leaving: AtomicBool::new(false),
            me: me.clone(),
        })
    }

    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// Whether it is about to be given up: what is out is waited for, and nothing more goes out.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    /// Hands out nothing more, neither what waits nor what is given back.
    pub(super) fn leave(self: &Arc<Self>) {
        self.leaving.store(true, Ordering::Release);
        self.member.hold_back(self);
    }

    /// The topic of a message that was read from here.
    pub(super) fn shown(&self, headers: &Headers) -> Arc<str> {
        match self.kind {
            Kind::Source | Kind::Ignored => Arc::clone(&self.shown),
            Kind::Retry(_) => match headers.text(name::TOPIC) {
                Some(topic) => (*topic).into(),
                None => self.member.subscription.topic.as_str().into(),
            },
        }
    }

    /// Enters what was read; `None` if it needs no handling.
    pub(super) fn enter(&self, offset: i64, incoming: &mut Incoming) -> bool {
        match lock(&self.ledger).enter(offset) {
            Read::New => true,
            Read::Again => {
                incoming.redelivered = true;
                true
            }
            Read::Finished => false,
        }
    }

    /// Waits until nothing is with the engine, at the latest until `deadline`. Blocks.
    pub(super) fn wait_until_idle(&self, deadline: Instant) {
        let mut ledger = lock(&self.ledger);
        while ledger.out() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.idle.wait_timeout(ledger, left);
            ledger = match waited {
                Ok((ledger, _)) => ledger,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Below which offset everything is finished; 0 once it is not ours any more.
    pub(super) fn finished_below(&self) -> i64 {
        let ledger = lock(&self.ledger);
        // One that ends is marked before its ledger is closed, which then says that all is finished.
        if self.is_live() {
            ledger.watermark()
        } else {
            0
        }
    }

    /// What is to be committed at last. From here on nothing of it can be settled: what was settled while
    /// that is being committed would come again.
    ///
    /// `None` if nothing was read, or, unless it is to be committed `whatever_was_committed`, nothing new.
    pub(super) fn seal(&self, whatever_was_committed: bool) -> Option<(i64, String)> {
        self.live.store(false, Ordering::Release);
        let mut ledger = lock(&self.ledger);
        match whatever_was_committed {
            true => ledger.last_commit(),
            false => ledger.take_commit(),
        }
    }

    /// It is not ours any more.
    pub(super) fn end(self: &Arc<Self>) {
        self.live.store(false, Ordering::Release);
        let out = lock(&self.ledger).close();
        self.member.given_up(self, out);
    }

    pub(super) fn finish(&self, offset: i64) -> Settled {
        let finished = {
            let mut ledger = lock(&self.ledger);
            // Looked at under the lock: the last commit is made up under it as well.
            let finished = self.is_live() && ledger.finish(offset);
            if ledger.out() == 0 {
                self.idle.notify_all();
            }
            finished
        };
        if !finished {
            return self.member.stale();
        }
        self.member.freed();
        Settled::Yes
    }

    /// Hands it out again, untouched or changed.
    fn again(&self, offset: i64, change: impl FnOnce(&mut Incoming)) -> Settled {
        let Some(me) = self.me.upgrade().filter(|me| me.is_live()) else {
            return self.member.stale();
        };
        let taken = {
            let mut ledger = lock(&self.ledger);
            let taken = ledger.take_back(offset);
            if ledger.out() == 0 {
                self.idle.notify_all();
            }
            taken
        };
        let Some(incoming) = taken else {
            return self.member.stale();
        };
        let mut incoming = Arc::unwrap_or_clone(incoming);
        change(&mut incoming);
        self.member.comes_again(me, offset, incoming);
        Settled::Yes
    }

    /// Keeps the message out for `wait`, then hands it out again.
    fn hold(&self, offset: i64, headers: Headers, wait: Duration) -> Settled {
        let Some(me) = self.me.upgrade().filter(|me| me.is_live()) else {
            return self.member.stale();
        };
        tokio::spawn(async move {
            sleep(wait).await;
            // A partition that was given up meanwhile: its next owner has the original.
            me.again(offset, |incoming| {
                let origin = incoming.origin.clone();
                let topic = Arc::clone(&incoming.topic);
                let key = incoming.key.clone();
                let body = incoming.body.clone();
                *incoming = Incoming::new(topic, body, headers, origin);
                incoming.key = incoming.key.take().or(key);
            });
        });
        Settled::Yes
    }

    async fn retry_later(
        &self,
        offset: i64,
        message: &Incoming,
        after: Duration,
        headers: Headers,
    ) -> Result<Settled, BrokerError> {
        let Some(topic) = self.member.names.retry(after) else {
            return Ok(self.hold(offset, headers, after.min(HELD_MAX)));
        };
        let _copying = Copying::begin(&self.member);
        let mut copied = headers.clone();
        set_topic(&mut copied, message);
        let key = key_of(message);
        // Its own field on the record.
        copied.remove(name::MESSAGE_KEY);
        let record = Record {
            topic,
            partition: None,
            key: key.as_deref(),
            body: Some(&message.body),
            headers: &copied,
            timestamp: i64::try_from(self.member.core.context.clock.unix_millis()).ok(),
        };
        let core = &self.member.core;
        let failed = match self.send(&record).await {
            Ok(()) => {
                self.kept(Copied::Retries);
                return Ok(self.finish(offset));
            }
            Err(CopyError::Missing) => {
                warn!(
                    broker = %self.member.core.context.name,
                    subscription = %self.member.subscription.label,
                    "topic `{topic}` does not exist; the retry waits in this process"
                );
                return Ok(self.hold(offset, headers, after.min(HELD_MAX)));
            }
            Err(failed) => failed,
        };
        Err(self
            .give_back(
                offset,
                Copied::Retries,
                failed.into_broker_error(core, topic),
            )
            .await)
    }

    async fn bury(
        &self,
        offset: i64,
        message: &Incoming,
        headers: Headers,
    ) -> Result<Settled, BrokerError> {
        let _copying = Copying::begin(&self.member);
        let topic = self.member.names.dead_letters.as_str();
        let mut copied = headers;
        set_topic(&mut copied, message);
        if let Some(key) = &message.key
            && !copied.contains(name::MESSAGE_KEY)
        {
            copied.set(name::MESSAGE_KEY, key.to_string());
        }
        // Names this one letter, so that it can be taken out, and a repeat after a crash is no second.
        let key = letter_key(message);
        let record = Record {
            topic,
            partition: None,
            key: Some(key.as_bytes()),
            body: Some(&message.body),
            headers: &copied,
            timestamp: None,
        };
        match self.send(&record).await {
            Ok(()) => {
                self.kept(Copied::DeadLetters);
                Ok(self.finish(offset))
            }
            Err(failed) => {
                let error = failed.into_broker_error(&self.member.core, topic);
                Err(self.give_back(offset, Copied::DeadLetters, error).await)
            }
        }
    }

    fn kept(&self, copied: Copied) {
        let member = &self.member;
        member.unkept.works(copied, &member.subscription.label);
    }

    async fn give_back(&self, offset: i64, copied: Copied, error: BrokerError) -> BrokerError {
        let member = &self.member;
        let label = &member.subscription.label;
        let spread = member.core.context.rng.unit();
        let wait = member.unkept.fails(copied, label, &error, spread);
        let until = tokio::time::Instant::now() + wait;
        // A partition that moves does not wait for it, and neither does a process that ends.
        while self.is_live() && !self.is_leaving() && !member.is_stopped() {
            let now = tokio::time::Instant::now();
            if now >= until {
                break;
            }
            sleep(LOOK.min(until - now)).await;
        }
        self.again(offset, |incoming| incoming.redelivered = true);
        error
    }

    /// Sends a copy, and makes its topic first where that is missing and ours to make.
    pub(super) async fn send(&self, record: &Record<'_>) -> Result<(), CopyError> {
        let core = &self.member.core;
        let sent = core.send_copy(record).await;
        let missing = matches!(sent, Err(CopyError::Missing));
        if !missing || self.member.subscription.topology != TopologyMode::Apply {
            return sent;
        }
        let prefix = core.context.prefix.as_deref();
        let parts = topology::parts(prefix, &core.settings, &self.member.subscription);
        let part = parts
            .iter()
            .find(|part| matches!(part, Part::Topic { name, .. } if name == record.topic));
        let Some(part) = part else {
            return sent;
        };
        match admin::make_topics(core, &[part]).await {
            Ok(()) => core.send_copy(record).await,
            Err(error) => Err(CopyError::Failed(error.kind(), error.to_string())),
        }
    }
}

/// The topic has to travel with a copy: its record lies in another one.
pub(super) fn set_topic(headers: &mut Headers, message: &Incoming) {
    if !headers.contains(name::TOPIC) {
        headers.set(name::TOPIC, message.topic.to_string());
    }
}

/// The key of a message as it was on its record.
pub(super) fn key_of(message: &Incoming) -> Option<Vec<u8>> {
    match message.headers.get(name::MESSAGE_KEY) {
        Some(HeaderValue::Bytes(raw)) => Some(raw.to_vec()),
        _ => message.key.as_ref().map(|key| key.as_bytes().to_vec()),
    }
}

pub(super) fn letter_key(message: &Incoming) -> String {
    match &message.origin.place {
        Place::Kafka {
            topic,
            partition,
            offset,
        } => format!("{}@{topic}/{partition}/{offset}", message.id),
        _ => message.id.to_string(),
    }
}

fn offset_of(ticket: Ticket) -> i64 {
    // Tickets are made from offsets, which are never negative.
    i64::try_from(ticket.tag).unwrap_or(i64::MAX)
}

impl Settler for Assigned {
    fn done(&self, ticket: Ticket) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        let settled = self.finish(offset_of(ticket));
        Box::pin(std::future::ready(Ok(settled)))
    }

    fn retry(
        &self,
        ticket: Ticket,
        message: Arc<Incoming>,
        after: Duration,
        headers: Headers,
    ) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        Box::pin(async move {
            if !self.is_live() {
                return Ok(self.member.stale());
            }
            self.retry_later(offset_of(ticket), &message, after, headers)
                .await
        })
    }

    fn dead_letter(
        &self,
        ticket: Ticket,
        message: Arc<Incoming>,
        headers: Headers,
    ) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        Box::pin(async move {
            if !self.is_live() {
                return Ok(self.member.stale());
            }
            if !self.member.subscription.dead_letter {
                return Ok(self.finish(offset_of(ticket)));
            }
            self.bury(offset_of(ticket), &message, headers).await
        })
    }

    fn release(&self, ticket: Ticket) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        let settled = self.again(offset_of(ticket), |incoming| incoming.redelivered = true);
        Box::pin(std::future::ready(Ok(settled)))
    }

    fn is_current(&self, _epoch: u64) -> bool {
        self.is_live()
    }
}

#[cfg(test)]
pub(in crate::messaging::kafka) mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::{Config, Faults};
    use crate::message::{Origin, TopicPattern};
    use crate::messaging::kafka::settings::Settings;
    use crate::messaging::{BrokerContext, Delivery, Group, Subscription};

    /// A partition of a subscription to `t` on a cluster that is not there.
    pub(in crate::messaging::kafka) fn partition(
        kind: Kind,
    ) -> (Arc<Assigned>, mpsc::Receiver<Delivery>) {
        let config = Config::new().with("brokers.main.url", "kafka://127.0.0.1:1");
        let mut faults = Faults::new();
        let settings = Settings::read(&config.section("brokers.main"), &mut faults);
        faults.into_result().unwrap();
        let context = BrokerContext::new("main", "billing", "billing-1");
        let core = Arc::new(Core::new(context, settings));
        let topic = TopicPattern::parse("t").unwrap();
        let subscription = Arc::new(Subscription::new(topic, Group::Named("g".into())));
        let names = topology::names(None, &core.settings, &subscription);
        let (sender, deliveries) = mpsc::channel(16);
        let member = Member::new(&core, &subscription, names, sender);
        let assigned = Assigned::new(&core, &member, "t", 0, kind, Note::default());
        (assigned, deliveries)
    }

    /// What lies there at an offset.
    pub(in crate::messaging::kafka) fn record(assigned: &Assigned, offset: i64) -> Incoming {
        let place = Place::Kafka {
            topic: Arc::clone(&assigned.topic),
            partition: assigned.partition,
            offset,
        };
        let origin = Origin::new("main".into(), place);
        Incoming::new("t".into(), "body".into(), Headers::new(), origin)
    }

    #[tokio::test]
    async fn nothing_counts_as_finished_in_a_partition_that_is_not_ours_any_more() {
        let (assigned, _deliveries) = partition(Kind::Source);
        for offset in 0..3 {
            let mut incoming = record(&assigned, offset);
            assert!(assigned.enter(offset, &mut incoming));
            assert!(lock(&assigned.ledger).hand_out(offset, Arc::new(incoming)));
        }
        assert_eq!(assigned.finish(0), Settled::Yes);
        assert_eq!(assigned.finished_below(), 1);
        assigned.end();
        assert_eq!(assigned.finished_below(), 0);
    }

    #[tokio::test]
    async fn what_is_given_back_while_a_partition_goes_is_not_handed_out_again() {
        let (assigned, mut deliveries) = partition(Kind::Source);
        for offset in 0..2 {
            let mut incoming = record(&assigned, offset);
            assert!(assigned.enter(offset, &mut incoming));
            assigned.member.offer(&assigned, offset, incoming);
        }
        assigned.member.pump();
        let (first, second) = (
            deliveries.try_recv().unwrap(),
            deliveries.try_recv().unwrap(),
        );
        assert_eq!(first.settlement.release().await.unwrap(), Settled::Yes);
        let first = deliveries.try_recv().unwrap();
        assigned.leave();
        assert_eq!(first.settlement.release().await.unwrap(), Settled::Yes);
        assert!(deliveries.try_recv().is_err());
        assert_eq!(second.settlement.done().await.unwrap(), Settled::Yes);
        assert_eq!(
            lock(&assigned.ledger).out(),
            0,
            "there is nothing to wait for"
        );
        // The next owner learns that somebody had the first one.
        assert_eq!(
            assigned.seal(true),
            Some((0, "interline1 2 1-2".to_owned()))
        );
        assigned.end();
    }

    /// Whoever was told that a message is settled finds it in the last commit, at whatever moment it was.
    #[test]
    fn the_last_commit_holds_everything_that_was_settled() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _entered = runtime.enter();
        for _ in 0..200 {
            let (assigned, _deliveries) = partition(Kind::Source);
            for offset in 0..64 {
                let mut incoming = record(&assigned, offset);
                assert!(assigned.enter(offset, &mut incoming));
                assert!(lock(&assigned.ledger).hand_out(offset, Arc::new(incoming)));
            }
            let settling = Arc::clone(&assigned);
            let settled = std::thread::spawn(move || {
                // From the end, so that what is finished stands in the note.
                let all = (1..64).rev();
                all.filter(|offset| settling.finish(*offset) == Settled::Yes)
                    .collect::<Vec<i64>>()
            });
            while lock(&assigned.ledger).out() == 64 {
                std::hint::spin_loop();
            }
            let (offset, note) = assigned.seal(true).unwrap();
            let settled = settled.join().unwrap();
            assigned.end();
            let mut next = Ledger::new(Note::parse(&note));
            assert_eq!(offset, 0);
            for offset in 0..64 {
                let read = next.enter(offset);
                assert_eq!(
                    read == Read::Finished,
                    settled.contains(&offset),
                    "{offset}"
                );
            }
        }
    }
}
