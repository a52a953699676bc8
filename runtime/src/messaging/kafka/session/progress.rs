//! Partitions that have messages and give none.
//!
//! The library knows of messages by the answers to its own fetches. Where it has ceased to fetch it knows of
//! nothing new, so the ends are also asked for beside it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use crate::messaging::kafka::assigned::{Assigned, Kind};
use crate::messaging::kafka::core::{Link, lock};
use crate::messaging::kafka::group::Group;
use crate::messaging::kafka::link::{End, Told};
use crate::messaging::kafka::parked::Parked;
use crate::messaging::{BrokerError, BrokerErrorKind};

use super::room::Reading;

/// How often the ends are asked for within the time after which a partition counts as stalled.
const ASKED_TIMES: u32 = 4;

pub(super) struct Progress {
    ask_at: Instant,
    asked: Option<Receiver<Told<Vec<End>>>>,
}

impl Progress {
    pub(super) fn new(group: &Group) -> Self {
        // What an earlier consumer was told is old.
        lock(&group.ends).clear();
        lock(&group.stalled).clear();
        Self {
            ask_at: Instant::now() + every(group),
            asked: None,
        }
    }

    /// What makes the consumer be made anew: a partition that has messages and gives none for too long.
    pub(super) fn look(
        &mut self,
        group: &Group,
        room: &Reading,
        parked: &Parked,
        now: Instant,
    ) -> Option<BrokerError> {
        let limit = group.core.settings.stall_timeout;
        if *group.core.link.borrow() != Link::Up {
            // Nothing can come meanwhile: its time begins when the cluster is there again.
            lock(&group.stalled).clear();
            return None;
        }
        let mut read = lock(&group.assigned).clone();
        read.retain(|one| one.kind != Kind::Ignored && !room.is_paused(one) && !parked.holds(one));
        self.ask(group, &read, now);
        let mut stalled = lock(&group.stalled);
        // One that is paused does not stand still by itself: its time begins when it is read again.
        stalled.retain(|(topic, partition), _| {
            read.iter()
                .any(|one| *one.topic == **topic && one.partition == *partition)
        });
        let found = stalled
            .iter()
            .find(|(_, stall)| now.duration_since(stall.since) > limit);
        let ((topic, partition), _) = found?;
        let text = format!(
            "partition {partition} of `{topic}` has messages and gave none for {limit:?}; reading anew"
        );
        stalled.clear();
        Some(group.core.error(BrokerErrorKind::ConnectionLost, text))
    }

    /// Asks for the ends now and then, and takes the answer when it is there.
    fn ask(&mut self, group: &Group, read: &[Arc<Assigned>], now: Instant) {
        match self.asked.as_mut().map(Receiver::try_recv) {
            None => {}
            Some(Err(TryRecvError::Empty)) => return,
            Some(Ok(Ok(ends))) => {
                let ends = ends
                    .into_iter()
                    .map(|end| ((end.topic, end.partition), end.offset));
                *lock(&group.ends) = ends.collect();
                self.asked = None;
            }
            // Whether the cluster is there at all is looked after elsewhere.
            Some(Ok(Err(_)) | Err(TryRecvError::Closed)) => self.asked = None,
        }
        if now < self.ask_at {
            return;
        }
        self.ask_at = now + every(group);
        let partitions: Vec<_> = read
            .iter()
            .map(|one| (one.topic.to_string(), one.partition))
            .collect();
        if !partitions.is_empty() {
            self.asked = group.core.begin_to_ask_for_ends(partitions);
        }
    }
}

fn every(group: &Group) -> Duration {
    group.core.settings.stall_timeout / ASKED_TIMES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::kafka::assigned::tests::partition;
    use crate::messaging::kafka::group::{Role, Stall};

    #[tokio::test]
    async fn an_outage_does_not_count_as_standing_still() {
        let (assigned, _deliveries) = partition(Kind::Source);
        let core = &assigned.member.core;
        let group = Group::of(core, "g", Role::Sources);
        lock(&group.assigned).push(Arc::clone(&assigned));
        let mut progress = Progress::new(&group);
        let begun = Instant::now();
        let stands_still = || {
            let partition = (assigned.topic.to_string(), assigned.partition);
            let stall = Stall {
                at: 0,
                since: begun,
            };
            lock(&group.stalled).insert(partition, stall);
        };
        let late = begun + 2 * core.settings.stall_timeout;
        let (room, parked) = (Reading::default(), Parked::default());

        stands_still();
        core.set_link(Link::Down);
        assert!(progress.look(&group, &room, &parked, late).is_none());
        core.set_link(Link::Up);
        assert!(progress.look(&group, &room, &parked, late).is_none());

        stands_still();
        assert!(progress.look(&group, &room, &parked, late).is_some());
        core.set_link(Link::Closed);
    }
}
