//! Between the connection, which must not wait, and the engine: a queue of bounded length that drops
//! what does not fit, and counts it.

use std::collections::VecDeque;
use std::sync::Mutex;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use crate::observability::metrics::Series;

use super::super::core::lock;
use super::settings::Overflow;

/// What a channel carried.
pub(in super::super) struct Arrived {
    pub(in super::super) channel: Vec<u8>,
    pub(in super::super) message: Vec<u8>,
}

impl Arrived {
    /// What the server sent unasked, if it is a message.
    pub(in super::super) fn of(push: PushInfo) -> Option<Self> {
        let mut data = push.data.into_iter();
        match push.kind {
            PushKind::Message => {}
            // The pattern comes first.
            PushKind::PMessage => drop(data.next()),
            _ => return None,
        }
        let mut bytes = || match data.next() {
            Some(Value::BulkString(bytes)) => Some(bytes),
            Some(Value::SimpleString(text)) => Some(text.into_bytes()),
            _ => None,
        };
        Some(Self {
            channel: bytes()?,
            message: bytes()?,
        })
    }
}

pub(in super::super) struct Handoff {
    length: usize,
    overflow: Overflow,
    queue: Mutex<Queue>,
    arrived: Notify,
    dropped: Series,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arrived>,
    /// Nobody takes anything any more.
    closed: bool,
}

impl Handoff {
    pub(in super::super) fn new(length: usize, overflow: Overflow, dropped: Series) -> Self {
        Self {
            length,
            overflow,
            queue: Mutex::default(),
            arrived: Notify::new(),
            dropped,
        }
    }

    /// Takes one; never waits.
    pub(in super::super) fn offer(&self, arrived: Arrived) {
        let mut queue = lock(&self.queue);
        let full = queue.waiting.len() >= self.length;
        if queue.closed || full {
            self.dropped.record(1.0);
            if queue.closed || self.overflow == Overflow::Newest {
                return;
            }
            queue.waiting.pop_front();
        }
        queue.waiting.push_back(arrived);
        drop(queue);
        self.arrived.notify_one();
    }

    /// The oldest, as soon as there is one. For one caller at a time.
    pub(in super::super) async fn next(&self) -> Arrived {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.until_some().await;
        }
    }

    /// The oldest.
    pub(super) fn take(&self) -> Option<Arrived> {
        lock(&self.queue).waiting.pop_front()
    }

    /// Waits until there is one. For one caller at a time.
    pub(super) async fn until_some(&self) {
        while lock(&self.queue).waiting.is_empty() {
            self.arrived.notified().await;
        }
    }

    /// Nobody takes anything any more: what is there and what still comes is dropped.
    pub(super) fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        let left = std::mem::take(&mut queue.waiting).len();
        drop(queue);
        if left > 0 {
            self.dropped
                .record(u32::try_from(left).map_or(f64::MAX, f64::from));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::observability::metrics::{DROPPED, InMemoryMetrics};

    fn filled(overflow: Overflow) -> (Handoff, InMemoryMetrics) {
        let metrics = InMemoryMetrics::default();
        let labels = vec![Arc::from("main"), Arc::from("g.t")];
        let dropped = Series::of(Some(&metrics), DROPPED, labels);
        let handoff = Handoff::new(3, overflow, dropped);
        for number in 0..5 {
            handoff.offer(Arrived {
                channel: Vec::new(),
                message: vec![number],
            });
        }
        (handoff, metrics)
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_as_declared_and_counted() {
        for (overflow, kept) in [(Overflow::Oldest, [2, 3, 4]), (Overflow::Newest, [0, 1, 2])] {
            let (handoff, metrics) = filled(overflow);
            for number in kept {
                assert_eq!(handoff.next().await.message, [number], "{overflow:?}");
            }
            assert_eq!(metrics.sum(DROPPED, &[]), 2.0);
        }
    }

    #[tokio::test]
    async fn what_nobody_takes_is_counted_when_it_closes_and_after() {
        let (handoff, metrics) = filled(Overflow::Oldest);
        handoff.close();
        assert_eq!(metrics.sum(DROPPED, &[]), 5.0);
        handoff.offer(Arrived {
            channel: Vec::new(),
            message: vec![5],
        });
        assert_eq!(metrics.sum(DROPPED, &[]), 6.0);
        assert!(handoff.take().is_none());
    }
}
