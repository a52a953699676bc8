//! One consumer while it lives: it reads, hands over in batches, commits, and looks after its partitions.
//! Polling never waits for a handler.

mod progress;
mod room;
mod subscriptions;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::{info, warn};

use crate::messaging::{BrokerError, BrokerErrorKind};

use self::progress::Progress;
use self::room::Reading;
use self::subscriptions::Preparing;
use super::batch;
use super::core::lock;
use super::errors;
use super::group::{Client, Group, Role};
use super::member::Member;
use super::parked::Parked;
use super::topology::Source;

/// The longest wait for a message: a stop and a new subscription are seen within this time.
const POLL: Duration = Duration::from_millis(50);
/// The wait while partitions are paused: soon there may be room.
const POLL_FULL: Duration = Duration::from_millis(2);
/// Most messages that are handed over at once.
const BATCH: usize = 512;
/// How long a member that was given nothing waits before it counts as running.
const EMPTY_HANDED: Duration = Duration::from_secs(1);

/// How a consumer of the group ended.
pub(super) enum End {
    Stopped,
    /// To be made anew, at once if there is nothing wrong.
    Anew(Option<BrokerError>),
}

pub(super) struct Session<'a> {
    group: &'a Arc<Group>,
    client: &'a Client,
    seen: u64,
    preparing: Vec<Preparing>,
    /// Subscriptions that have everything they need.
    prepared: Vec<Arc<Member>>,
    /// Subscriptions that lack something, and when to look again.
    failed: Vec<(Arc<Member>, Instant, u32)>,
    over: Option<Instant>,
    subscribed: BTreeSet<String>,
    subscribed_at: Instant,
    rebalances: u64,
    room: Reading,
    progress: Progress,
    parked: Parked,
    commit_at: Instant,
}

impl<'a> Session<'a> {
    pub(super) fn new(group: &'a Arc<Group>, client: &'a Client) -> Self {
        Self {
            group,
            client,
            seen: 0,
            preparing: Vec::new(),
            prepared: Vec::new(),
            failed: Vec::new(),
            over: None,
            subscribed: BTreeSet::new(),
            subscribed_at: Instant::now(),
            rebalances: group.rebalances.load(Ordering::Acquire),
            room: Reading::default(),
            progress: Progress::new(group),
            parked: Parked::default(),
            commit_at: Instant::now(),
        }
    }

    pub(super) fn run(mut self) -> End {
        loop {
            if self.group.ends() {
                return End::Stopped;
            }
            if let Some(end) = self.look_at_members() {
                return end;
            }
            if let Err(error) = self.read() {
                return End::Anew(Some(error));
            }
            self.parked.release();
            self.room.look(self.group, self.client, &mut self.parked);
            for member in &self.prepared {
                member.pump();
            }
            let seeks = std::mem::take(&mut *lock(&self.group.seeks));
            for seek in seeks {
                seek.run(self.group, self.client);
            }
            let now = Instant::now();
            if now >= self.commit_at {
                self.commit_at = now + self.group.core.settings.commit_interval;
                let all = lock(&self.group.assigned).clone();
                self.group.commit(self.client, &all);
                self.look_at_joined();
                if let Some(error) = self
                    .progress
                    .look(self.group, &self.room, &self.parked, now)
                {
                    return End::Anew(Some(error));
                }
            }
        }
    }

    /// Reads what is there, at most a batch, and hands it over.
    fn read(&mut self) -> Result<(), BrokerError> {
        let mut longest = POLL;
        if let Some(next) = self.parked.next_due() {
            longest = longest.min(next);
        }
        if !self.preparing.is_empty() {
            longest = longest.min(POLL_FULL);
        }
        let Some(wait) = self.room.before_reading(self.group, &self.parked, longest) else {
            return Ok(());
        };
        let mut batch = batch::Batch::new(self.group, BATCH);
        let mut next = self.client.poll(wait);
        while let Some(polled) = next {
            match polled {
                Ok(message) => batch.push(message),
                Err(error) => self.told(&error)?,
            }
            if batch.is_full() {
                break;
            }
            next = self.client.poll(Duration::ZERO);
        }
        self.room.was_read(batch.is_full());
        batch.hand_over(self.client, &mut self.parked);
        Ok(())
    }

    /// An error that came in place of a message.
    fn told(&self, error: &KafkaError) -> Result<(), BrokerError> {
        let Some(code) = errors::code(error) else {
            return Ok(());
        };
        use RDKafkaErrorCode as Code;
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        let core = &self.group.core;
        match code {
            _ if fatal => Err(core.error(
                BrokerErrorKind::ConnectionLost,
                format!("the consumer cannot go on: {}", errors::words(code)),
            )),
            Code::PollExceeded => Err(core.error(
                BrokerErrorKind::ConnectionLost,
                "the consumer was not polled in time and has left its group",
            )),
            Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed => {
                let text = format!("group `{}`: {}", self.group.id, errors::words(code));
                let text = core.error(BrokerErrorKind::Permission, text).to_string();
                for member in &self.prepared {
                    if member.set_denied(self.group.role, Some(text.clone())) {
                        warn!(subscription = %member.subscription.label, "not consuming: {text}");
                    }
                }
                Ok(())
            }
            // The library goes on by itself; what lasts shows in the health and the log.
            _ => {
                tracing::debug!(group = &*self.group.id, "{}", errors::words(code));
                Ok(())
            }
        }
    }

    fn look_at_joined(&mut self) {
        if self.group.role != Role::Sources {
            return;
        }
        let changed = self.group.rebalances.load(Ordering::Acquire) != self.rebalances;
        let protocol = matches!(
            self.client.rebalance_protocol(),
            rdkafka::consumer::RebalanceProtocol::None
        );
        // Where no topic matches yet there is nothing to join for: it begins with the first one.
        let waits = self
            .prepared
            .iter()
            .all(|member| matches!(member.names.source, Source::Pattern(_)));
        let late = (!protocol || waits) && self.subscribed_at.elapsed() > EMPTY_HANDED;
        if !self.subscribed.is_empty() && (changed || late) {
            for member in &self.prepared {
                member.set_joined(true);
            }
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        info!(group = &*self.group.id, "the consumer ends");
    }
}
