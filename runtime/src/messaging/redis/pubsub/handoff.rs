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
    queue: Mutex<VecDeque<Arrived>>,
    arrived: Notify,
    dropped: Series,
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
        if queue.len() >= self.length {
            self.dropped.record(1.0);
            match self.overflow {
                Overflow::Newest => return,
                Overflow::Oldest => queue.pop_front(),
            };
        }
        queue.push_back(arrived);
        drop(queue);
        self.arrived.notify_one();
    }

    /// The oldest, as soon as there is one. For one caller at a time.
    pub(in super::super) async fn next(&self) -> Arrived {
        loop {
            if let Some(next) = lock(&self.queue).pop_front() {
                return next;
            }
            self.arrived.notified().await;
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
}
