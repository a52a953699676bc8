//! One process's connection to a store.

use std::fmt;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::handling::{BoxFuture, PublishError, PublishErrorKind};
use crate::message::{MessageId, Outgoing, ReplyAddress};
use crate::messaging::{
    BrokerContext, BrokerError, BrokerErrorKind, BrokerHealth, Capabilities, Connected,
    ConnectionState, Consumer, CrashPoint, CrashPoints, DeadLetterStore, Delivery,
    DurabilityConcern, Inspection, MessageBroker, ReplyEvents, Requests, Scheduling, Subscription,
    Topology,
};
use crate::observability::metrics::{CONNECTION_UP, MetricsSink, RECONNECTS, Series};

use super::consumer::{MemoryConsumer, MemorySettler};
use super::flow::ConsumerEntry;
use super::replies::{self, MemoryRequests};
use super::state::{ConnectionEntry, State};
use super::store::{MemoryStore, Shared};
use super::topology;

/// Longest that a publish waits for a connection that is being made again.
pub(super) const PUBLISH_WAIT_MAX: Duration = Duration::from_secs(30);

/// Tokio's timers go by the millisecond.
const SCHEDULE_GRANULARITY: Duration = Duration::from_millis(1);
/// Longest time that a message is held; about 100 years.
pub(super) const SCHEDULED_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// What a connection, its consumers and its settlements share.
pub(super) struct Link {
    pub(super) shared: Arc<Shared>,
    pub(super) name: Arc<str>,
    pub(super) instance: Arc<str>,
    pub(super) prefix: Option<Arc<str>>,
    clock: Arc<dyn Clock>,
    pub(super) metrics: Option<Arc<dyn MetricsSink>>,
    up: Series,
    pub(super) reconnects: Series,
    runtime: OnceLock<Handle>,
    /// Both change under the store's lock only.
    phase: AtomicU8,
    epoch: AtomicU64,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    New,
    Connecting,
    Up,
    Ended,
}

impl Link {
    fn new(store: &MemoryStore, context: &BrokerContext) -> Self {
        let metrics = context.metrics.as_deref();
        let series = |instrument| Series::of(metrics, instrument, vec![Arc::clone(&context.name)]);
        Self {
            shared: Arc::clone(&store.shared),
            name: Arc::clone(&context.name),
            instance: Arc::clone(&context.instance),
            prefix: context.prefix.clone(),
            clock: Arc::clone(&context.clock),
            up: series(CONNECTION_UP),
            reconnects: series(RECONNECTS),
            metrics: context.metrics.clone(),
            runtime: OnceLock::new(),
            phase: AtomicU8::new(Phase::New as u8),
            epoch: AtomicU64::new(0),
        }
    }

    /// Moves to a phase; the epoch is 0 unless it is up. Under the store's lock only.
    pub(super) fn set(&self, phase: Phase, epoch: u64) {
        self.phase.store(phase as u8, Ordering::Release);
        self.epoch.store(epoch, Ordering::Release);
        self.up.record(f64::from(u8::from(phase == Phase::Up)));
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::New,
            1 => Phase::Connecting,
            2 => Phase::Up,
            _ => Phase::Ended,
        }
    }

    /// The epoch of the connection; 0 while there is none.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The runtime of the app. A connection that was ever made has it.
    pub(super) fn runtime(&self) -> Option<Handle> {
        self.runtime.get().cloned()
    }

    /// Waits until the connection is up.
    async fn until_up(&self) -> Phase {
        loop {
            let changed = self.shared.connections.notified();
            match self.phase() {
                Phase::New | Phase::Connecting => changed.await,
                phase => return phase,
            }
        }
    }

    /// Does `work` with the message if the connection is up, and that is that; else gives it back.
    fn if_up<T>(
        self: &Arc<Self>,
        outgoing: Outgoing,
        work: impl FnOnce(&mut State, &Arc<Self>, Outgoing) -> T,
    ) -> ControlFlow<T, Outgoing> {
        self.shared.with(|state| match self.phase() {
            Phase::Up => ControlFlow::Break(work(state, self, outgoing)),
            _ => ControlFlow::Continue(outgoing),
        })
    }

    /// Does `work` with the message as soon as the connection is up.
    pub(super) async fn when_up<T>(
        self: &Arc<Self>,
        mut outgoing: Outgoing,
        work: impl Fn(&mut State, &Arc<Self>, Outgoing) -> Result<T, PublishError> + Send,
    ) -> Result<T, PublishError> {
        use PublishErrorKind::{Closed, Timeout};
        let deadline = Instant::now() + PUBLISH_WAIT_MAX;
        loop {
            outgoing = match self.if_up(outgoing, &work) {
                ControlFlow::Break(result) => return result,
                ControlFlow::Continue(outgoing) => outgoing,
            };
            let (kind, why) = match tokio::time::timeout_at(deadline, self.until_up()).await {
                Ok(Phase::Up) => continue,
                Ok(_) => (Closed, "the connection is closed"),
                Err(_) => (Timeout, "there was no connection for 30 s"),
            };
            let error = PublishError::new(kind, outgoing.topic.clone(), why);
            return Err(error.with_outgoing(outgoing));
        }
    }
}

