//! How messages flow to consumers and back: connections, credit, deliveries, settlements.

use std::sync::Arc;

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::handling::Reason;
use crate::messaging::{Delivery, Settlement, Settler, Subscription, Ticket, TopologyMode};

use super::broker::{Link, Phase};
use super::events::EventKind;
use super::queue::{Entry, handed_out};
use super::state::State;
use super::topology::{grave_name, queue_name, queue_spec};

/// Bits of a tag that name the slot; a prefetch fits in them.
const SLOT_BITS: u32 = 16;

/// A consumer that was not stopped, or has messages out still.
pub(super) struct ConsumerEntry {
    /// Unique in the store; the place in the slab is used again.
    pub(super) id: u64,
    pub(super) link: Arc<Link>,
    pub(super) subscription: Arc<Subscription>,
    pub(super) settler: Arc<dyn Settler>,
    /// Gone when it was stopped.
    pub(super) sender: Option<Sender<Delivery>>,
    /// The queue, while it is connected.
    pub(super) queue: Option<usize>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    pub(super) paused: bool,
    /// How many may be out, where that is less than the prefetch.
    limit: Option<usize>,
    /// Waits for room in the channel.
    stalled: bool,
    stall: Option<AbortHandle>,
    /// Why it has no queue although it is connected.
    pub(super) failed: Option<String>,
}

struct Slot {
    tag: u64,
    entry: Option<Entry>,
}

impl ConsumerEntry {
    pub(super) fn new(
        id: u64,
        link: Arc<Link>,
        subscription: Arc<Subscription>,
        settler: Arc<dyn Settler>,
        sender: Sender<Delivery>,
    ) -> Self {
        Self {
            id,
            link,
            subscription,
            settler,
            sender: Some(sender),
            queue: None,
            slots: Vec::new(),
            free: Vec::new(),
            paused: false,
            limit: None,
            stalled: false,
            stall: None,
            failed: None,
        }
    }

    fn out(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn prefetch(&self) -> usize {
        usize::from(self.subscription.prefetch.max(1))
    }

    /// From now on so many more may be out at most; with `None` as many as the prefetch says.
    pub(super) fn limit(&mut self, most: Option<u16>) {
        let out = self.out();
        self.limit = most.map(|most| (out + usize::from(most)).clamp(1, self.prefetch()));
    }

    fn has_credit(&self) -> bool {
        let most = self.limit.unwrap_or(self.prefetch());
        !self.paused && !self.stalled && self.sender.is_some() && self.out() < most
    }

    fn put_out(&mut self, serial: u64, entry: Entry) -> u64 {
        let at = self.free.pop().unwrap_or(self.slots.len());
        let tag = serial << SLOT_BITS | at as u64;
        let slot = Slot {
            tag,
            entry: Some(entry),
        };
        if at == self.slots.len() {
            self.slots.push(slot);
        } else {
            self.slots[at] = slot;
        }
        tag
    }

    fn take_back(&mut self, tag: u64) -> Option<Entry> {
        let at = (tag & ((1 << SLOT_BITS) - 1)) as usize;
        let slot = self.slots.get_mut(at).filter(|slot| slot.tag == tag)?;
        let entry = slot.entry.take()?;
        self.free.push(at);
        Some(entry)
    }

    fn take_all(&mut self) -> Vec<Entry> {
        self.free.clear();
        let slots = self.slots.drain(..);
        slots.filter_map(|slot| slot.entry).collect()
    }
}

impl State {
    /// Hands out what can be handed out.
    pub(super) fn pump(&mut self, at: usize) {
        loop {
            self.expire_head(at);
            let Some(queue) = self.queues.get(at).filter(|queue| queue.ready() > 0) else {
                return;
            };
            let count = queue.consumers.len();
            // With order by key the first consumer has the queue to itself, until it leaves and
            // nothing of it is out.
            let asked = if queue.spec.ordered {
                count.min(1)
            } else {
                count
            };
            let first = if queue.spec.ordered { 0 } else { queue.turn };
            let turn = (0..asked).map(|step| (first + step) % count).find(|turn| {
                let consumer = self.consumers.get(queue.consumers[*turn]);
                consumer.is_some_and(ConsumerEntry::has_credit)
            });
            let Some(turn) = turn else { return };
            let consumer_at = queue.consumers[turn];
            if self.hand_out(at, consumer_at)
                && let Some(queue) = self.queues.get_mut(at)
            {
                queue.turn = (turn + 1) % count;
            }
        }
    }

