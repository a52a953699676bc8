//! One subscription of a group: what was read and waits, what is out, and how it is.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Thread;

use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::handling::BoxFuture;
use crate::message::Incoming;
use crate::messaging::{
    Consumer, ConsumerState, Delivery, Settled, Settlement, Settler, Subscription, Ticket, Unkept,
};
use crate::observability::metrics::{CONSUMER_LAG, PARTITIONS_LOST, STALE_SETTLEMENTS, Series};

use super::assigned::{Assigned, Kind};
use super::core::{Core, Link, lock};
use super::expiry;
use super::group::Role;
use super::topology::Names;

/// What may wait beyond the prefetch before reading stops for a while.
const WAITING: usize = 4_096;
const WAITING_BYTES: usize = 8 << 20;
/// What may wait at most; beyond it nothing is taken, whatever is thrown away by that.
const WAITING_MAX: usize = 4 * WAITING;
const WAITING_BYTES_MAX: usize = 2 * WAITING_BYTES;

/// How much more of a subscription may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Room {
    None,
    /// Only what is at hand.
    Scarce,
    /// Between the marks: it stays as it is.
    Some,
    Plenty,
}

/// A message that was read and is not out yet.
struct Ready {
    assigned: Arc<Assigned>,
    offset: i64,
    incoming: Incoming,
    /// When it ends to be worth delivering.
    expires: Option<u64>,
}

struct Flow {
    ready: VecDeque<Ready>,
    bytes: usize,
    out: usize,
    paused: bool,
    /// How many may still be handed out while it only tries whether handling works again.
    trickle: Option<usize>,
    stopped: bool,
    failed: Option<String>,
    /// What it may not read, and why: the library says so once, until it is read again.
    denied: HashMap<Role, String>,
    joined: bool,
    /// Who waits until there is plenty of room.
    waits: Option<Thread>,
    deliveries: mpsc::Sender<Delivery>,
}

impl Flow {
    fn room(&self, prefetch: usize) -> Room {
        let most = WAITING.max(2 * prefetch);
        let (ready, bytes) = (self.ready.len(), self.bytes);
        if self.paused
            || self.stopped
            || ready >= WAITING_MAX.max(2 * prefetch)
            || bytes >= WAITING_BYTES_MAX
        {
            Room::None
        } else if ready >= most || bytes >= WAITING_BYTES {
            Room::Scarce
        } else if ready > most / 2 || bytes > WAITING_BYTES / 2 {
            Room::Some
        } else {
            Room::Plenty
        }
    }

    fn wake(&mut self, prefetch: usize) {
        if self.waits.is_some()
            && (self.stopped || self.room(prefetch) == Room::Plenty)
            && let Some(thread) = self.waits.take()
        {
            thread.unpark();
        }
    }
}

/// The consumer of one subscription.
pub(super) struct Member {
    pub(super) core: Arc<Core>,
    pub(super) subscription: Arc<Subscription>,
    pub(super) names: Names,
    /// Topics of retries that exist, those of an earlier ladder among them.
    retries: Mutex<Vec<String>>,
    flow: Mutex<Flow>,
    copying: AtomicUsize,
    copied: Notify,
    /// Copies that the cluster does not take.
    pub(super) unkept: Unkept,
    /// Whether the last message that had outlived its time could be kept: what is wrong is told once.
    pub(super) keeps_expired: AtomicBool,
    runtime: Handle,
    stale: Series,
    pub(super) lag: Series,
    pub(super) lost: Series,
}

impl Member {
    pub(super) fn new(
        core: &Arc<Core>,
        subscription: &Arc<Subscription>,
        names: Names,
        deliveries: mpsc::Sender<Delivery>,
    ) -> Arc<Self> {
        let context = &core.context;
        let sink = context.metrics.as_deref();
        let label = || Arc::clone(&subscription.label);
        let of_broker = vec![Arc::clone(&context.name), label()];
        Arc::new(Self {
            stale: Series::of(sink, STALE_SETTLEMENTS, of_broker.clone()),
            lag: Series::of(sink, CONSUMER_LAG, of_broker.clone()),
            lost: Series::of(sink, PARTITIONS_LOST, of_broker),
            core: Arc::clone(core),
            subscription: Arc::clone(subscription),
            names,
            retries: Mutex::default(),
            flow: Mutex::new(Flow {
                ready: VecDeque::new(),
                bytes: 0,
                out: 0,
                paused: false,
                trickle: None,
                stopped: false,
                failed: None,
                denied: HashMap::new(),
                joined: false,
                waits: None,
                deliveries,
            }),
            copying: AtomicUsize::new(0),
            copied: Notify::new(),
            unkept: Unkept::default(),
            keeps_expired: AtomicBool::new(true),
            runtime: Handle::current(),
        })
    }