/// A [`MessageBroker`] in this process: the connection of one app to a [`MemoryStore`].
///
/// It keeps the whole contract of the port, so that what runs on it runs on a real broker; but
/// nothing in it outlives the process. Dropping it ends the connection as a crash does.
pub struct MemoryBroker {
    link: Arc<Link>,
    driver: Mutex<Option<AbortHandle>>,
}

impl MemoryBroker {
    /// A connection to `store`, not made yet.
    #[must_use]
    pub fn new(store: &MemoryStore, context: &BrokerContext) -> Self {
        Self {
            link: Arc::new(Link::new(store, context)),
            driver: Mutex::new(None),
        }
    }

    /// The store behind it.
    #[must_use]
    pub fn store(&self) -> MemoryStore {
        MemoryStore {
            shared: Arc::clone(&self.link.shared),
        }
    }

    fn end(&self) {
        let link = &self.link;
        link.shared.with(|state| {
            let ours = state
                .connections
                .iter()
                .find_map(|(at, entry)| Arc::ptr_eq(&entry.link, link).then_some(at));
            match ours {
                Some(at) => state.end_connection(at),
                None => link.set(Phase::Ended, 0),
            }
        });
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = driver.as_ref() {
            driver.abort();
        }
    }

    fn closed(&self) -> BrokerError {
        let kind = BrokerErrorKind::ConnectionLost;
        BrokerError::new(kind, &self.link.name, "the connection is closed")
    }

    fn unconnected(&self) -> BrokerError {
        let kind = BrokerErrorKind::Unreachable;
        BrokerError::new(kind, &self.link.name, "not connected")
    }
}

impl MessageBroker for MemoryBroker {
    fn name(&self) -> &Arc<str> {
        &self.link.name
    }

