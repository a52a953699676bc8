//! Kafka: one consumer per group on a thread of its own, an idempotent producer, retries in topics.

mod admin;
mod assigned;
mod batch;
mod core;
mod dead_letters;
mod durability;
mod errors;
mod expiry;
mod group;
mod headers;
mod inspect;
mod later;
mod ledger;
mod link;
mod member;
mod mover;
mod parked;
mod positions;
mod properties;
mod publish;
mod rebalance;
mod replies;
mod session;
mod settings;
mod stuck;
mod thread;
mod topology;
mod way_back;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::config::{Faults, Section};
use crate::handling::{BoxFuture, PublishError};
use crate::message::{Incoming, MessageId, Outgoing, ReplyAddress};
use crate::messaging::{
    BrokerContext, BrokerError, BrokerErrorKind, BrokerHealth, Capabilities, Connected, Consumer,
    DeadLetterStore, Delivery, DurabilityConcern, Export, Inspection, MessageBroker, PositionStore,
    ReplyEvents, Requests, Subscription, Topology,
};

use self::admin::Wanted;
pub use crate::messaging::Position;

use self::core::{Core, Link, lock};
use self::dead_letters::DeadLetters;
use self::group::{Group, Role};
use self::member::Member;
use self::positions::Positions;
use self::publish::Sender;
use self::replies::Replies;
use self::settings::Settings;

/// The broker of a section of kind `kafka`; `None` where mistakes were found.
pub fn connect(
    context: &BrokerContext,
    section: &Section<'_>,
    faults: &mut Faults,
) -> Option<Arc<dyn MessageBroker>> {
    Some(Arc::new(Kafka::read(context, section, faults)?))
}

/// A Kafka cluster.
///
/// Every group of the process has one consumer, which reads all topics of its subscriptions on a thread
/// of its own and is always polled, whatever handlers do. A position is committed only up to the
/// lowest message that is not finished; what is finished above it is noted beside the position, so that
/// the next owner of the partition does not handle it again.
///
/// ```
/// use interline::config::{Config, Faults};
/// use interline::messaging::kafka::Kafka;
/// use interline::messaging::{BrokerContext, MessageBroker};
///
/// let config = Config::new().with("brokers.main.url", "kafka://one:9092,two:9092");
/// let mut faults = Faults::new();
/// let context = BrokerContext::new("main", "billing", "billing-1");
/// let broker = Kafka::read(&context, &config.section("brokers.main"), &mut faults).unwrap();
/// assert_eq!(broker.kind(), "kafka");
/// ```
pub struct Kafka {
    core: Arc<Core>,
    dead_letters: DeadLetters,
    positions: Positions,
}

impl Kafka {
    /// The broker that the section describes, not connected yet; `None` where mistakes were found.
    #[must_use]
    pub fn read(
        context: &BrokerContext,
        section: &Section<'_>,
        faults: &mut Faults,
    ) -> Option<Self> {
        let before = faults.len();
        let settings = Settings::read(section, faults);
        if faults.len() > before {
            return None;
        }
        let core = Arc::new(Core::new(context.clone(), settings));
        Some(Self {
            dead_letters: DeadLetters(Arc::clone(&core)),
            positions: Positions(Arc::clone(&core)),
            core,
        })
    }

    /// Moves the positions of a subscription that nobody reads, in every partition. What waits for a
    /// retry stays.
    ///
    /// # Errors
    /// [`BrokerErrorKind::Refused`] if the group is being read, [`BrokerErrorKind::NotFound`] if there is
    /// no such topic, and what the cluster says.
    pub async fn reset(
        &self,
        subscription: &Subscription,
        to: Position,
    ) -> Result<(), BrokerError> {
        positions::reset(&self.core, subscription, to).await
    }

    /// Moves the positions of a subscription in the partitions that this process reads of it now, and
    /// reads on from there; returns how many these are. What is out can no longer be settled.
    ///
    /// # Errors
    /// [`BrokerErrorKind::NotFound`] if this process does not read it, and what the cluster says.
    pub async fn seek(
        &self,
        subscription: &Subscription,
        to: Position,
    ) -> Result<usize, BrokerError> {
        positions::seek(&self.core, subscription, to).await
    }

