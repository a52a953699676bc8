//! Which partitions are read on, and how much at once.
//!
//! The library fetches ahead, and throws that away when a partition is paused. So what was fetched is left
//! where it is for a while, and a partition is paused only where nothing of it is at hand any more, or too
//! much of it waits here.

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::messaging::kafka::assigned::{Assigned, Kind};
use crate::messaging::kafka::core::lock;
use crate::messaging::kafka::group::{Client, Group, pause};
use crate::messaging::kafka::member::Room;
use crate::messaging::kafka::parked::Parked;

use super::POLL_FULL;

/// How long nothing is read where every subscription has enough. Meanwhile the group cannot be shared out
/// anew, so it is short beside any session.
const HOLD_MAX: Duration = Duration::from_millis(200);

/// What is read of the partitions of a consumer.
#[derive(Default)]
pub(super) struct Reading {
    /// Assignments that are paused for want of room.
    paused: HashSet<u64>,
    /// Since when every subscription that is read has enough.
    enough: Option<Instant>,
    /// Whether the last look gave everything that was at hand.
    emptied: bool,
}

impl Reading {
    /// Whether a partition is paused for want of room.
    pub(super) fn is_paused(&self, assigned: &Assigned) -> bool {
        self.paused.contains(&assigned.epoch)
    }

    /// How long to wait for a message, at most `longest`; `None` where it waited for room in place of that.
    pub(super) fn before_reading(
        &mut self,
        group: &Group,
        parked: &Parked,
        longest: Duration,
    ) -> Option<Duration> {
        let mut read = lock(&group.assigned).clone();
        read.retain(|one| one.kind != Kind::Ignored && !self.is_paused(one) && !parked.holds(one));
        let rooms = || read.iter().map(|one| one.member.room());
        let scarce = |room: Room| room <= Room::Scarce;
        self.enough = match self.enough {
            None if !read.is_empty() && rooms().all(scarce) => Some(Instant::now()),
            Some(_) if read.is_empty() || rooms().any(|room| room == Room::Plenty) => None,
            as_it_was => as_it_was,
        };
        let left = self
            .enough
            .map(|since| HOLD_MAX.saturating_sub(since.elapsed()));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            self.emptied = false;
            if read
                .iter()
                .all(|one| one.member.wake_with_room(thread::current()))
            {
                thread::park_timeout(left.min(longest));
            }
            return None;
        }
        Some(if rooms().any(scarce) {
            Duration::ZERO
        } else if self.paused.is_empty() {
            longest
        } else {
            longest.min(POLL_FULL)
        })
    }

    /// What was at hand was read, and more of it `is_left`.
    pub(super) fn was_read(&mut self, is_left: bool) {
        self.emptied = !is_left;
    }

    /// Pauses the partitions of subscriptions that have no room, and resumes them with plenty of it.
    pub(super) fn look(&mut self, group: &Group, client: &Client, parked: &mut Parked) {
        let all = lock(&group.assigned).clone();
        self.paused
            .retain(|epoch| all.iter().any(|assigned| assigned.epoch == *epoch));
        for assigned in &all {
            let was = self.is_paused(assigned);
            let is = match assigned.member.room() {
                Room::None => true,
                Room::Scarce => was || self.emptied,
                Room::Some => was,
                Room::Plenty => false,
            };
            if was != is {
                self.change(client, parked, assigned, is);
            }
        }
        let paused = &self.paused;
        parked.resume_idle(client, |epoch| paused.contains(&epoch));
    }

    fn change(&mut self, client: &Client, parked: &Parked, of: &Arc<Assigned>, is_paused: bool) {
        if is_paused {
            self.paused.insert(of.epoch);
        } else {
            self.paused.remove(&of.epoch);
        }
        // What is parked is paused as it is, and decides.
        if !parked.holds(of) {
            pause(client, of, is_paused);
        }
    }
}
