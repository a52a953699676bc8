//! The thread of a group: one consumer for all of it, made anew when it fails, and closed in order.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::messaging::{BrokerError, BrokerErrorKind};

use super::core::{Link, lock};
use super::errors;
use super::group::{Client, Group, Role};
use super::link::client_id;
use super::rebalance::Rebalancing;
use super::session::{End, Session};

/// How often it is looked whether there is something to read, and a cluster to read from.
const LOOK: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// How long a consumer that is made anew waits for the old one to close.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Starts the thread of a group.
pub(super) fn start(group: &Arc<Group>) -> io::Result<()> {
    let thread = Thread {
        group: Arc::clone(group),
        attempt: 0,
        told: None,
    };
    let named = thread::Builder::new().name(format!("kafka-{}", group.id));
    named.spawn(move || thread.run()).map(drop)
}

struct Thread {
    group: Arc<Group>,
    attempt: u32,
    told: Option<String>,
}

impl Thread {
    fn run(mut self) {
        let group = Arc::clone(&self.group);
        while !group.ends() {
            if lock(&group.members).is_empty() || *group.core.link.borrow() != Link::Up {
                thread::sleep(LOOK);
                continue;
            }
            let begun = Instant::now();
            let end = match self.make() {
                Ok(client) => {
                    let end = Session::new(&group, &client).run();
                    let ends = matches!(end, End::Stopped);
                    self.give_up(&client, ends);
                    close(client, ends);
                    end
                }
                Err(error) => End::Anew(Some(error)),
            };
            if begun.elapsed() > BACKOFF_MAX {
                self.attempt = 0;
            }
            let End::Anew(Some(error)) = end else {
                continue;
            };
            self.failed(&error);
            let wait = group.core.backoff(self.attempt, BACKOFF_MAX);
            self.attempt = self.attempt.saturating_add(1);
            let until = Instant::now() + wait;
            while Instant::now() < until && !group.ends() {
                thread::sleep(LOOK.min(wait));
            }
        }
        for member in group.members() {
            member.stop_now();
        }
        lock(&group.members).clear();
        // Nobody carries them out any more; whoever waits for one is told so.
        lock(&group.seeks).clear();
        group.closed.send_replace(true);
    }

    fn make(&self) -> Result<Client, BrokerError> {
        let core = &self.group.core;
        let told = |(kind, text): (BrokerErrorKind, String)| core.error(kind, text);
        let config = core.settings.member(&client_id(core), &self.group.id);
        let context = Rebalancing::new(&self.group);
        let made = config.map_err(told)?.create_with_context(context);
        made.map_err(|error| told(errors::told(&error)))
    }

    /// Commits what is finished and gives every partition up.
    fn give_up(&self, client: &Client, ends: bool) {
        let all = std::mem::take(&mut *lock(&self.group.assigned));
        if !ends {
            let deadline = Instant::now() + self.group.core.settings.revoke_bound();
            for assigned in &all {
                assigned.leave();
            }
            for assigned in &all {
                assigned.wait_until_idle(deadline);
            }
        }
        if *self.group.core.link.borrow() == Link::Up || ends {
            self.group.commit_at_last(client, &all);
        } else {
            self.group.lost(&all, "the cluster does not answer");
        }
        for assigned in &all {
            assigned.end();
        }
        for member in self.group.members() {
            // The next consumer is told anew.
            member.set_denied(self.group.role, None);
            if self.group.role == Role::Sources {
                member.set_joined(false);
            }
        }
    }

    fn failed(&mut self, error: &BrokerError) {
        let text = error.to_string();
        for member in self.group.members() {
            if !error.is_retryable() {
                member.set_failed(Some(text.clone()));
            }
        }
        if self.told.as_ref() != Some(&text) {
            warn!(broker = %self.group.core.context.name, group = &*self.group.id, "not consuming: {text}");
            self.told = Some(text);
        }
    }
}

/// Closes a consumer, which tells the group. Whoever waits for the end of the group has a deadline of
/// its own; a consumer that is to be made anew is not kept from it by a cluster that does not answer.
fn close(client: Client, ends: bool) {
    if ends {
        drop(client);
        return;
    }
    let (done, closed) = sync_channel(1);
    let closing = thread::Builder::new().name("kafka-close".to_owned());
    let spawned = closing.spawn(move || {
        drop(client);
        // Nobody waits any more.
        let _ = done.send(());
    });
    if spawned.is_ok() {
        let _ = closed.recv_timeout(CLOSE_MAX);
    }
}
