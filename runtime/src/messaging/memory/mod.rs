//! The embedded broker: the contract of [`MessageBroker`] in this process, with
//! nothing to install and faults to inject. Nothing in it outlives the process.
//!
//! What stays when an app dies is the [`MemoryStore`]; a [`MemoryBroker`] is one app's connection to
//! it. Time is tokio's, so a test that pauses it sees the same run for the same seed.
//!
//! Where brokers differ, it does this: messages are handed out in the order in which they were
//! published, those of a higher priority first; what comes back untouched comes back at its place; a
//! retry comes back as the last one. A message is handed out whole or not at all to each subscription
//! that it is for. With order by key, one consumer has the queue to itself until it has left and
//! nothing of it is out. A time to live ends at the head of the queue, and not while a message is out
//! or waits for a retry. A scheduled message that finds no subscription, or a full queue, when it is due is
//! dropped. A queue's own dead letters and retries count towards its bound, so that
//! there is always room to give up or to retry.

use std::sync::Arc;

use crate::config::{Faults, Section};

use super::port::{BrokerContext, MessageBroker};

mod broker;
mod consumer;
mod dead_letters;
mod events;
mod faults;
mod flow;
mod queue;
mod replies;
mod schedule;
mod settings;
mod slab;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod topology;

pub use broker::MemoryBroker;
pub use events::{Ending, Event, EventKind};
pub use faults::MemoryFaults;
pub use settings::MemoryOptions;
pub use store::{Activity, MemoryStore, QueueReport};

/// Makes the embedded broker of an app, with a store of its own, from its section of the
/// configuration. What is wrong in the section is among the faults; defaults stand in for it.
pub fn connect(
    context: &BrokerContext,
    section: &Section<'_>,
    faults: &mut Faults,
) -> Option<Arc<dyn MessageBroker>> {
    let store = MemoryStore::new(MemoryOptions::read(section, faults));
    Some(Arc::new(MemoryBroker::new(&store, context)))
}