    /// Hands the first message of a queue to a consumer that has credit.
    fn hand_out(&mut self, at: usize, consumer_at: usize) -> bool {
        let consumer = self.consumers.get_mut(consumer_at).expect("it was asked");
        // Taken out for a moment, which is cheaper than a clone.
        let sender = consumer.sender.take().expect("it has credit");
        let permit = match sender.try_reserve() {
            Ok(permit) => permit,
            Err(TrySendError::Full(())) => {
                consumer.sender = Some(sender.clone());
                self.stall(consumer_at, &sender);
                return false;
            }
            Err(TrySendError::Closed(())) => {
                self.stop_consumer(consumer_at);
                return false;
            }
        };
        let entry = self.take_first(at).expect("the queue has a message");
        let serial = self.serial();
        if self.script.duplicate() {
            let copy = Entry {
                message: Arc::clone(&entry.message),
                copy: serial,
                ..entry
            };
            self.enqueue(at, copy);
        }
        let queue = self.queues.get_mut(at).expect("the queue has a message");
        let consumer = self.consumers.get_mut(consumer_at).expect("it was asked");
        let link = &consumer.link;
        self.events.record(|| EventKind::Delivered {
            instance: Arc::clone(&link.instance),
            queue: Arc::clone(&queue.name),
            id: entry.message.id.clone(),
            attempt: entry.message.attempt,
            redelivered: entry.redelivered,
        });
        let incoming = handed_out(&entry.message, &link.name, &queue.name, entry.redelivered);
        let epoch = link.epoch();
        let tag = consumer.put_out(serial, entry);
        let settler = Arc::clone(&consumer.settler);
        queue.unsettled += 1;
        self.in_flight += 1;
        permit.send(Delivery::new(
            incoming,
            Settlement::new(settler, Ticket::new(epoch, tag)),
        ));
        let consumer = self.consumers.get_mut(consumer_at).expect("it was asked");
        consumer.sender = Some(sender);
        true
    }

    /// The engine's channel is full, although the prefetch is not used up: messages of an old
    /// connection are in it still. Goes on when there is room.
    fn stall(&mut self, consumer_at: usize, sender: &Sender<Delivery>) {
        let consumer = self.consumers.get_mut(consumer_at).expect("it was asked");
        consumer.stalled = true;
        self.stalled += 1;
        let (link, id, sender) = (Arc::clone(&consumer.link), consumer.id, sender.clone());
        let runtime = link.runtime().expect("its connection was made");
        let waiting = runtime.spawn(async move {
            // Room or the end of the channel: the pump finds out which.
            drop(sender.reserve().await);
            drop(sender);
            link.shared.with(|state| {
                let consumer = state.consumers.get_mut(consumer_at);
                let Some(consumer) = consumer.filter(|consumer| consumer.id == id) else {
                    return;
                };
                if std::mem::take(&mut consumer.stalled) {
                    let queue = consumer.queue;
                    state.stalled -= 1;
                    queue.into_iter().for_each(|queue| state.pump(queue));
                }
            });
        });
        consumer.stall = Some(waiting.abort_handle());
    }

    fn end_stall(&mut self, consumer_at: usize) {
        let Some(consumer) = self.consumers.get_mut(consumer_at) else {
            return;
        };
        if let Some(waiting) = consumer.stall.take() {
            waiting.abort();
        }
        if std::mem::take(&mut consumer.stalled) {
            self.stalled -= 1;
        }
    }

    /// Takes a message back from a consumer to settle it; the caller then calls
    /// [`settled`](Self::settled). `None` if the ticket is of a connection that is gone.
    pub(super) fn take_back(
        &mut self,
        consumer_at: usize,
        ticket: Ticket,
    ) -> Option<(usize, Entry)> {
        let consumer = self.consumers.get_mut(consumer_at)?;
        let entry = consumer.take_back(ticket.tag)?;
        let at = consumer.queue.expect("what is out came from a queue");
        self.in_flight -= 1;
        let queue = self.queues.get_mut(at).expect("consumers are of queues");
        queue.unsettled -= 1;
        Some((at, entry))
    }