    /// Reads what lies in a topic from a position up to, and without, another one into `messages`,
    /// partition by partition; returns how many there were. No group takes part, so nobody else notices.
    /// Ends early when nobody takes messages any more.
    ///
    /// # Errors
    /// [`BrokerErrorKind::NotFound`] if there is no such topic, and what the cluster says.
    pub async fn replay(
        &self,
        topic: &str,
        window: (Position, Position),
        messages: mpsc::Sender<Incoming>,
    ) -> Result<u64, BrokerError> {
        positions::replay(&self.core, topic, window, messages).await
    }

    async fn close(&self, deadline: Instant) {
        // First, so that no group is made that nobody closes.
        self.core.later.end();
        let groups: Vec<Arc<Group>> = lock(&self.core.groups)
            .drain()
            .map(|(_, one)| one)
            .collect();
        let members: Vec<Arc<Member>> = groups.iter().flat_map(|group| group.members()).collect();
        for member in &members {
            member.stop_now();
        }
        join_all(members.iter().map(|member| member.copies_done(deadline))).await;
        for group in &groups {
            group.close();
        }
        let closing = join_all(groups.iter().map(|group| group.closed()));
        // Past the deadline the threads end by themselves, as soon as the library lets them.
        let _ = timeout_at(deadline, closing).await;
        self.forget_instances(&members, deadline).await;
        self.core.set_link(Link::Closed);
        self.core.up.record(0.0);
        let sender = lock(&self.core.sender).take();
        if let Some(sender) = sender {
            let left = deadline.saturating_duration_since(Instant::now());
            let flushing = tokio::task::spawn_blocking(move || sender.flush(left));
            let _ = timeout_at(deadline, flushing).await;
        }
    }

    /// Deletes the groups of this instance alone: nobody reads in them again.
    async fn forget_instances(&self, members: &[Arc<Member>], deadline: Instant) {
        let own: Vec<String> = members
            .iter()
            .filter(|member| member.names.each_instance)
            .map(|member| member.names.group.clone())
            .collect();
        if own.is_empty() || *self.core.link.borrow() != Link::Up {
            return;
        }
        let deleting = admin::delete_groups(&self.core, &own);
        // What is left the cluster forgets by itself after a while.
        let _ = timeout_at(deadline, deleting).await;
    }
}

impl MessageBroker for Kafka {
    fn name(&self) -> &Arc<str> {
        &self.core.context.name
    }

