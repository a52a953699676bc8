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

    /// Hands on what is due. Where nothing waits any more, [`Parked::resume_idle`] reads on.
    pub(super) fn release(&mut self) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::Consumer;
    use crate::messaging::kafka::assigned::Kind;
    use crate::messaging::kafka::assigned::tests::{partition, record};
    use crate::messaging::kafka::core::Link;
    use crate::messaging::kafka::group::{Group, Role};
    use crate::messaging::kafka::rebalance::Rebalancing;

    #[tokio::test]
    async fn a_partition_whose_subscription_is_full_is_not_read_on() {
        let (assigned, mut deliveries) = partition(Kind::Retry(Duration::from_secs(1)));
        let core = &assigned.member.core;
        let group = Group::of(core, "g", Role::Retries);
        let config = core.settings.member("billing", "g").unwrap();
        let client: Client = config
            .create_with_context(Rebalancing::new(&group))
            .unwrap();
        let mut parked = Parked::default();
        let mut incoming = record(&assigned, 0);
        assert!(assigned.enter(0, &mut incoming));
        parked.take(&client, &assigned, Duration::ZERO, 0, incoming);
        assigned.member.pause().await;
        parked.release();
        assert!(parked.next_due().is_none() && parked.holds(&assigned));
        parked.resume_idle(&client, |epoch| epoch == assigned.epoch);
        assert!(parked.holds(&assigned));
        assigned.member.resume().await;
        assert_eq!(
            deliveries.try_recv().unwrap().incoming.origin,
            record(&assigned, 0).origin
        );
        parked.resume_idle(&client, |_| false);
        assert!(!parked.holds(&assigned));
        core.set_link(Link::Closed);
    }
}