    /// A consumer has credit again.
    pub(super) fn settled(&mut self, at: usize, consumer_at: usize) {
        let consumer = self.consumers.get(consumer_at);
        if consumer.is_some_and(|consumer| consumer.sender.is_none() && consumer.out() == 0) {
            self.remove_consumer(consumer_at);
        }
        self.pump(at);
    }

    /// Gives a message back to its queue, at its place.
    pub(super) fn put_back(&mut self, at: usize, mut entry: Entry) {
        entry.redelivered = true;
        self.enqueue(at, entry);
    }

    /// Pushes nothing to a consumer any more. It stays while messages of it are out.
    pub(super) fn stop_consumer(&mut self, consumer_at: usize) {
        self.end_stall(consumer_at);
        let Some(consumer) = self.consumers.get_mut(consumer_at) else {
            return;
        };
        consumer.sender = None;
        self.consumers_changed = true;
        if consumer.out() == 0 {
            let queue = consumer.queue;
            self.remove_consumer(consumer_at);
            queue.into_iter().for_each(|queue| self.pump(queue));
        }
    }

    fn remove_consumer(&mut self, consumer_at: usize) {
        let Some(consumer) = self.consumers.remove(consumer_at) else {
            return;
        };
        if let Some(queue) = consumer.queue.and_then(|at| self.queues.get_mut(at)) {
            leave(&mut queue.consumers, &mut queue.turn, consumer_at);
        }
    }

    /// Connects a consumer whose connection is up to its queue.
    pub(super) fn attach(&mut self, consumer_at: usize) {
        let Some(consumer) = self.consumers.get_mut(consumer_at) else {
            return;
        };
        if consumer.queue.is_some() || consumer.sender.is_none() {
            return;
        }
        let subscription = Arc::clone(&consumer.subscription);
        let link = Arc::clone(&consumer.link);
        let name = queue_name(link.prefix.as_deref(), &subscription);
        let finds = self.options.strict_topology && subscription.topology != TopologyMode::Apply;
        let queue = if finds && self.queue_called(&name).is_none() {
            Err(format!("queue `{name}` is missing"))
        } else {
            let spec = queue_spec(&subscription);
            let grave = grave_name(link.prefix.as_deref(), &spec);
            let (prefix, start) = (link.prefix.clone(), subscription.start);
            self.ensure_queue(name, &grave, prefix, spec, subscription.dead_letter, start)
        };
        self.consumers_changed = true;
        let consumer = self.consumers.get_mut(consumer_at).expect("it was there");
        match queue {
            Ok(at) => {
                consumer.failed = None;
                consumer.queue = Some(at);
                let queue = self.queues.get_mut(at).expect("it was found");
                queue.consumers.push(consumer_at);
                self.pump(at);
            }
            Err(why) => consumer.failed = Some(why),
        }
    }

    /// Tries again to connect the consumers that found no queue; one may have been made since.
    pub(super) fn attach_failed(&mut self) {
        let consumers = self.consumers.iter();
        let failed: Vec<_> = consumers
            .filter(|(_, consumer)| consumer.failed.is_some() && consumer.link.epoch() > 0)
            .map(|(at, _)| at)
            .collect();
        for at in failed {
            self.attach(at);
        }
    }

    /// The connections, of one instance or all.
    pub(super) fn connections_of(&self, instance: Option<&str>) -> Vec<usize> {
        let connections = self.connections.iter();
        connections
            .filter(|(_, connection)| {
                instance.is_none_or(|name| *connection.link.instance == *name)
            })
            .map(|(at, _)| at)
            .collect()
    }

    /// Makes the connections whose time has come, unless a fault refuses them.
    pub(super) fn connect_due(&mut self, now: Instant) {
        let refused = self.script.refuses_until();
        for at in self.connections_of(None) {
            let connection = self.connections.get_mut(at).expect("it was found");
            if connection.connect_at.is_none_or(|when| when > now) {
                continue;
            }
            connection.connect_at = refused;
            if refused.is_none() {
                self.connect(at);
            }
        }
    }

