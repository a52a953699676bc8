//! Carries out settlements on the channel that the delivery came from, and nowhere else.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{FutureExt, future};
use lapin::options::{BasicAckOptions, BasicNackOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use crate::handling::BoxFuture;
use crate::message::headers::name;
use crate::message::{Headers, Incoming};
use crate::messaging::{
    BrokerError, Copied, OrderedBy, Settled, Settler, Subscription, Ticket, TopologyMode, Unkept,
};
use crate::observability::metrics::{STALE_SETTLEMENTS, Series};

use super::connection::Live;
use super::core::{Core, Link, lock};
use super::declare;
use super::headers;
use super::publish::CopyError;
use super::topology::{self, Names, Part};

const REPLY_SUCCESS: u16 = 200;
/// The longest time that a retry waits in this process where its delay queue is missing.
const HELD_MAX: Duration = Duration::from_secs(600);
/// The longest wait between two tries to copy what is ordered and cannot be given back.
const COPY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Settlements that a quorum queue takes between two requests of ours; see [`QueueSettler::flush`].
const TAKEN_PER_REQUEST: u64 = 16;
const REQUESTS_MIN: u64 = 8;
const REQUESTS_MAX: u64 = 256;
/// Further requests, spread over time: between two lots the queue waits for its disk.
const SPREAD_REQUESTS: u32 = 10;
const SPREAD_WAIT: Duration = Duration::from_millis(25);

/// One channel with what was delivered on it.
pub(super) struct Epoch {
    number: u64,
    channel: Channel,
    live: Arc<Live>,
    /// The properties of what is out, for its copies.
    originals: Mutex<HashMap<u64, BasicProperties, BuildHasherDefault<TagHasher>>>,
    none_out: Notify,
    settled: AtomicU64,
    /// What is given back goes back with the channel, all of it at once and in its order.
    gives_back_at_the_end: AtomicBool,
}

/// Spreads the tags of deliveries, which the server counts up: nobody can choose them to collide.
#[derive(Default)]
struct TagHasher(u64);

impl Hasher for TagHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, tag: u64) {
        self.0 = (self.0 ^ tag).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Epoch {
    pub(super) fn new(number: u64, channel: Channel, live: Arc<Live>) -> Self {
        Self {
            number,
            channel,
            live,
            originals: Mutex::default(),
            none_out: Notify::new(),
            settled: AtomicU64::new(0),
            gives_back_at_the_end: AtomicBool::new(false),
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn keep(&self, tag: u64, properties: BasicProperties) {
        lock(&self.originals).insert(tag, properties);
    }

    /// From now on nothing is given back before the channel closes.
    pub(super) fn give_back_at_the_end(&self) {
        self.gives_back_at_the_end.store(true, Ordering::SeqCst);
    }

    fn gives_back(&self) -> bool {
        self.gives_back_at_the_end.load(Ordering::SeqCst)
    }

    /// Waits until everything that was delivered is settled.
    pub(super) async fn all_settled(&self) {
        loop {
            let none_out = self.none_out.notified();
            if lock(&self.originals).is_empty() {
                return;
            }
            none_out.await;
        }
    }

    fn forget(&self, tag: u64) {
        let mut originals = lock(&self.originals);
        originals.remove(&tag);
        if originals.is_empty() {
            self.none_out.notify_waiters();
        }
    }

    /// Acknowledges without waiting until it is written: it stands in the channel's queue then, in
    /// order with everything that comes after it, and the server would not confirm it anyway. The
    /// prefetch bounds how many stand there.
    fn ack(&self, tag: u64) -> Settled {
        self.forget(tag);
        let acknowledged = self
            .channel
            .basic_ack(tag, BasicAckOptions { multiple: false })
            .now_or_never();
        self.told(acknowledged.as_ref().unwrap_or(&Ok(())))
    }

    pub(super) async fn release(&self, tag: u64) -> Settled {
        self.forget(tag);
        if self.gives_back() {
            return Settled::Yes;
        }
        let options = BasicNackOptions {
            multiple: false,
            requeue: true,
        };
        let released = self.channel.basic_nack(tag, options);
        self.told(&released.await)
    }

    /// An acknowledgement fails only with its channel, and then the server hands the message out again.
    fn told(&self, outcome: &lapin::Result<()>) -> Settled {
        self.settled.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(()) => Settled::Yes,
            Err(_) => Settled::Stale,
        }
    }
}

/// The settler of one subscription.
pub(super) struct QueueSettler {
    core: Arc<Core>,
    subscription: Arc<Subscription>,
    pub(super) names: Names,
    /// Whether readers take turns, so that what goes back goes back all at once and in its order.
    pub(super) in_order: bool,
    epoch: Mutex<Option<Arc<Epoch>>>,
    busy: AtomicUsize,
    idle: Notify,
    /// Copies that the server does not take.
    pub(super) unkept: Unkept,
    stopping: watch::Sender<bool>,
    flushing: tokio::sync::Mutex<()>,
    stale: Series,
    /// The delay queues that were made for this instance.
    made: Mutex<BTreeSet<String>>,
    me: std::sync::Weak<Self>,
}

impl QueueSettler {
    pub(super) fn new(core: &Arc<Core>, subscription: &Arc<Subscription>) -> Arc<Self> {
        let context = &core.context;
        let labels = vec![Arc::clone(&context.name), Arc::clone(&subscription.label)];
        let stale = Series::of(context.metrics.as_deref(), STALE_SETTLEMENTS, labels);
        let names = topology::names(context.prefix.as_deref(), subscription);
        Arc::new_cyclic(|me| Self {
            in_order: subscription.ordered_by == Some(OrderedBy::Key) && !names.of_instance,
            names,
            core: Arc::clone(core),
            subscription: Arc::clone(subscription),
            epoch: Mutex::default(),
            busy: AtomicUsize::new(0),
            idle: Notify::new(),
            unkept: Unkept::default(),
            stopping: watch::Sender::new(false),
            flushing: tokio::sync::Mutex::default(),
            stale,
            made: Mutex::default(),
            me: me.clone(),
        })
    }

    /// Nothing more is read: what waits to be given back goes back now.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    async fn stopped(&self) {
        // The sender is this struct's own.
        let _ = self.stopping.subscribe().wait_for(|stops| *stops).await;
    }

    pub(super) fn begin(&self, epoch: Arc<Epoch>) {
        *lock(&self.epoch) = Some(epoch);
    }

    pub(super) fn end(&self) {
        *lock(&self.epoch) = None;
    }

    fn current(&self, number: u64) -> Option<Arc<Epoch>> {
        let epoch = lock(&self.epoch);
        let epoch = epoch.as_ref().filter(|epoch| epoch.number == number)?;
        epoch
            .channel
            .status()
            .connected()
            .then(|| Arc::clone(epoch))
    }

    fn counted(&self, settled: Settled) -> Settled {
        if settled == Settled::Stale {
            self.stale.record(1.0);
        }
        settled
    }

    fn acknowledge(&self, ticket: Ticket) -> Settled {
        let settled = match self.current(ticket.epoch) {
            Some(epoch) => epoch.ack(ticket.tag),
            None => Settled::Stale,
        };
        self.counted(settled)
    }

    async fn settle_copy(
        &self,
        ticket: Ticket,
        message: &Incoming,
        headers: Headers,
        target: Target,
    ) -> Result<Settled, BrokerError> {
        let Some(epoch) = self.current(ticket.epoch) else {
            return Ok(self.counted(Settled::Stale));
        };
        let _busy = Busy::new(self);
        let copy = self.copy(&epoch, ticket.tag, message, headers, &target);
        let part = target.part(&self.names, self.core.settings.instance_queue_expires);
        let Part::Queue { name: queue, .. } = &part else {
            unreachable!("a copy goes to a queue");
        };
        let label = &*self.subscription.label;
        let error = loop {
            let sent = self.send(&epoch.live, queue, &part, &target, &copy).await;
            let failed = match (sent, &target) {
                (Ok(()), target) => {
                    self.unkept.works(target.copied(), label);
                    return Ok(self.counted(epoch.ack(ticket.tag)));
                }
                (Err(failed), Target::Delay(after)) if failed.is_missing() => {
                    warn!(
                        broker = %self.core.context.name,
                        subscription = %self.subscription.label,
                        "{}; the retry waits in this process", failed.into_error(&self.core, queue)
                    );
                    self.hold(epoch, ticket.tag, copy, (*after).min(HELD_MAX));
                    return Ok(Settled::Yes);
                }
                (Err(failed), _) => failed,
            };
            let error = failed.into_error(&self.core, queue);
            let spread = self.core.context.rng.unit();
            let mut wait = self.unkept.fails(target.copied(), label, &error, spread);
            if self.in_order {
                // Tried here again and again, and others wait for it.
                wait = wait.min(COPY_WAIT_MAX);
            }
            let mut link = self.core.link.subscribe();
            tokio::select! {
                () = sleep(wait) => {}
                () = self.stopped(), if !self.in_order => {}
                // The broker hands it out again, and the place here is wanted for that.
                () = left(&mut link, &epoch.live) => {}
            }
            // What is ordered would come back behind what is out already, so it is not given back
            // before everything is. The server's limit for a delivery ends that too.
            let stays =
                self.in_order && !epoch.gives_back() && self.current(ticket.epoch).is_some();
            if !stays {
                break error;
            }
        };
        epoch.release(ticket.tag).await;
        Err(error)
    }

    fn copy(
        &self,
        epoch: &Epoch,
        tag: u64,
        message: &Incoming,
        mut headers: Headers,
        target: &Target,
    ) -> Copy {
        // The routing key of a copy is its queue; the topic has to travel with it.
        if !headers.contains(name::TOPIC) {
            headers.set(name::TOPIC, message.topic.to_string());
        }
        let original = lock(&epoch.originals)
            .get(&tag)
            .cloned()
            .unwrap_or_default();
        let keep_history = matches!(target, Target::DeadLetters);
        Copy {
            body: message.body.clone(),
            properties: headers::copy(&original, &headers, keep_history),
        }
    }

    /// Sends a copy, and makes its queue first where that is ours to do.
    async fn send(
        &self,
        live: &Live,
        queue: &str,
        part: &Part,
        target: &Target,
        copy: &Copy,
    ) -> Result<(), Failed> {
        let makes = self.subscription.topology == TopologyMode::Apply || self.names.of_instance;
        let on_first_use = matches!(target, Target::Delay(_));
        if makes && on_first_use {
            self.declare(live, queue, part)
                .await
                .map_err(Failed::Topology)?;
        }
        let send = || {
            let (body, properties) = (copy.body.clone(), copy.properties.clone());
            self.core.publish_copy(live, queue, body, properties)
        };
        match send().await {
            // Somebody deleted it since.
            Err(CopyError::Missing) if makes => {
                live.declared.lock().await.remove(queue);
                self.declare(live, queue, part)
                    .await
                    .map_err(Failed::Topology)?;
                send().await.map_err(Failed::Copy)
            }
            outcome => outcome.map_err(Failed::Copy),
        }
    }

    async fn declare(&self, live: &Live, queue: &str, part: &Part) -> Result<(), BrokerError> {
        let mut declared = live.declared.lock().await;
        // That of an instance expires when it was not declared for long, whatever is in it.
        let lasts = |at: &Instant| {
            !self.names.of_instance || at.elapsed() < self.core.settings.instance_queue_expires / 2
        };
        if declared.get(queue).is_some_and(lasts) {
            return Ok(());
        }
        let parts = [(part.clone(), TopologyMode::Apply)];
        declare::all(&self.core, &live.consume, &parts).await?;
        declared.insert(queue.to_owned(), Instant::now());
        if self.names.of_instance {
            lock(&self.made).insert(queue.to_owned());
        }
        Ok(())
    }

    /// Keeps the delivery out for `wait`, then puts the copy into its own queue. If anything ends
    /// before that, the server still has the original.
    fn hold(&self, epoch: Arc<Epoch>, tag: u64, copy: Copy, wait: Duration) {
        let Some(me) = self.me.upgrade() else {
            return;
        };
        let mut link = self.core.link.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                () = sleep(wait) => {}
                () = left(&mut link, &epoch.live) => return,
            }
            let queue = &me.names.queue;
            let sent = me
                .core
                .publish_copy(&epoch.live, queue, copy.body, copy.properties)
                .await;
            match sent {
                Ok(()) => me.counted(epoch.ack(tag)),
                Err(error) => {
                    let error = error.into_broker_error(&me.core.context.name, queue);
                    warn!(subscription = %me.subscription.label, "{error}; the message is given back");
                    epoch.release(tag).await
                }
            };
        });
    }

    /// One request about the queue; `false` if it was not answered.
    async fn ask(&self, epoch: &Epoch) -> bool {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let Ok(queue) = declare::short(&self.core.context.name, &self.names.queue) else {
            return false;
        };
        let asked = epoch
            .channel
            .queue_declare(queue, options, FieldTable::default());
        asked.await.is_ok()
    }

    /// Takes along what this instance had for itself: it does not come back.
    pub(super) async fn leave(&self) {
        let ours = self.names.of_instance && self.subscription.topology != TopologyMode::Off;
        let Some(live) = self.core.live().filter(|_| ours) else {
            return;
        };
        let mut queues = vec![self.names.queue.clone()];
        queues.extend(lock(&self.made).iter().cloned());
        // It goes by itself otherwise.
        if let Err(error) = declare::delete(&self.core, &live.consume, &queues).await {
            debug!(subscription = %self.subscription.label, "{error}");
        }
    }

    /// Waits until the server has taken every settlement, then closes the channel.
    ///
    /// A written acknowledgement is not yet a taken one: a quorum queue takes settlements in small
    /// lots beside its other work, and a channel that closes before that gives the messages back.
    /// Each request about the queue is answered between two such lots, so enough of them, over enough
    /// time for the queue's disk, leave nothing behind.
    pub(super) async fn flush(&self, deadline: Instant) {
        // Whoever comes second waits until the first is done.
        let Ok(_first) = timeout_at(deadline, self.flushing.lock()).await else {
            return;
        };
        let working = async {
            loop {
                let idle = self.idle.notified();
                if self.busy.load(Ordering::SeqCst) == 0 {
                    return;
                }
                idle.await;
            }
        };
        // Past the deadline the channel closes with what it has.
        let _ = timeout_at(deadline, working).await;
        let Some(epoch) = lock(&self.epoch).take() else {
            return;
        };
        let requests = epoch.settled.load(Ordering::Relaxed) / TAKEN_PER_REQUEST;
        let asking = async {
            for _ in 0..requests.clamp(REQUESTS_MIN, REQUESTS_MAX) {
                if !self.ask(&epoch).await {
                    return;
                }
            }
            let spread = if requests == 0 { 1 } else { SPREAD_REQUESTS };
            for _ in 0..spread {
                sleep(SPREAD_WAIT).await;
                if !self.ask(&epoch).await {
                    return;
                }
            }
            let _ = epoch.channel.close(REPLY_SUCCESS, "OK".into()).await;
        };
        let _ = timeout_at(deadline, asking).await;
    }
}

