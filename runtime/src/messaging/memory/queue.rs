//! The queue of one subscription: what is ready, in order, and who takes it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use crate::message::{Headers, Incoming, Origin, Place, TopicPattern, headers::name};

/// The attempt that the headers tell, as [`Incoming::new`] reads it.
pub(super) fn attempt_in(headers: &Headers) -> u32 {
    headers
        .get(name::ATTEMPT)
        .and_then(|value| u32::try_from(value.to_u64()?).ok())
        .unwrap_or(1)
        .max(1)
}

/// The position in the order of publishing, kept by retries and dead letters.
pub(super) fn offset(message: &Incoming) -> u64 {
    match message.origin.place {
        Place::Memory { offset, .. } => offset,
        _ => 0,
    }
}

/// The place of a message in the queue of `broker` called `queue`.
pub(super) fn origin(broker: &Arc<str>, queue: &Arc<str>, offset: u64) -> Origin {
    let queue = Arc::clone(queue);
    Origin::new(Arc::clone(broker), Place::Memory { queue, offset })
}

/// The same message with other headers.
pub(super) fn with_headers(message: &Incoming, headers: Headers) -> Incoming {
    Incoming {
        attempt: attempt_in(&headers),
        headers,
        ..message.clone()
    }
}

/// The message as it is read from `queue` of `broker`.
pub(super) fn read_from(
    message: &Incoming,
    broker: &Arc<str>,
    queue: &Arc<str>,
    redelivered: bool,
) -> Incoming {
    Incoming {
        origin: origin(broker, queue, offset(message)),
        redelivered,
        ..message.clone()
    }
}

/// The same, shared where it is kept as just that: the first time that it is handed out, and in the
/// first of its queues.
pub(super) fn handed_out(
    message: &Arc<Incoming>,
    broker: &Arc<str>,
    queue: &Arc<str>,
    redelivered: bool,
) -> Arc<Incoming> {
    let same = |one: &Arc<str>, other| Arc::ptr_eq(one, other) || one == other;
    let Origin {
        broker: kept,
        place,
    } = &message.origin;
    match place {
        Place::Memory { queue: at, .. }
            if !redelivered && same(kept, broker) && same(at, queue) =>
        {
            Arc::clone(message)
        }
        _ => Arc::new(read_from(message, broker, queue, redelivered)),
    }
}

/// When something is due: the time, and a number that makes it unique and keeps the order.
pub(super) type Due = (Instant, u64);

/// One message in one queue.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) message: Arc<Incoming>,
    /// Its place in the queue; kept when it is given back.
    pub(super) position: u64,
    /// Tells copies at one position apart.
    pub(super) copy: u64,
    pub(super) priority: u8,
    pub(super) redelivered: bool,
    /// How often it was handed out and lost with its connection.
    pub(super) losses: u32,
    /// When it outlives its time to live.
    pub(super) expires: Option<Instant>,
    /// The timer of that, while the message is ready.
    pub(super) expiry: Option<Due>,
}

/// Higher priority first, then by position.
type Rank = (u8, u64, u64);

impl Entry {
    fn rank(&self) -> Rank {
        (u8::MAX - self.priority, self.position, self.copy)
    }
}

/// What a queue is, as its subscription says it: a redeploy must not change it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct QueueSpec {
    pub(super) pattern: TopicPattern,
    pub(super) group: Arc<str>,
    /// One consumer at a time, so that order by key holds across instances.
    pub(super) ordered: bool,
    /// The instance with which it goes.
    pub(super) instance: Option<Arc<str>>,
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: Arc<str>,
    pub(super) spec: QueueSpec,
    /// The prefix of names in which it listens.
    pub(super) prefix: Option<Arc<str>>,
    /// Whether what is given up is kept.
    pub(super) dead_letter: bool,
    /// Messages of no priority in order of arrival: the common case costs no search.
    fresh: VecDeque<Entry>,
    /// Everything else: given back, with a priority, held before.
    special: BTreeMap<Rank, Entry>,
    /// Handed out and not settled.
    pub(super) unsettled: usize,
    /// Waiting for a retry, or held by a fault.
    pub(super) waiting: usize,
    /// Ready messages with a time to live.
    pub(super) expiring: usize,
    /// Its dead letters, among those of the store.
    pub(super) grave: usize,
    /// The consumers that are connected, in order of arrival.
    pub(super) consumers: Vec<usize>,
    /// Whose turn it is.
    pub(super) turn: usize,
    position_next: u64,
}