    fn connect(&mut self, at: usize) {
        let epoch = self.serial();
        let connection = self.connections.get_mut(at).expect("it is connecting");
        let link = Arc::clone(&connection.link);
        link.set(Phase::Up, epoch);
        self.reconnected = true;
        if connection.lost_before {
            link.reconnects.record(1.0);
        }
        self.events.record(|| EventKind::Connected {
            instance: Arc::clone(&link.instance),
            epoch,
        });
        for consumer_at in self.consumers_of(&link) {
            self.attach(consumer_at);
        }
        self.attach_failed();
    }

    /// A connection is lost; it is made again at `connect_at`.
    pub(super) fn lose_connection(&mut self, at: usize, connect_at: Instant) {
        let Some(connection) = self.connections.get_mut(at) else {
            return;
        };
        let link = Arc::clone(&connection.link);
        if link.phase() == Phase::New {
            return;
        }
        connection.connect_at = Some(connect_at);
        connection.lost_before = true;
        self.sooner = true;
        self.reconnected = true;
        let epoch = link.epoch();
        link.set(Phase::Connecting, 0);
        self.lose_replies(&link, epoch, false);
        self.detach(&link, false);
    }

    /// A connection ends for good, and with it the instance's own queues.
    pub(super) fn end_connection(&mut self, at: usize) {
        let Some(connection) = self.connections.remove(at) else {
            return;
        };
        let link = connection.link;
        let epoch = link.epoch();
        link.set(Phase::Ended, 0);
        self.sooner = true;
        self.reconnected = true;
        self.lose_replies(&link, epoch, true);
        self.detach(&link, true);
        let queues = self.queues.iter();
        let own: Vec<_> = queues
            .filter(|(_, queue)| queue.spec.instance.as_ref() == Some(&link.instance))
            .map(|(at, _)| at)
            .collect();
        for at in own {
            self.delete_queue(at);
        }
    }

    fn consumers_of(&self, link: &Arc<Link>) -> Vec<usize> {
        let consumers = self.consumers.iter();
        consumers
            .filter(|(_, consumer)| Arc::ptr_eq(&consumer.link, link))
            .map(|(at, _)| at)
            .collect()
    }

    /// Takes the consumers of a connection from their queues; what is out goes back.
    fn detach(&mut self, link: &Arc<Link>, for_good: bool) {
        let mut touched = Vec::new();
        let mut unsettled = 0;
        for consumer_at in self.consumers_of(link) {
            self.end_stall(consumer_at);
            let consumer = self.consumers.get_mut(consumer_at).expect("it was found");
            let entries = consumer.take_all();
            let gone = for_good || consumer.sender.is_none();
            let queue_at = consumer.queue.take();
            consumer.failed = None;
            if gone {
                self.consumers.remove(consumer_at);
            }
            let Some(at) = queue_at else { continue };
            let queue = self.queues.get_mut(at).expect("consumers are of queues");
            leave(&mut queue.consumers, &mut queue.turn, consumer_at);
            queue.unsettled -= entries.len();
            self.in_flight -= entries.len();
            unsettled += entries.len();
            for mut entry in entries {
                entry.losses += 1;
                if entry.losses > self.options.delivery_limit {
                    self.bury(at, &entry, Reason::DeliveryLimit);
                } else {
                    self.put_back(at, entry);
                }
            }
            touched.push(at);
        }
        self.events.record(|| EventKind::Disconnected {
            instance: Arc::clone(&link.instance),
            unsettled,
        });
        for at in touched {
            self.pump(at);
        }
    }
}

/// A consumer leaves a queue; the turn of the others stays.
fn leave(consumers: &mut Vec<usize>, turn: &mut usize, consumer_at: usize) {
    if let Some(place) = consumers.iter().position(|known| *known == consumer_at) {
        consumers.remove(place);
        if place < *turn {
            *turn -= 1;
        }
    }
    if *turn >= consumers.len() {
        *turn = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::leave;

    #[test]
    fn the_turn_stays_with_whose_it_is() {
        let (mut consumers, mut turn) = (vec![7, 8, 9], 1);
        leave(&mut consumers, &mut turn, 7);
        assert_eq!((consumers[turn], consumers.len()), (8, 2));
        leave(&mut consumers, &mut turn, 9);
        assert_eq!(consumers[turn], 8);
        leave(&mut consumers, &mut turn, 8);
        assert_eq!((consumers.len(), turn), (0, 0));
    }
}
