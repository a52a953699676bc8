//! What one look at the consumer gave: turned into messages of ours with about one allocation for all
//! bodies.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rdkafka::message::{BorrowedMessage, Message};

use crate::message::headers::name;
use crate::message::{HeaderValue, Incoming, Origin, Place};

use super::assigned::{Assigned, Kind};
use super::core::lock;
use super::group::{Client, Group};
use super::headers;
use super::parked::Parked;

/// A body of this size gets memory of its own: a small one beside it should not keep it.
const LARGE: usize = 64 << 10;

pub(super) struct Batch<'a> {
    group: &'a Arc<Group>,
    messages: Vec<(Arc<Assigned>, BorrowedMessage<'a>)>,
    max: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn new(group: &'a Arc<Group>, max: usize) -> Self {
        Self {
            group,
            messages: Vec::new(),
            max,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.messages.len() >= self.max
    }

    /// Takes a message for the assignment that its partition has now.
    pub(super) fn push(&mut self, message: BorrowedMessage<'a>) {
        let is_of = |assigned: &Arc<Assigned>| {
            assigned.partition == message.partition()
                && *assigned.topic == *message.topic()
                && assigned.is_live()
        };
        let last = self.messages.last().map(|(assigned, _)| assigned);
        let found = match last.filter(|assigned| is_of(assigned)) {
            Some(assigned) => Some(Arc::clone(assigned)),
            None => lock(&self.group.assigned)
                .iter()
                .find(|assigned| is_of(assigned))
                .cloned(),
        };
        // One of a partition that was just taken away comes again to its next owner.
        if let Some(assigned) = found {
            self.messages.push((assigned, message));
        }
    }

    /// Hands everything to its subscription, or parks it until it is due.
    pub(super) fn hand_over(self, client: &Client, parked: &mut Parked) {
        if self.messages.is_empty() {
            return;
        }
        let small = |message: &BorrowedMessage<'_>| message.payload_len() < LARGE;
        let size = self
            .messages
            .iter()
            .filter(|(_, message)| small(message))
            .map(|(_, message)| message.payload_len())
            .sum();
        let mut arena = BytesMut::with_capacity(size);
        let now = self.group.core.context.clock.unix_millis();
        let mut told: Vec<Arc<Assigned>> = Vec::new();
        for (assigned, message) in self.messages {
            let body = match message.payload() {
                None | Some([]) => Bytes::new(),
                Some(payload) if payload.len() >= LARGE => Bytes::copy_from_slice(payload),
                Some(payload) => {
                    arena.extend_from_slice(payload);
                    arena.split().freeze()
                }
            };
            let offset = message.offset();
            let Some(assigned) = current(self.group, assigned, offset) else {
                continue;
            };
            let mut incoming = read(&assigned, &message, body);
            if assigned.kind == Kind::Ignored {
                continue;
            }
            if !assigned.enter(offset, &mut incoming) {
                continue;
            }
            if let Some(wait) = not_due(assigned.kind, &message, now) {
                parked.take(client, &assigned, wait, offset, incoming);
                continue;
            }
            if parked.holds(&assigned) {
                parked.take(client, &assigned, Duration::ZERO, offset, incoming);
                continue;
            }
            assigned.member.offer(&assigned, offset, incoming);
            if !told
                .iter()
                .any(|one| Arc::ptr_eq(&one.member, &assigned.member))
            {
                told.push(assigned);
            }
        }
        for assigned in told {
            assigned.member.pump();
        }
    }
}

/// The assignment that an offset belongs to. One that goes back means that the topic was made anew
/// under the same name, or that somebody sought: what was out before belongs to nobody any more.
fn current(group: &Arc<Group>, assigned: Arc<Assigned>, offset: i64) -> Option<Arc<Assigned>> {
    if !assigned.is_live() {
        return None;
    }
    if !lock(&assigned.ledger).is_beyond(offset) {
        return Some(assigned);
    }
    Some(group.replace(&assigned))
}

/// How long a retry still has to wait.
fn not_due(kind: Kind, message: &BorrowedMessage<'_>, now: u64) -> Option<Duration> {
    let Kind::Retry(rung) = kind else {
        return None;
    };
    let sent = u64::try_from(message.timestamp().to_millis()?).ok()?;
    // A part of a millisecond counts as a whole one: a retry is never early.
    let due = sent + 1 + u64::try_from(rung.as_millis()).unwrap_or(u64::MAX / 2);
    // A clock that runs ahead elsewhere must not hold a message for longer than its rung.
    let left = Duration::from_millis(due.saturating_sub(now)).min(rung);
    (!left.is_zero()).then_some(left)
}

fn read(assigned: &Assigned, message: &BorrowedMessage<'_>, body: Bytes) -> Incoming {
    let mut headers = headers::read(message.headers());
    let mut key = None;
    if let Some(raw) = message.key() {
        match std::str::from_utf8(raw) {
            Ok(text) => key = Some(Arc::from(text)),
            Err(_) => {
                // Its copies go to the same partition; its text only tells it from others.
                key = Some(String::from_utf8_lossy(raw).as_ref().into());
                let raw = Bytes::copy_from_slice(raw);
                headers.set(name::MESSAGE_KEY, HeaderValue::Bytes(raw));
            }
        }
    }
    let place = Place::Kafka {
        topic: Arc::clone(&assigned.topic),
        partition: assigned.partition,
        offset: message.offset(),
    };
    let origin = Origin::new(Arc::clone(&assigned.member.core.context.name), place);
    let topic = assigned.shown(&headers);
    let mut incoming = Incoming::new(topic, body, headers, origin);
    if key.is_some() {
        incoming.key = key;
    }
    incoming
}
