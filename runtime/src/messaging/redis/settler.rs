//! Settles what was handed out: acknowledges, moves copies and releases, each in one step on the
//! server.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::handling::BoxFuture;
use crate::message::headers::name;
use crate::message::{Headers, Incoming};
use crate::messaging::{BrokerError, Copied, Settled, Settler, Subscription, Ticket, Unkept};
use crate::observability::metrics::{
    CONSUMER_LAG, DEAD_LETTERED, STALE_SETTLEMENTS, Series, TRIMMED,
};
use crate::redis::Failure;

use super::acks::Ack;
use super::core::{Core, lock};
use super::epoch::Epoch;
use super::errors::broker_error;
use super::fields;
use super::names::Names;
use super::out::{Entry, Source};
use super::scripts;

/// The settler of one subscription.
pub(super) struct StreamSettler {
    core: Arc<Core>,
    subscription: Arc<Subscription>,
    pub(super) names: Arc<Names>,
    epoch: Mutex<Option<Arc<Epoch>>>,
    /// A retry waits on the server and should be moved when it is due.
    pub(super) delayed: Notify,
    busy: AtomicUsize,
    idle: Notify,
    /// Copies that the server does not take.
    pub(super) unkept: Unkept,
    stopping: watch::Sender<bool>,
    stale: Series,
    trimmed: Series,
    lag: Series,
}