async fn left(link: &mut watch::Receiver<Link>, live: &Arc<Live>) {
    let gone = |link: &Link| !matches!(link, Link::Up(now) if Arc::ptr_eq(now, live));
    // The sender lives in the core, which the settler holds.
    let _ = link.wait_for(gone).await;
}

struct Copy {
    body: bytes::Bytes,
    properties: BasicProperties,
}

enum Target {
    Delay(Duration),
    DeadLetters,
}

impl Target {
    fn copied(&self) -> Copied {
        match self {
            Self::Delay(_) => Copied::Retries,
            Self::DeadLetters => Copied::DeadLetters,
        }
    }

    fn part(&self, names: &Names, expires: Duration) -> Part {
        match self {
            Self::Delay(after) => topology::delay_queue(names, *after, expires),
            Self::DeadLetters => topology::dead_letter_queue(names),
        }
    }
}

/// Why a copy did not get there.
enum Failed {
    Topology(BrokerError),
    Copy(CopyError),
}

impl Failed {
    /// Whether the queue itself is what is wrong, so that the same copy to it cannot succeed.
    fn is_missing(&self) -> bool {
        match self {
            Self::Topology(error) => !error.is_retryable(),
            Self::Copy(error) => matches!(error, CopyError::Missing),
        }
    }