    /// The topics of its retries that exist.
    pub(super) fn retries(&self) -> Vec<String> {
        lock(&self.retries).clone()
    }

    /// These topics of its retries exist, beside those that are known: answers may overtake each other, and an
    /// older one does not take back what a newer one has said.
    pub(super) fn add_retries<'a>(&self, topics: impl IntoIterator<Item = &'a str>) {
        let mut retries = lock(&self.retries);
        for topic in topics {
            if !retries.iter().any(|known| known == topic) {
                retries.push(topic.to_owned());
            }
        }
    }

    fn prefetch(&self) -> usize {
        usize::from(self.subscription.prefetch).max(1)
    }

    /// Takes a message that was read; [`Member::pump`] hands it out.
    pub(super) fn offer(&self, assigned: &Arc<Assigned>, offset: i64, incoming: Incoming) {
        let mut flow = lock(&self.flow);
        if flow.stopped {
            return;
        }
        flow.bytes += incoming.body.len();
        if !flow.denied.is_empty() {
            flow.denied.remove(&assigned.kind.read_as());
        }
        // One that is tried again was in time.
        let is_first = assigned.kind == Kind::Source;
        let expires = is_first.then(|| expiry::of(&incoming.headers)).flatten();
        flow.ready.push_back(Ready {
            assigned: Arc::clone(assigned),
            offset,
            incoming,
            expires,
        });
    }

    /// Hands out as much as the prefetch allows.
    pub(super) fn pump(&self) {
        self.pump_locked(&mut lock(&self.flow));
    }

    fn pump_locked(&self, flow: &mut Flow) {
        self.hand_out(flow);
        flow.wake(self.prefetch());
    }

    fn hand_out(&self, flow: &mut Flow) {
        while !flow.paused
            && !flow.stopped
            && flow.out < self.prefetch()
            && flow.trickle.is_none_or(|most| flow.out < most)
        {
            let Some(Ready {
                assigned,
                offset,
                incoming,
                expires,
            }) = flow.ready.pop_front()
            else {
                return;
            };
            flow.bytes = flow.bytes.saturating_sub(incoming.body.len());
            if !assigned.is_live() || assigned.is_leaving() {
                continue;
            }
            let incoming = Arc::new(incoming);
            // It may be given up at any moment; then nobody would ever say that this one is not out.
            if !lock(&assigned.ledger).hand_out(offset, Arc::clone(&incoming)) {
                continue;
            }
            flow.out += 1;
            if expires.is_some_and(|at| at <= self.core.context.clock.unix_millis()) {
                let giving_up = expiry::give_up(assigned, offset, incoming);
                self.runtime.spawn(giving_up);
                continue;
            }
            let ticket = Ticket::new(assigned.epoch, u64::try_from(offset).unwrap_or_default());
            let settler = Arc::clone(&assigned) as Arc<dyn Settler>;
            let delivery = Delivery::new(incoming, Settlement::new(settler, ticket));
            let back = match flow.deliveries.try_send(delivery) {
                Ok(()) => continue,
                // What is stale still lies there; the engine makes room.
                Err(TrySendError::Full(delivery)) => delivery,
                Err(TrySendError::Closed(delivery)) => {
                    flow.stopped = true;
                    delivery
                }
            };
            if !lock(&assigned.ledger).not_taken(offset) {
                // Whoever gives it up counts it among what was out.
                continue;
            }
            flow.out -= 1;
            flow.bytes += back.incoming.body.len();
            flow.ready.push_front(Ready {
                assigned,
                offset,
                incoming: Arc::unwrap_or_clone(back.incoming),
                expires,
            });
            return;
        }
    }

    /// Something that was out is settled.
    pub(super) fn freed(&self) {
        let mut flow = lock(&self.flow);
        flow.out = flow.out.saturating_sub(1);
        self.pump_locked(&mut flow);
    }

    /// Something that was out waits again, in its place among what waits.
    pub(super) fn comes_again(&self, assigned: Arc<Assigned>, offset: i64, incoming: Incoming) {
        let mut flow = lock(&self.flow);
        flow.out = flow.out.saturating_sub(1);
        if flow.stopped {
            return;
        }
        flow.bytes += incoming.body.len();
        let same = |ready: &Ready| Arc::ptr_eq(&ready.assigned, &assigned);
        let before = flow
            .ready
            .iter()
            .rposition(|ready| same(ready) && ready.offset < offset);
        let at = before.map_or(0, |at| at + 1);
        flow.ready.insert(
            at,
            Ready {
                assigned,
                offset,
                incoming,
                expires: None,
            },
        );
        self.pump_locked(&mut flow);
    }

    /// A partition is gone, with `out` messages of it out.
    pub(super) fn given_up(&self, assigned: &Arc<Assigned>, out: usize) {
        let mut flow = lock(&self.flow);
        flow.out = flow.out.saturating_sub(out);
        Self::drop_ready(&mut flow, assigned);
        self.pump_locked(&mut flow);
    }

    /// Hands out nothing more of a partition that is about to go.
    pub(super) fn hold_back(&self, assigned: &Arc<Assigned>) {
        Self::drop_ready(&mut lock(&self.flow), assigned);
    }

    fn drop_ready(flow: &mut Flow, assigned: &Arc<Assigned>) {
        flow.ready
            .retain(|ready| !Arc::ptr_eq(&ready.assigned, assigned));
        flow.bytes = flow
            .ready
            .iter()
            .map(|ready| ready.incoming.body.len())
            .sum();
    }

    /// How much more may be read.
    pub(super) fn room(&self) -> Room {
        lock(&self.flow).room(self.prefetch())
    }

    /// Wakes a thread as soon as there is plenty of room; false if there is.
    pub(super) fn wake_with_room(&self, thread: Thread) -> bool {
        let mut flow = lock(&self.flow);
        let is_there = flow.stopped || flow.room(self.prefetch()) == Room::Plenty;
        flow.waits = (!is_there).then_some(thread);
        !is_there
    }

    /// Whether it was stopped and nothing of it is out.
    pub(super) fn is_over(&self) -> bool {
        let flow = lock(&self.flow);
        flow.stopped && flow.out == 0
    }

    pub(super) fn is_stopped(&self) -> bool {
        lock(&self.flow).stopped
    }

    pub(super) fn set_joined(&self, joined: bool) {
        let mut flow = lock(&self.flow);
        flow.joined = joined;
        if joined {
            flow.failed = None;
        }
    }

    /// It cannot run; true if that is news.
    pub(super) fn set_failed(&self, why: Option<String>) -> bool {
        let mut flow = lock(&self.flow);
        let news = flow.failed != why;
        flow.failed = why;
        news
    }

    /// The cluster does not let us read what it reads as `role`; true if that is news. Ends with the next message
    /// of that, and with the consumer that was told so.
    pub(super) fn set_denied(&self, role: Role, why: Option<String>) -> bool {
        let mut flow = lock(&self.flow);
        match why {
            Some(why) => flow.denied.insert(role, why.clone()) != Some(why),
            None => flow.denied.remove(&role).is_some(),
        }
    }

    /// Hands out nothing more, for good.
    pub(super) fn stop_now(&self) {
        let mut flow = lock(&self.flow);
        flow.stopped = true;
        // Whoever gets the partitions next reads it again.
        flow.ready.clear();
        flow.bytes = 0;
        flow.wake(self.prefetch());
    }

    /// Waits for copies that are on their way.
    pub(super) async fn copies_done(&self, deadline: Instant) {
        let waiting = async {
            loop {
                let copied = self.copied.notified();
                if self.copying.load(Ordering::SeqCst) == 0 {
                    return;
                }
                copied.await;
            }
        };
        // Past the deadline the original comes again.
        let _ = timeout_at(deadline, waiting).await;
    }

    pub(super) fn stale(&self) -> Settled {
        self.stale.record(1.0);
        Settled::Stale
    }
}

