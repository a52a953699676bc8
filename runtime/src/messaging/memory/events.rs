//! What happened, in order: a bounded log from which a test can tell what led to what.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::message::MessageId;

/// One thing that happened in a [`MemoryStore`](super::MemoryStore).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// Its number, from 1, without gaps.
    pub number: u64,
    /// When, since the store was made.
    pub at: Duration,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EventKind {
    /// A process connected, or connected again.
    Connected {
        /// The instance.
        instance: Arc<str>,
        /// The epoch of the connection.
        epoch: u64,
    },
    /// A message was moved to the dead letters by the broker itself.
    DeadLettered {
        /// The queue.
        queue: Arc<str>,
        /// The message.
        id: MessageId,
        /// Why: `expired` or `delivery_limit`.
        reason: &'static str,
    },
    /// A message was handed out.
    Delivered {
        /// The instance that got it.
        instance: Arc<str>,
        /// The queue.
        queue: Arc<str>,
        /// The message.
        id: MessageId,
        /// Which attempt it is.
        attempt: u32,
        /// Whether it was handed out before.
        redelivered: bool,
    },
    /// A connection ended.
    Disconnected {
        /// The instance.
        instance: Arc<str>,
        /// How many messages were out and go back to their queues.
        unsettled: usize,
    },
    /// Somebody said something about a message; see [`MemoryStore::note`](super::MemoryStore::note).
    Noted {
        /// The message.
        id: MessageId,
        /// What.
        text: String,
    },
    /// A message was published.
    Published {
        /// The instance that sent it.
        instance: Arc<str>,
        /// The topic.
        topic: Arc<str>,
        /// The message.
        id: MessageId,
        /// The message that was being handled when it was sent.
        cause: Option<MessageId>,
        /// How many queues it went to.
        queues: usize,
        /// Whether the sender was told that it is published.
        confirmed: bool,
    },
    /// A publish was refused.
    Refused {
        /// The instance that sent it.
        instance: Arc<str>,
        /// The topic.
        topic: Arc<str>,
        /// The message.
        id: MessageId,
        /// Why: `nacked` or `unroutable`.
        reason: &'static str,
    },
    /// A reply was sent.
    Replied {
        /// The instance that sent it.
        instance: Arc<str>,
        /// The reply.
        id: MessageId,
        /// The id of the request, if the reply names it.
        request: Option<Arc<str>>,
        /// Whether the one who asked still listens.
        heard: bool,
    },
    /// A retry's time has come: the message is in its queue again.
    Returned {
        /// The queue.
        queue: Arc<str>,
        /// The message.
        id: MessageId,
    },
    /// A message was taken in to be published later.
    Scheduled {
        /// The instance that sent it.
        instance: Arc<str>,
        /// The topic.
        topic: Arc<str>,
        /// The message.
        id: MessageId,
        /// How much later.
        wait: Duration,
    },
    /// Something happened beside the broker.
    Remarked {
        /// What.
        text: String,
    },
    /// A message was settled.
    Settled {
        /// The queue.
        queue: Arc<str>,
        /// The message.
        id: MessageId,
        /// How.
        how: Ending,
    },
    /// A settlement came too late: its connection is gone.
    Stale {
        /// The instance.
        instance: Arc<str>,
    },
}

/// How a message was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// Moved to the dead letters.
    DeadLettered,
    /// Handled.
    Done,
    /// Given up with nothing kept.
    Dropped,
    /// Given back.
    Released,
    /// To be handed out again after this time.
    Retried(Duration),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3}s  ", self.at.as_secs_f64())?;
        match &self.kind {
            EventKind::Connected { instance, epoch } => {
                write!(f, "{instance} connected (epoch {epoch})")
            }
            EventKind::DeadLettered { queue, id, reason } => {
                write!(f, "{id} dead-lettered by {queue}: {reason}")
            }
            EventKind::Delivered {
                instance,
                queue,
                id,
                attempt,
                redelivered,
            } => {
                let again = if *redelivered { ", redelivered" } else { "" };
                write!(f, "{id} {queue} -> {instance} (attempt {attempt}{again})")
            }
            EventKind::Disconnected {
                instance,
                unsettled,
            } => write!(f, "{instance} disconnected, {unsettled} not settled"),
            EventKind::Noted { id, text } => write!(f, "{id} {text}"),
            EventKind::Published {
                instance,
                topic,
                id,
                cause,
                queues,
                confirmed,
            } => {
                write!(f, "{id} {instance} -> {topic} ({queues} queues")?;
                if let Some(cause) = cause {
                    write!(f, ", because of {cause}")?;
                }
                f.write_str(if *confirmed {
                    ")"
                } else {
                    ", confirmation lost)"
                })
            }
            EventKind::Refused {
                instance,
                topic,
                id,
                reason,
            } => write!(f, "{id} {instance} -> {topic} refused: {reason}"),
            EventKind::Replied {
                instance,
                id,
                request,
                heard,
            } => {
                let request = request.as_deref().unwrap_or("an unnamed request");
                let unheard = if *heard {
                    ""
                } else {
                    ", nobody listens any more"
                };
                write!(f, "{id} {instance} replies to {request}{unheard}")
            }
            EventKind::Returned { queue, id } => write!(f, "{id} back in {queue}"),
            EventKind::Scheduled {
                instance,
                topic,
                id,
                wait,
            } => write!(f, "{id} {instance} -> {topic} in {wait:?}"),
            EventKind::Remarked { text } => f.write_str(text),
            EventKind::Settled { queue, id, how } => match how {
                Ending::DeadLettered => write!(f, "{id} dead-lettered in {queue}"),
                Ending::Done => write!(f, "{id} done in {queue}"),
                Ending::Dropped => write!(f, "{id} dropped in {queue}"),
                Ending::Released => write!(f, "{id} released in {queue}"),
                Ending::Retried(after) => {
                    write!(f, "{id} to be retried in {queue} after {after:?}")
                }
            },
            EventKind::Stale { instance } => {
                write!(f, "a settlement of {instance} came too late")
            }
        }
    }
}

/// The last events; keeps nothing with a capacity of 0.
#[derive(Debug)]
pub(super) struct EventLog {
    events: VecDeque<Event>,
    capacity: usize,
    number: u64,
    start: Instant,
}

impl EventLog {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            events: VecDeque::new(),
            capacity,
            number: 0,
            start: Instant::now(),
        }
    }

    /// Adds what `kind` tells; with no capacity it is not even asked.
    #[inline]
    pub(super) fn record(&mut self, kind: impl FnOnce() -> EventKind) {
        if self.capacity > 0 {
            self.keep(kind());
        }
    }

    fn keep(&mut self, kind: EventKind) {
        if self.events.len() == self.capacity {
            self.events.pop_front();
        }
        self.number += 1;
        self.events.push_back(Event {
            number: self.number,
            at: self.start.elapsed(),
            kind,
        });
    }

    pub(super) fn to_vec(&self) -> Vec<Event> {
        self.events.iter().cloned().collect()
    }
}