    fn into_error(self, core: &Core, queue: &str) -> BrokerError {
        match self {
            Self::Topology(error) => error,
            Self::Copy(error) => error.into_broker_error(&core.context.name, queue),
        }
    }
}

struct Busy<'a>(&'a QueueSettler);

impl<'a> Busy<'a> {
    fn new(settler: &'a QueueSettler) -> Self {
        settler.busy.fetch_add(1, Ordering::SeqCst);
        Self(settler)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if self.0.busy.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Settler for QueueSettler {
    fn done(&self, ticket: Ticket) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        Box::pin(future::ready(Ok(self.acknowledge(ticket))))
    }

    fn done_at_once(&self, ticket: Ticket) -> Option<Settled> {
        Some(self.acknowledge(ticket))
    }

    fn retry(
        &self,
        ticket: Ticket,
        message: Arc<Incoming>,
        after: Duration,
        headers: Headers,
    ) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        Box::pin(async move {
            self.settle_copy(ticket, &message, headers, Target::Delay(after))
                .await
        })
    }

    fn dead_letter(
        &self,
        ticket: Ticket,
        message: Arc<Incoming>,
        headers: Headers,
    ) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        Box::pin(async move {
            if self.subscription.dead_letter {
                self.settle_copy(ticket, &message, headers, Target::DeadLetters)
                    .await
            } else {
                self.done(ticket).await
            }
        })
    }

    fn release(&self, ticket: Ticket) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        Box::pin(async move {
            let settled = match self.current(ticket.epoch) {
                Some(epoch) => {
                    let _busy = Busy::new(self);
                    epoch.release(ticket.tag).await
                }
                None => Settled::Stale,
            };
            Ok(self.counted(settled))
        })
    }

    fn is_current(&self, epoch: u64) -> bool {
        self.current(epoch).is_some()
    }
}
