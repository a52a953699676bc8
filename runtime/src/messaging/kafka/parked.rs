//! Retries whose time has not come: their partition is paused until then. Every message of a partition
//! waits equally long, so the first one is due first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::message::Incoming;

use super::assigned::Assigned;
use super::group::{Client, pause};

#[derive(Default)]
pub(super) struct Parked(Vec<Place>);

struct Place {
    assigned: Arc<Assigned>,
    waiting: VecDeque<(Instant, i64, Incoming)>,
}

impl Parked {
    /// Whether messages of a partition wait here.
    pub(super) fn holds(&self, assigned: &Arc<Assigned>) -> bool {
        self.0
            .iter()
            .any(|place| Arc::ptr_eq(&place.assigned, assigned))
    }

    /// Takes a message that is due in `wait`.
    pub(super) fn take(
        &mut self,
        client: &Client,
        assigned: &Arc<Assigned>,
        wait: Duration,
        offset: i64,
        incoming: Incoming,
    ) {
        let due = Instant::now() + wait;
        let found = self
            .0
            .iter_mut()
            .find(|place| Arc::ptr_eq(&place.assigned, assigned));
        match found {
            Some(place) => place.waiting.push_back((due, offset, incoming)),
            None => {
                pause(client, assigned, true);
                self.0.push(Place {
                    assigned: Arc::clone(assigned),
                    waiting: [(due, offset, incoming)].into(),
                });
            }
        }
    }

    /// Hands on what is due.
    pub(super) fn release(&mut self, client: &Client) {
        let now = Instant::now();
        for place in &mut self.0 {
            let mut any = false;
            while place.waiting.front().is_some_and(|(due, ..)| *due <= now) {
                if let Some((_, offset, incoming)) = place.waiting.pop_front() {
                    place
                        .assigned
                        .member
                        .offer(&place.assigned, offset, incoming);
                    any = true;
                }
            }
            if any {
                place.assigned.member.pump();
            }
        }
        self.resume_idle(client, |_| false);
    }

    /// Reads on in partitions of which nothing waits any more, unless they are `full`.
    pub(super) fn resume_idle(&mut self, client: &Client, full: impl Fn(u64) -> bool) {
        // One that began anew under the same name is still paused for the old one's sake.
        let is_same = |one: &Assigned, other: &Assigned| {
            one.topic == other.topic && one.partition == other.partition
        };
        for place in self.0.iter().filter(|place| !place.assigned.is_live()) {
            let parked_anew = self
                .0
                .iter()
                .any(|other| other.assigned.is_live() && is_same(&other.assigned, &place.assigned));
            if !parked_anew {
                pause(client, &place.assigned, false);
            }
        }
        self.0.retain(|place| {
            if !place.assigned.is_live() {
                return false;
            }
            let idle = place.waiting.is_empty() && !full(place.assigned.epoch);
            if idle {
                pause(client, &place.assigned, false);
            }
            !idle
        });
    }

    /// How long until the next one is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let first = self
            .0
            .iter()
            .filter_map(|place| place.waiting.front())
            .map(|(due, ..)| *due)
            .min()?;
        Some(first.saturating_duration_since(Instant::now()))
    }
}