impl StreamSettler {
    pub(super) fn new(core: &Arc<Core>, subscription: &Arc<Subscription>) -> Arc<Self> {
        let context = &core.context;
        let labels = vec![Arc::clone(&context.name), Arc::clone(&subscription.label)];
        Arc::new(Self {
            names: Arc::new(Names::of(context.prefix.as_deref(), subscription)),
            stale: Series::of(
                context.metrics.as_deref(),
                STALE_SETTLEMENTS,
                labels.clone(),
            ),
            lag: Series::of(context.metrics.as_deref(), CONSUMER_LAG, labels.clone()),
            trimmed: Series::of(context.metrics.as_deref(), TRIMMED, labels),
            core: Arc::clone(core),
            subscription: Arc::clone(subscription),
            epoch: Mutex::default(),
            delayed: Notify::new(),
            busy: AtomicUsize::new(0),
            idle: Notify::new(),
            unkept: Unkept::default(),
            stopping: watch::Sender::new(false),
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

    /// Ends the session: what it has out can no longer be settled.
    pub(super) fn end(&self) {
        if let Some(epoch) = lock(&self.epoch).take() {
            epoch.end();
        }
    }

    fn current(&self, number: u64) -> Option<Arc<Epoch>> {
        let epoch = lock(&self.epoch);
        let epoch = epoch.as_ref().filter(|epoch| epoch.number == number)?;
        epoch.is_current().then(|| Arc::clone(epoch))
    }

    /// The session and the entry that a ticket is about.
    fn find(&self, ticket: Ticket) -> Option<(Arc<Epoch>, Entry)> {
        let epoch = self.current(ticket.epoch)?;
        let entry = epoch.out.get(ticket.tag)?;
        Some((epoch, entry))
    }

    /// Counts messages that the stream lost before they were handled.
    pub(super) fn trimmed(&self, count: i64) {
        self.trimmed
            .record(u32::try_from(count).unwrap_or(u32::MAX).into());
    }

    /// So many messages are not settled yet; below zero, the server cannot tell.
    pub(super) fn lags_by(&self, count: i64) {
        if let Ok(count) = u32::try_from(count) {
            self.lag.record(count.into());
        }
    }

    /// Counts a message that is given up before its handler sees it.
    pub(super) fn given_up(&self, reason: &'static str) {
        let label = Arc::clone(&self.subscription.label);
        let labels = vec![label, "".into(), reason.into()];
        let metrics = self.core.context.metrics.as_deref();
        Series::of(metrics, DEAD_LETTERED, labels).record(1.0);
    }

    fn counted(&self, settled: Settled) -> Settled {
        if settled == Settled::Stale {
            self.stale.record(1.0);
        }
        settled
    }

    fn error(&self, failure: &Failure) -> BrokerError {
        broker_error(&self.core.context.name, failure)
    }

    async fn acknowledge(&self, ticket: Ticket) -> Settled {
        let Some((epoch, entry)) = self.find(ticket) else {
            return self.counted(Settled::Stale);
        };
        let _busy = Busy::new(self);
        let (done, settled) = oneshot::channel();
        let ack = Ack {
            source: entry.source,
            id: entry.id,
            done,
        };
        let settled = match epoch.acks.send(ack).await {
            Ok(()) => settled.await.unwrap_or(Settled::Stale),
            Err(_) => Settled::Stale,
        };
        epoch.out.forget(ticket.tag);
        self.counted(settled)
    }

    /// Does what replaces an entry by a copy of its message; where that fails, gives it back.
    async fn replace(
        &self,
        ticket: Ticket,
        message: &Incoming,
        headers: Headers,
        target: Target,
    ) -> Result<Settled, BrokerError> {
        let Some((epoch, entry)) = self.find(ticket) else {
            return Ok(self.counted(Settled::Stale));
        };
        let _busy = Busy::new(self);
        let headers = copied(headers, message);
        let label = &*self.subscription.label;
        let place = match target {
            Target::DeadLetters => Copied::DeadLetters,
            Target::Delayed(_) => Copied::Retries,
        };
        let moved = match target {
            Target::DeadLetters => {
                let write = |add: &mut dyn FnMut(&[u8])| {
                    fields::write(self.payload_field(), &message.body, &headers, add);
                };
                epoch.session.bury(&entry, write).await
            }
            Target::Delayed(after) => self.delay(&epoch, &entry, message, &headers, after).await,
        };
        match moved {
            Ok(moved) => {
                self.unkept.works(place, label);
                epoch.out.forget(ticket.tag);
                Ok(self.counted(if moved { Settled::Yes } else { Settled::Stale }))
            }
            Err(failure) => {
                let error = self.error(&failure);
                let spread = self.core.context.rng.unit();
                let wait = self.unkept.fails(place, label, &error, spread);
                tokio::select! {
                    () = sleep(wait) => {}
                    () = self.stopped() => {}
                    () = epoch.left() => {}
                }
                self.give_back(&epoch, ticket.tag, &entry).await;
                Err(error)
            }
        }
    }

    async fn delay(
        &self,
        epoch: &Epoch,
        entry: &Entry,
        message: &Incoming,
        headers: &Headers,
        after: Duration,
    ) -> Result<bool, Failure> {
        let (session, names) = (&epoch.session, &self.names);
        let mut script = scripts::RETRY.key(session.key(entry.source));
        script.key(&names.delayed).key(&names.lease);
        script
            .arg(&names.group)
            .arg(&*session.consumer)
            .arg(&*entry.id)
            .arg(session.token());
        script.arg(i32::from(entry.source == Source::Retries));
        script.arg(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        let stream = i32::from(entry.source == Source::Stream);
        script.arg(format!("{stream}/{}", entry.id));
        fields::write(self.payload_field(), &message.body, headers, |part| {
            script.arg(part);
        });
        let moved: i64 = session.live.settle.run(&session.what(), &script).await?;
        self.delayed.notify_one();
        Ok(moved == 1)
    }

    fn payload_field(&self) -> &str {
        &self.core.settings.payload_field
    }

    async fn give_back(&self, epoch: &Epoch, tag: u64, entry: &Entry) -> Settled {
        // First, so that a sweep which claims it at once does not take it for one that is out.
        epoch.out.forget(tag);
        let released = epoch.session.release(entry).await;
        epoch.released.notify_one();
        match released {
            Ok(true) => Settled::Yes,
            Ok(false) | Err(_) => Settled::Stale,
        }
    }

    /// Waits until the server has taken every settlement, gives back what is out, and leaves the
    /// group.
    pub(super) async fn flush(&self, deadline: Instant) {
        let working = async {
            loop {
                let idle = self.idle.notified();
                if self.busy.load(Ordering::SeqCst) == 0 {
                    return;
                }
                idle.await;
            }
        };
        // Past the deadline others take what is left once it looks abandoned.
        let _ = timeout_at(deadline, working).await;
        let Some(epoch) = lock(&self.epoch).take() else {
            return;
        };
        let leaving = async {
            for (tag, entry) in epoch.out.all() {
                self.give_back(&epoch, tag, &entry).await;
            }
            leave(&epoch).await
        };
        let _ = timeout_at(deadline, leaving).await;
        epoch.end();
    }
}

/// Takes the consumer out of the group, and the group away where it is this instance's own.
pub(super) async fn leave(epoch: &Epoch) -> Result<(), Failure> {
    let session = &epoch.session;
    let (names, connection) = (&session.names, &session.live.settle);
    let what = session.what();
    if let Some(register) = &names.register {
        let mut script = scripts::RETIRE.key(&names.stream);
        script.key(&names.retry).key(&names.delayed);
        script.key(&names.state).key(register).arg(&names.group);
        let _: i64 = connection.run(&what, &script).await?;
    } else {
        let mut script = scripts::LEAVE.key(&names.stream);
        script.key(&names.retry);
        script.arg(&names.group).arg(&*session.consumer);
        let _: i64 = connection.run(&what, &script).await?;
    }
    give_lease_back(epoch).await
}

pub(super) async fn give_lease_back(epoch: &Epoch) -> Result<(), Failure> {
    let session = &epoch.session;
    if let Some(token) = &session.token {
        let mut script = scripts::GIVE_BACK.key(&session.names.lease);
        script.arg(&**token);
        let _: i64 = session.live.settle.run(&session.what(), &script).await?;
    }
    Ok(())
}

/// The headers of a copy, with what makes it the same message: the entry's id does not go with it.
pub(super) fn copied(mut headers: Headers, message: &Incoming) -> Headers {
    if !headers.contains(name::MESSAGE_ID) {
        headers.set(name::MESSAGE_ID, message.id.to_string());
    }
    if !headers.contains(name::TOPIC) {
        headers.set(name::TOPIC, message.topic.to_string());
    }
    headers
}

enum Target {
    DeadLetters,
    Delayed(Duration),
}

struct Busy<'a>(&'a StreamSettler);

impl<'a> Busy<'a> {
    fn new(settler: &'a StreamSettler) -> Self {
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

impl Settler for StreamSettler {
    fn done(&self, ticket: Ticket) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        Box::pin(async move { Ok(self.acknowledge(ticket).await) })
    }

    fn retry(
        &self,
        ticket: Ticket,
        message: Arc<Incoming>,
        after: Duration,
        headers: Headers,
    ) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        Box::pin(async move {
            self.replace(ticket, &message, headers, Target::Delayed(after))
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
                self.replace(ticket, &message, headers, Target::DeadLetters)
                    .await
            } else {
                Ok(self.acknowledge(ticket).await)
            }
        })
    }

    fn release(&self, ticket: Ticket) -> BoxFuture<'_, Result<Settled, BrokerError>> {
        Box::pin(async move {
            let Some((epoch, entry)) = self.find(ticket) else {
                return Ok(self.counted(Settled::Stale));
            };
            let _busy = Busy::new(self);
            let settled = self.give_back(&epoch, ticket.tag, &entry).await;
            Ok(self.counted(settled))
        })
    }

    fn is_current(&self, epoch: u64) -> bool {
        self.current(epoch).is_some()
    }
}
