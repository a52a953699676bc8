//! The subscriptions of a group: what each needs is made, they are read together, and those that end leave.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use tracing::warn;

use crate::messaging::{BrokerError, BrokerErrorKind, TopologyMode};

use super::{End, Session};
use crate::messaging::kafka::admin::{self, First, Wanted};
use crate::messaging::kafka::core::lock;
use crate::messaging::kafka::errors;
use crate::messaging::kafka::group::Role;
use crate::messaging::kafka::member::Member;
use crate::messaging::kafka::topology;

/// How long changes of the subscriptions are collected.
const SETTLE: Duration = Duration::from_millis(20);
/// How long a subscription that ended keeps its topics: others that end with it need no rebalance each.
const LINGER: Duration = Duration::from_millis(300);

/// What has to be there for a subscription, being made.
pub(super) struct Preparing {
    member: Arc<Member>,
    outcome: Receiver<Result<First, BrokerError>>,
}

impl Session<'_> {
    /// Takes up new subscriptions and leaves those that have ended.
    pub(super) fn look_at_members(&mut self) -> Option<End> {
        let version = self.group.version.load(Ordering::Acquire);
        if version != self.seen {
            self.seen = version;
            // More of them come in a moment, when a service starts.
            thread::sleep(SETTLE);
            self.seen = self.group.version.load(Ordering::Acquire);
            let known = |member: &Arc<Member>, all: &[Arc<Member>]| {
                all.iter().any(|known| Arc::ptr_eq(known, member))
            };
            for member in self.group.members() {
                let preparing = self
                    .preparing
                    .iter()
                    .any(|one| Arc::ptr_eq(&one.member, &member));
                if !known(&member, &self.prepared) && !preparing {
                    self.prepare(member);
                }
            }
        }
        self.finish_preparing();
        let now = Instant::now();
        let mut due = Vec::new();
        self.failed.retain(|(member, at, _)| {
            let is_due = *at <= now;
            if is_due {
                due.push(Arc::clone(member));
            }
            !is_due
        });
        for member in due {
            self.prepare(member);
        }
        let ended = self.prepared.iter().any(|member| member.is_over());
        match (ended, self.over) {
            (true, None) => self.over = Some(now + LINGER),
            (false, _) => self.over = None,
            (true, Some(at)) if now >= at => {
                self.over = None;
                self.leave();
                if lock(&self.group.members).is_empty() {
                    return Some(End::Anew(None));
                }
            }
            (true, Some(_)) => {}
        }
        // Somebody reads anew what an ended subscription of ours still holds.
        let taken = {
            let all = lock(&self.group.assigned);
            all.iter().any(|assigned| {
                assigned.member.is_over()
                    && self.prepared.iter().any(|member| {
                        !Arc::ptr_eq(member, &assigned.member)
                            && !member.is_stopped()
                            && member.subscription.topic == assigned.member.subscription.topic
                    })
            })
        };
        if taken {
            self.leave();
            return Some(End::Anew(None));
        }
        self.subscribe()
    }

    /// Drops the subscriptions that are over.
    fn leave(&mut self) {
        let keep = |member: &Arc<Member>| !member.is_over();
        self.prepared.retain(keep);
        lock(&self.group.members).retain(keep);
    }

    fn prepare(&mut self, member: Arc<Member>) {
        if member.is_stopped() {
            return;
        }
        let (done, outcome) = sync_channel(1);
        let preparing = Arc::clone(&member);
        let role = self.group.role;
        if role == Role::Later {
            // Whoever has it read a topic has made it, or has seen it.
            self.prepared.push(member);
            return;
        }
        self.group.runtime.spawn(async move {
            let core = &preparing.core;
            let prefix = core.context.prefix.as_deref();
            let subscription = &preparing.subscription;
            let parts = topology::parts(prefix, &core.settings, subscription);
            // What is missing is told once, by the group of the sources.
            let mode = match (role, subscription.topology) {
                (Role::Retries, TopologyMode::Verify) => TopologyMode::Off,
                (_, mode) => mode,
            };
            let wanted: Vec<Wanted> = parts
                .into_iter()
                .filter(|part| role == Role::Sources || preparing.names.is_retry(part))
                .map(|part| Wanted {
                    part,
                    mode,
                    subscription: Some(Arc::clone(&subscription.label)),
                })
                .collect();
            let mut outcome = admin::apply(core, &wanted).await;
            if role == Role::Retries && outcome.is_ok() {
                match core.ask_for_topics().await {
                    Ok(topics) => {
                        let names = topics.iter().map(|topic| &*topic.name);
                        let own = names.filter(|name| preparing.names.rung_of(name).is_some());
                        preparing.add_retries(own);
                    }
                    Err(error) => outcome = Err(error),
                }
            }
            // Nobody waits any more when the consumer is made anew meanwhile.
            let _ = done.send(outcome);
        });
        self.preparing.push(Preparing { member, outcome });
    }

    fn finish_preparing(&mut self) {
        let mut at = 0;
        while at < self.preparing.len() {
            let outcome = match self.preparing[at].outcome.try_recv() {
                Err(TryRecvError::Empty) => {
                    at += 1;
                    continue;
                }
                Ok(outcome) => outcome,
                Err(TryRecvError::Disconnected) => {
                    let text = "the runtime is gone";
                    Err(self.group.core.error(BrokerErrorKind::ConnectionLost, text))
                }
            };
            let Preparing { member, .. } = self.preparing.swap_remove(at);
            match outcome {
                Ok(first) => {
                    lock(&self.group.first).extend(first);
                    if self.group.role == Role::Sources {
                        member.set_failed(None);
                    }
                    self.prepared.push(member);
                }
                Err(error) => self.lacks(member, &error),
            }
        }
    }

    fn lacks(&mut self, member: Arc<Member>, error: &BrokerError) {
        let text = error.to_string();
        let needs_somebody = !error.is_retryable();
        let told = needs_somebody && self.group.role == Role::Sources;
        let news = told && member.set_failed(Some(text.clone()));
        if news {
            warn!(
                broker = %self.group.core.context.name,
                subscription = %member.subscription.label,
                "not consuming: {text}"
            );
        }
        let wait = if needs_somebody {
            Duration::from_secs(2)
        } else {
            Duration::from_millis(200)
        };
        self.failed.push((member, Instant::now() + wait, 0));
    }

    /// Subscribes to everything that is wanted, if that has changed.
    fn subscribe(&mut self) -> Option<End> {
        let mut wanted = BTreeSet::new();
        for member in &self.prepared {
            if self.group.role == Role::Sources {
                wanted.insert(member.names.source.text().to_owned());
                continue;
            }
            wanted.extend(member.retries());
        }
        if wanted == self.subscribed || (wanted.is_empty() && self.subscribed.is_empty()) {
            return None;
        }
        let topics: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let outcome = if topics.is_empty() {
            self.client.unsubscribe();
            Ok(())
        } else {
            self.client.subscribe(&topics)
        };
        if let Err(error) = outcome {
            let (kind, text) = errors::told(&error);
            return Some(End::Anew(Some(self.group.core.error(kind, text))));
        }
        self.subscribed = wanted;
        self.subscribed_at = Instant::now();
        self.rebalances = self.group.rebalances.load(Ordering::Acquire);
        None
    }
}