    fn kind(&self) -> &'static str {
        "kafka"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            patterns: true,
            ordered_across_instances: true,
            priorities: false,
            message_ttl: true,
            durable: true,
            // A topic that does not exist is reported; a topic that nobody reads is not.
            reports_unroutable: false,
            replies: true,
            scheduling: Some(later::SCHEDULING),
            ..Capabilities::NONE
        }
    }

    fn topology(&self, subscriptions: &[Arc<Subscription>]) -> Topology {
        let prefix = self.core.context.prefix.as_deref();
        let all = subscriptions.iter().map(|one| &**one);
        topology::readable(prefix, &self.core.settings, all)
    }

    fn connect(&self) -> BoxFuture<'_, Result<Connected, BrokerError>> {
        Box::pin(async {
            let begins = self.core.link.send_if_modified(|link| {
                let begins = *link == Link::Idle;
                if begins {
                    *link = Link::Down;
                }
                begins
            });
            let lost = |text: &str| self.core.error(BrokerErrorKind::ConnectionLost, text);
            if !begins {
                return match &*self.core.link.borrow() {
                    Link::Up => Ok(Connected::Yes),
                    Link::Closed => Err(lost("it was disconnected for good")),
                    _ => Ok(Connected::Retrying),
                };
            }
            let sender = Sender::new(&self.core);
            let sender = sender.map_err(|(kind, text)| self.core.error(kind, text))?;
            *lock(&self.core.sender) = Some(Arc::new(sender));
            let first = link::start(&self.core);
            if !self.core.context.read_only {
                tokio::spawn(mover::look(Arc::downgrade(&self.core)));
            }
            let outcome = first.await;
            outcome.unwrap_or_else(|_| Err(lost("it was disconnected while it connected")))
        })
    }

    fn apply<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            let mut wanted = Vec::with_capacity(topology.parts.len());
            for part in &topology.parts {
                let Some(read) = topology::read(part) else {
                    let text = format!("{} `{}` is nothing that Kafka has", part.kind, part.name);
                    return Err(self.core.error(BrokerErrorKind::Configuration, text));
                };
                wanted.push(Wanted {
                    part: read,
                    mode: part.mode,
                    subscription: part.subscription.clone(),
                });
            }
            if self.core.wait_until_up().await.is_none() {
                return Err(self.core.not_connected());
            }
            admin::apply(&self.core, &wanted).await.map(drop)
        })
    }

    fn publish(&self, outgoing: Outgoing) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(self.core.publish(outgoing))
    }

    fn schedule(
        &self,
        outgoing: Outgoing,
        due: SystemTime,
    ) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(self.core.schedule(outgoing, due))
    }

    fn unschedule<'a>(&'a self, id: &'a MessageId) -> BoxFuture<'a, Result<bool, BrokerError>> {
        Box::pin(std::future::ready(Err(later::kept(&self.core, id))))
    }

    fn durability<'a>(
        &'a self,
        subscriptions: &'a [Arc<Subscription>],
    ) -> BoxFuture<'a, Result<Vec<DurabilityConcern>, BrokerError>> {
        Box::pin(durability::concerns(&self.core, subscriptions))
    }

    fn inspect<'a>(
        &'a self,
        topology: &'a Topology,
    ) -> BoxFuture<'a, Result<Inspection, BrokerError>> {
        Box::pin(inspect::inspect(&self.core, topology))
    }

    fn export(&self, topology: &Topology) -> Option<Export> {
        Some(inspect::export(topology))
    }

    fn requests(
        &self,
        events: ReplyEvents,
    ) -> BoxFuture<'_, Result<Arc<dyn Requests>, BrokerError>> {
        Box::pin(async {
            let replies = Replies::listen(&self.core, events).await?;
            Ok(replies as Arc<dyn Requests>)
        })
    }

    fn reply(
        &self,
        to: ReplyAddress,
        outgoing: Outgoing,
    ) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(async move { replies::reply(&self.core, &to, outgoing).await })
    }

    fn subscribe(
        &self,
        subscription: Arc<Subscription>,
        deliveries: mpsc::Sender<Delivery>,
    ) -> BoxFuture<'_, Result<Arc<dyn Consumer>, BrokerError>> {
        Box::pin(async move {
            let core = &self.core;
            let prefix = core.context.prefix.as_deref();
            let names = topology::names(prefix, &core.settings, &subscription);
            if let Some(text) = topology::unfit(&names) {
                return Err(core.error(BrokerErrorKind::Configuration, text));
            }
            let group = Group::of(core, &names.group, Role::Sources);
            let retries = (!names.retries.is_empty())
                .then(|| Group::of(core, &names.retry_group(), Role::Retries));
            let member = Member::new(core, &subscription, names, deliveries);
            group.add(&member);
            if let Some(retries) = retries {
                retries.add(&member);
            }
            let looking = way_back::look(Arc::downgrade(core), Arc::downgrade(&member));
            tokio::spawn(looking);
            Ok(member as Arc<dyn Consumer>)
        })
    }

    fn disconnect(&self, deadline: Instant) -> BoxFuture<'_, ()> {
        Box::pin(self.close(deadline))
    }

    fn health_check(&self) -> BrokerHealth {
        self.core.health()
    }

    fn dead_letters(&self) -> Option<&dyn DeadLetterStore> {
        Some(&self.dead_letters)
    }

    fn positions(&self) -> Option<&dyn PositionStore> {
        Some(&self.positions)
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // The threads see it and end.
        self.core.set_link(Link::Closed);
        self.core.later.end();
        for group in lock(&self.core.groups).drain().map(|(_, group)| group) {
            group.closing.store(true, Ordering::Release);
        }
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("name", &self.core.context.name)
            .field("health", &self.core.health())
            .finish_non_exhaustive()
    }
}