    fn kind(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            patterns: true,
            ordered_across_instances: true,
            priorities: true,
            message_ttl: true,
            durable: false,
            reports_unroutable: true,
            replies: true,
            scheduling: Some(Scheduling::new(SCHEDULE_GRANULARITY, SCHEDULED_MAX).cancel()),
            at_most_once_only: false,
            held_max: None,
        }
    }

    fn topology(&self, subscriptions: &[Arc<Subscription>]) -> Topology {
        topology::describe(self.link.prefix.as_deref(), subscriptions)
    }

    fn connect(&self) -> BoxFuture<'_, Result<Connected, BrokerError>> {
        Box::pin(async move {
            let link = &self.link;
            // A second time it finds the runtime of the first; there is nothing to do then.
            if link.runtime.set(Handle::current()).is_err() {
                return match link.phase() {
                    Phase::Up => Ok(Connected::Yes),
                    Phase::Ended => Err(self.closed()),
                    Phase::New | Phase::Connecting => Ok(Connected::Retrying),
                };
            }
            let phase = link.shared.with(|state| {
                if link.phase() == Phase::New {
                    state.clock = Arc::clone(&link.clock);
                    state.broker = Arc::clone(&link.name);
                    link.set(Phase::Connecting, 0);
                    state.connections.insert(ConnectionEntry {
                        link: Arc::clone(link),
                        connect_at: Some(Instant::now()),
                        lost_before: false,
                    });
                    state.run_due();
                }
                link.phase()
            });
            if phase == Phase::Ended {
                return Err(self.closed());
            }
            let driver = tokio::spawn(drive(Arc::clone(&link.shared)));
            let mut slot = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
            *slot = Some(driver.abort_handle());
            Ok(if phase == Phase::Up {
                Connected::Yes
            } else {
                Connected::Retrying
            })
        })
    }

    fn apply<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        let applied = self.link.shared.with(|state| match self.link.phase() {
            Phase::Up => topology::apply(state, &self.link, topology),
            Phase::Ended => Err(self.closed()),
            Phase::New | Phase::Connecting => Err(self.unconnected()),
        });
        Box::pin(std::future::ready(applied))
    }

    fn durability<'a>(
        &'a self,
        _: &'a [Arc<Subscription>],
    ) -> BoxFuture<'a, Result<Vec<DurabilityConcern>, BrokerError>> {
        let concern = DurabilityConcern::loss(
            "the embedded broker does not outlive the process: what it holds ends with it",
            format!("give `brokers.{}.url` a server's address", self.link.name),
        );
        Box::pin(std::future::ready(Ok(vec![concern])))
    }

    fn publish(&self, outgoing: Outgoing) -> BoxFuture<'_, Result<(), PublishError>> {
        let publish = |state: &mut State, link: &Arc<Link>, outgoing| state.publish(link, outgoing);
        match self.link.if_up(outgoing, publish) {
            ControlFlow::Break(Ok(())) => Box::pin(Confirmed),
            ControlFlow::Break(Err(error)) => Box::pin(std::future::ready(Err(error))),
            ControlFlow::Continue(outgoing) => Box::pin(self.link.when_up(outgoing, publish)),
        }
    }

    fn schedule(
        &self,
        outgoing: Outgoing,
        due: SystemTime,
    ) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(self.link.when_up(outgoing, move |state, link, outgoing| {
            state.schedule(link, outgoing, due)
        }))
    }

    fn unschedule<'a>(&'a self, id: &'a MessageId) -> BoxFuture<'a, Result<bool, BrokerError>> {
        let cancelled = self.link.shared.with(|state| match self.link.phase() {
            Phase::Up => Ok(state.cancel_scheduled(id)),
            Phase::Ended => Err(self.closed()),
            Phase::New | Phase::Connecting => Err(self.unconnected()),
        });
        Box::pin(std::future::ready(cancelled))
    }

    fn requests(
        &self,
        events: ReplyEvents,
    ) -> BoxFuture<'_, Result<Arc<dyn Requests>, BrokerError>> {
        let requests = MemoryRequests::listen(Arc::clone(&self.link), events);
        Box::pin(std::future::ready(Ok(Arc::new(requests) as Arc<_>)))
    }

    fn reply(
        &self,
        to: ReplyAddress,
        outgoing: Outgoing,
    ) -> BoxFuture<'_, Result<(), PublishError>> {
        Box::pin(replies::reply(&self.link, to, outgoing))
    }

    fn inspect<'a>(
        &'a self,
        topology: &'a Topology,
    ) -> BoxFuture<'a, Result<Inspection, BrokerError>> {
        let inspected = self.link.shared.with(|state| match self.link.phase() {
            Phase::Up => Ok(topology::inspect(state, &self.link, topology)),
            Phase::Ended => Err(self.closed()),
            Phase::New | Phase::Connecting => Err(self.unconnected()),
        });
        Box::pin(std::future::ready(inspected))
    }

    fn subscribe(
        &self,
        subscription: Arc<Subscription>,
        deliveries: mpsc::Sender<Delivery>,
    ) -> BoxFuture<'_, Result<Arc<dyn Consumer>, BrokerError>> {
        let link = &self.link;
        let consumer = link.shared.with(|state| {
            if link.phase() == Phase::Ended {
                return Err(self.closed());
            }
            let (id, at) = (state.serial(), state.consumers.next());
            let label = Arc::clone(&subscription.label);
            let settler = MemorySettler::new(Arc::clone(link), at, label);
            state.consumers.insert(ConsumerEntry::new(
                id,
                Arc::clone(link),
                subscription,
                Arc::new(settler),
                deliveries,
            ));
            if link.phase() == Phase::Up {
                state.attach(at);
                state.attach_failed();
            }
            let consumer = MemoryConsumer::new(Arc::clone(link), at, id);
            Ok(Arc::new(consumer) as Arc<dyn Consumer>)
        });
        Box::pin(std::future::ready(consumer))
    }

    /// Settlements are taken at once, so there is nothing to wait for.
    fn disconnect(&self, _deadline: Instant) -> BoxFuture<'_, ()> {
        self.end();
        Box::pin(std::future::ready(()))
    }

    fn quiet(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.store().idle(Instant::now()).await })
    }

    fn health_check(&self) -> BrokerHealth {
        match self.link.phase() {
            Phase::New => BrokerHealth::new(ConnectionState::Disconnected),
            Phase::Connecting => BrokerHealth::new(ConnectionState::Connecting).with_error(Some(
                "the connection was lost or refused (a fault)".to_owned(),
            )),
            Phase::Up => BrokerHealth::new(ConnectionState::Ready),
            Phase::Ended => BrokerHealth::new(ConnectionState::Closed),
        }
    }

    fn dead_letters(&self) -> Option<&dyn DeadLetterStore> {
        Some(&*self.link)
    }
}

/// A publish that is confirmed already. It has no size, so its box takes no memory.
struct Confirmed;

impl Future for Confirmed {
    type Output = Result<(), PublishError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(()))
    }
}

impl CrashPoints for MemoryBroker {
    /// Asks the script of the store's faults; on `true` this connection has ended like that of a
    /// process that died.
    fn reached(&self, point: CrashPoint) -> bool {
        let crashes = self.link.shared.lock().script.crashes_at(point);
        if crashes {
            self.end();
        }
        crashes
    }
}

impl Drop for MemoryBroker {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker")
            .field("name", &self.link.name)
            .field("instance", &self.link.instance)
            .field("phase", &self.link.phase())
            .finish_non_exhaustive()
    }
}

/// Lets happen what is due, as long as a connection lives: retries, ends of time to live, connections
/// made again. One task for everything that waits.
async fn drive(shared: Arc<Shared>) {
    loop {
        let sooner = shared.sooner.notified();
        let next = shared.with(|state| {
            state.run_due();
            state.next_due()
        });
        match next {
            None => sooner.await,
            // Being told of something sooner and the time being over lead to the same.
            Some(due) => drop(tokio::time::timeout_at(due, sooner).await),
        }
    }
}