impl Queue {
    pub(super) fn new(
        name: Arc<str>,
        prefix: Option<Arc<str>>,
        spec: QueueSpec,
        dead_letter: bool,
        grave: usize,
    ) -> Self {
        Self {
            name,
            spec,
            prefix,
            dead_letter,
            fresh: VecDeque::new(),
            special: BTreeMap::new(),
            unsettled: 0,
            waiting: 0,
            expiring: 0,
            grave,
            consumers: Vec::new(),
            turn: 0,
            position_next: 0,
        }
    }

    pub(super) fn ready(&self) -> usize {
        self.fresh.len() + self.special.len()
    }

    /// Everything that it holds beside its dead letters, in whichever state.
    pub(super) fn depth(&self) -> usize {
        self.ready() + self.unsettled + self.waiting
    }

    /// The next free position, at the end.
    pub(super) fn position(&mut self) -> u64 {
        self.position_next += 1;
        self.position_next
    }

    pub(super) fn push(&mut self, entry: Entry) {
        if entry.expires.is_some() {
            self.expiring += 1;
        }
        let in_order = self
            .fresh
            .back()
            .is_none_or(|last| last.rank() < entry.rank());
        if entry.priority == 0 && in_order {
            self.fresh.push_back(entry);
        } else {
            self.special.insert(entry.rank(), entry);
        }
    }

    /// The message that is handed out next.
    pub(super) fn first(&self) -> Option<&Entry> {
        match (self.fresh.front(), self.special.first_key_value()) {
            (Some(fresh), Some((rank, special))) => {
                Some(if fresh.rank() < *rank { fresh } else { special })
            }
            (Some(fresh), None) => Some(fresh),
            (None, special) => special.map(|(_, special)| special),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        let fresh = match (self.fresh.front(), self.special.first_key_value()) {
            (Some(fresh), Some((rank, _))) => fresh.rank() < *rank,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let entry = if fresh {
            self.fresh.pop_front()
        } else {
            self.special.pop_first().map(|(_, entry)| entry)
        }?;
        if entry.expires.is_some() {
            self.expiring -= 1;
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn entry(position: u64, priority: u8, redelivered: bool) -> Entry {
        Entry {
            message: Arc::new(Incoming::new(
                "t".into(),
                Bytes::new(),
                Headers::new(),
                origin(&"main".into(), &"g.t".into(), 0),
            )),
            position,
            copy: 0,
            priority,
            redelivered,
            losses: 0,
            expires: None,
            expiry: None,
        }
    }

    #[test]
    fn higher_priority_comes_first_and_what_is_given_back_keeps_its_place() {
        let spec = QueueSpec {
            pattern: TopicPattern::new("t"),
            group: "g".into(),
            ordered: false,
            instance: None,
        };
        let mut queue = Queue::new("g.t".into(), None, spec, true, 0);
        for (position, priority, redelivered) in [
            (3, 0, false),
            (4, 0, false),
            (5, 9, false),
            (2, 0, true),
            (1, 0, false),
        ] {
            queue.push(entry(position, priority, redelivered));
        }
        assert_eq!(queue.ready(), 5);
        let mut order = Vec::new();
        while let Some(first) = queue.first().map(|first| first.position) {
            let popped = queue.pop().expect("there is a first one");
            assert_eq!(popped.position, first);
            order.push(first);
        }
        assert_eq!(order, [5, 1, 2, 3, 4]);
    }
}