/// A copy that is on its way.
pub(super) struct Copying<'a>(&'a Member);

impl<'a> Copying<'a> {
    pub(super) fn begin(member: &'a Member) -> Self {
        member.copying.fetch_add(1, Ordering::SeqCst);
        Self(member)
    }
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        if self.0.copying.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.copied.notify_waiters();
        }
    }
}

impl Consumer for Member {
    fn pause(&self) -> BoxFuture<'_, ()> {
        let mut flow = lock(&self.flow);
        flow.paused = true;
        flow.trickle = None;
        drop(flow);
        Box::pin(std::future::ready(()))
    }

    fn resume(&self) -> BoxFuture<'_, ()> {
        let mut flow = lock(&self.flow);
        flow.paused = false;
        flow.trickle = None;
        self.pump_locked(&mut flow);
        Box::pin(std::future::ready(()))
    }

    fn trickle(&self, most: u16) -> BoxFuture<'_, ()> {
        let mut flow = lock(&self.flow);
        flow.paused = false;
        // On top of what is out from before.
        flow.trickle = Some(flow.out + usize::from(most));
        self.pump_locked(&mut flow);
        Box::pin(std::future::ready(()))
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        self.stop_now();
        Box::pin(std::future::ready(()))
    }

    fn state(&self) -> ConsumerState {
        let flow = lock(&self.flow);
        if flow.stopped {
            ConsumerState::Stopped
        } else if let Some(why) = flow.failed.as_ref().or(flow.denied.values().next()) {
            ConsumerState::Failed(why.clone())
        } else if flow.paused {
            ConsumerState::Paused
        } else if flow.joined && *self.core.link.borrow() == Link::Up {
            match self.unkept.lasting() {
                Some(why) => ConsumerState::Failed(why),
                None => ConsumerState::Running,
            }
        } else {
            ConsumerState::Starting
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::messaging::kafka::assigned::tests::{partition, record};

    #[tokio::test]
    async fn what_may_not_be_read_is_told_until_a_message_of_it_comes() {
        let (assigned, _deliveries) = partition(Kind::Source);
        let member = &assigned.member;
        let why = || Some("not allowed".to_owned());
        assert!(member.set_denied(Role::Sources, why()));
        assert!(!member.set_denied(Role::Sources, why()), "it is known");
        // Whether it is in its group is another question.
        member.set_joined(true);
        member.set_failed(None);
        let denied = ConsumerState::Failed("not allowed".to_owned());
        assert_eq!(member.state(), denied);
        assert!(member.set_denied(Role::Retries, why()));
        member.offer(&assigned, 0, record(&assigned, 0));
        assert_eq!(member.state(), denied, "its retries may not be read");
        assert!(member.set_denied(Role::Retries, None));
        assert_eq!(member.state(), ConsumerState::Starting);
    }

    #[tokio::test]
    async fn whoever_waits_for_room_is_woken_when_there_is_plenty() {
        let (assigned, mut deliveries) = partition(Kind::Source);
        let member = &assigned.member;
        let mut offset = 0;
        while member.room() > Room::Scarce {
            let mut incoming = record(&assigned, offset);
            assert!(assigned.enter(offset, &mut incoming));
            member.offer(&assigned, offset, incoming);
            offset += 1;
        }
        assert_eq!(offset, i64::try_from(WAITING).unwrap());
        let reader = Arc::clone(member);
        let waiting = thread::spawn(move || {
            while reader.wake_with_room(thread::current()) {
                thread::park_timeout(Duration::from_secs(60));
            }
            reader.room()
        });
        member.pump();
        while !waiting.is_finished() {
            match deliveries.try_recv() {
                Ok(delivery) => drop(delivery.settlement.done().await),
                Err(_) => tokio::task::yield_now().await,
            }
        }
        assert_eq!(waiting.join().unwrap(), Room::Plenty);
        member.pause().await;
        assert_eq!(member.room(), Room::None);
    }
}
