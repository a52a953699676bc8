//! A running consumer, and how its deliveries are settled.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use crate::handling::BoxFuture;
use crate::message::{Headers, Incoming};
use crate::messaging::{BrokerError, Consumer, ConsumerState, Settled, Settler, Ticket};
use crate::observability::metrics::{STALE_SETTLEMENTS, Series};

use super::broker::{Link, Phase};
use super::events::{Ending, EventKind};
use super::flow::ConsumerEntry;
use super::queue::{Entry, with_headers};
use super::state::State;

/// Settles the deliveries of one consumer.
pub(super) struct MemorySettler {
    link: Arc<Link>,
    at: usize,
    stale: Series,
}

impl MemorySettler {
    pub(super) fn new(link: Arc<Link>, at: usize, label: Arc<str>) -> Self {
        let labels = vec![Arc::clone(&link.name), label];
        let stale = Series::of(link.metrics.as_deref(), STALE_SETTLEMENTS, labels);
        Self { link, at, stale }
    }

    /// Takes the delivery back and does with it what `how` does.
    fn settle(
        &self,
        ticket: Ticket,
        how: impl FnOnce(&mut State, usize, Entry) -> Ending,
    ) -> Settled {
        let settled = self.link.shared.with(|state| {
            let Some((queue, entry)) = state.take_back(self.at, ticket) else {
                state.events.record(|| EventKind::Stale {
                    instance: Arc::clone(&self.link.instance),
                });
                return Settled::Stale;
            };
            let message = Arc::clone(&entry.message);
            let ending = how(state, queue, entry);
            if let Some(queue) = state.queues.get(queue) {
                state.events.record(|| EventKind::Settled {
                    queue: Arc::clone(&queue.name),
                    id: message.id.clone(),
                    how: ending,
                });
            }
            state.settled(queue, self.at);
            Settled::Yes
        });
        if settled == Settled::Stale {
            self.stale.record(1.0);
        }
        settled
    }
}

/// What has happened already, for a port that may have to wait.
fn at_once(settled: Settled) -> BoxFuture<'static, Result<Settled, BrokerError>> {
    Box::pin(ready(Ok(settled)))
}

/// The copy of a message that goes on with other headers. Everything else is what the engine hands
/// over, as it is on a broker where the copy has to be published.
fn copy(message: &Incoming, entry: &Entry, headers: Headers) -> Arc<Incoming> {
    Arc::new(Incoming {
        origin: entry.message.origin.clone(),
        redelivered: false,
        ..with_headers(message, headers)
    })
}

impl Settler for MemorySettler {
    fn done(&self, ticket: Ticket) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        at_once(self.settle(ticket, |_, _, _| Ending::Done))
    }

    fn done_at_once(&self, ticket: Ticket) -> Option<Settled> {
        Some(self.settle(ticket, |_, _, _| Ending::Done))
    }

    fn retry(
        &self,
        ticket: Ticket,
        message: Arc<Incoming>,
        after: Duration,
        headers: Headers,
    ) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        at_once(self.settle(ticket, |state, queue, entry| {
            state.wait(queue, copy(&message, &entry, headers), after);
            Ending::Retried(after)
        }))
    }

    fn dead_letter(
        &self,
        ticket: Ticket,
        message: Arc<Incoming>,
        headers: Headers,
    ) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        at_once(self.settle(ticket, |state, at, entry| {
            let serial = state.serial();
            let queue = state.queues.get_mut(at).expect("it came from the queue");
            if !queue.dead_letter {
                return Ending::Dropped;
            }
            let (grave, dead) = (queue.grave, copy(&message, &entry, headers));
            state.graves[grave].insert(serial, dead);
            Ending::DeadLettered
        }))
    }

    fn release(&self, ticket: Ticket) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        at_once(self.settle(ticket, |state, queue, entry| {
            state.put_back(queue, entry);
            Ending::Released
        }))
    }

    fn is_current(&self, epoch: u64) -> bool {
        self.link.epoch() == epoch
    }
}

/// A consumer as the engine holds it.
pub(super) struct MemoryConsumer {
    link: Arc<Link>,
    at: usize,
    id: u64,
}

impl MemoryConsumer {
    pub(super) fn new(link: Arc<Link>, at: usize, id: u64) -> Self {
        Self { link, at, id }
    }

    /// Does `work` with the consumer's entry, unless it has ended.
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> Option<T> {
        self.link.shared.with(|state| {
            self.entry(state)?;
            Some(work(state))
        })
    }

    fn entry<'a>(&self, state: &'a mut State) -> Option<&'a mut ConsumerEntry> {
        let entry = state.consumers.get_mut(self.at)?;
        (entry.id == self.id).then_some(entry)
    }

    fn set_paused(&self, paused: bool, most: Option<u16>) -> BoxFuture<'_, ()> {
        self.with(|state| {
            let entry = self.entry(state)?;
            entry.paused = paused;
            entry.limit(most);
            let queue = entry.queue;
            state.consumers_changed = true;
            let queue = queue?;
            state.pump(queue);
            Some(())
        });
        Box::pin(ready(()))
    }
}

impl Consumer for MemoryConsumer {
    fn pause(&self) -> BoxFuture<'_, ()> {
        self.set_paused(true, None)
    }

    fn resume(&self) -> BoxFuture<'_, ()> {
        self.set_paused(false, None)
    }

    fn trickle(&self, most: u16) -> BoxFuture<'_, ()> {
        self.set_paused(false, Some(most))
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        self.with(|state| state.stop_consumer(self.at));
        Box::pin(ready(()))
    }

    fn state(&self) -> ConsumerState {
        let state = self.with(|state| {
            let entry = self.entry(state)?;
            Some(match (&entry.failed, entry.queue) {
                _ if entry.sender.is_none() => ConsumerState::Stopped,
                (Some(why), _) => ConsumerState::Failed(why.clone()),
                _ if self.link.phase() == Phase::Ended => ConsumerState::Stopped,
                (None, None) => ConsumerState::Starting,
                (None, Some(_)) if entry.paused => ConsumerState::Paused,
                (None, Some(_)) => ConsumerState::Running,
            })
        });
        state.flatten().unwrap_or(ConsumerState::Stopped)
    }

    fn changed(&self, known: ConsumerState) -> BoxFuture<'_, ConsumerState> {
        Box::pin(async move {
            loop {
                let changed = self.link.shared.consumers.notified();
                let now = self.state();
                if now != known {
                    return now;
                }
                changed.await;
            }
        })
    }
}
