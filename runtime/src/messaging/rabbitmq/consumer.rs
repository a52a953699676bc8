//! A running consumer: one channel per subscription, rebuilt whenever anything on it ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future};
use lapin::Channel;
use lapin::message::Delivery as AmqpDelivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::handling::BoxFuture;
use crate::message::headers::name;
use crate::message::{Headers, Incoming, Origin, Place};
use crate::messaging::{
    BrokerError, BrokerErrorKind, Consumer, ConsumerState, Delivery, Settlement, Settler,
    Subscription, Ticket, TopologyMode,
};

use super::connection::{Live, limited};
use super::core::{BACKOFF_MAX, Core, Link};
use super::declare::{self, short};
use super::headers;
use super::settler::{Epoch, QueueSettler};
use super::topology::{self, Part};

/// A consumer that ran this long starts over with short waits.
const STEADY: Duration = Duration::from_secs(10);
/// How long a consumer that was paused waits for what is out before it fetches again.
const RESUME_WAIT: Duration = Duration::from_secs(30);
/// How long the server may take for the last settlements of a channel that closes.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// Most deliveries that are handed on between two looks at what is wanted.
const AT_ONCE: usize = 64;
/// How often a channel without a consumer is looked at.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Run,
    /// With so many out at most.
    Trickle(u16),
    Pause,
    Stop,
}

/// The consumer of one subscription.
pub(super) struct QueueConsumer {
    wish: watch::Sender<Wish>,
    state: watch::Sender<ConsumerState>,
    pub(super) settler: Arc<QueueSettler>,
}

impl QueueConsumer {
    pub(super) fn start(
        core: &Arc<Core>,
        subscription: &Arc<Subscription>,
        deliveries: mpsc::Sender<Delivery>,
    ) -> Arc<Self> {
        let consumer = Arc::new(Self {
            wish: watch::Sender::new(Wish::Run),
            state: watch::Sender::new(ConsumerState::Starting),
            settler: QueueSettler::new(core, subscription),
        });
        let settler = Arc::clone(&consumer.settler);
        let queue = Arc::from(settler.names.queue.as_str());
        let task = Task {
            core: Arc::clone(core),
            subscription: Arc::clone(subscription),
            wish: consumer.wish.subscribe(),
            state: consumer.state.clone(),
            deliveries,
            erased: Arc::clone(&settler) as Arc<dyn Settler>,
            in_order: settler.in_order,
            settler,
            queue,
            exchange: "".into(),
            topic: "".into(),
        };
        tokio::spawn(task.run());
        consumer
    }

    fn wish_for(&self, wish: Wish) {
        // Stopped is for good.
        self.wish.send_if_modified(|now| {
            let changes = *now != Wish::Stop && *now != wish;
            if changes {
                *now = wish;
            }
            changes
        });
    }

    async fn until(&self, reached: impl FnMut(&ConsumerState) -> bool) {
        // The sender is this struct's own.
        let _ = self.state.subscribe().wait_for(reached).await;
    }
}

impl Consumer for QueueConsumer {
    fn pause(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.wish_for(Wish::Pause);
            self.until(|state| *state != ConsumerState::Running).await;
        })
    }

    fn resume(&self) -> BoxFuture<'_, ()> {
        // Does not wait: what is out has to be settled first, perhaps by whoever calls.
        Box::pin(async { self.wish_for(Wish::Run) })
    }

    fn trickle(&self, most: u16) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.wish_for(Wish::Trickle(most)) })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.wish_for(Wish::Stop);
            self.settler.stop();
            self.until(|state| *state == ConsumerState::Stopped).await;
        })
    }

    fn state(&self) -> ConsumerState {
        let state = self.state.borrow().clone();
        match self.settler.unkept.lasting() {
            Some(why) if state == ConsumerState::Running => ConsumerState::Failed(why),
            _ => state,
        }
    }

    fn changed(&self, known: ConsumerState) -> BoxFuture<'_, ConsumerState> {
        let mut state = self.state.subscribe();
        Box::pin(async move {
            // The sender is this struct's own.
            let now = state.wait_for(|now| *now != known).await;
            now.map_or(ConsumerState::Stopped, |now| now.clone())
        })
    }
}

struct Task {
    core: Arc<Core>,
    subscription: Arc<Subscription>,
    wish: watch::Receiver<Wish>,
    state: watch::Sender<ConsumerState>,
    deliveries: mpsc::Sender<Delivery>,
    settler: Arc<QueueSettler>,
    erased: Arc<dyn Settler>,
    queue: Arc<str>,
    /// Whether readers take turns: what one of them has goes back all at once, in its order.
    in_order: bool,
    /// The exchange and the topic of the last delivery: they seldom change.
    exchange: Arc<str>,
    topic: Arc<str>,
}

/// A consumer on the server: its tag, and what it is sent.
type Running = (ShortString, lapin::Consumer);

/// How a channel of the consumer ended.
enum End {
    Stopped,
    Lost(BrokerError),
}

impl Task {
    async fn run(mut self) {
        let mut attempt = 0_u32;
        let mut told: Option<String> = None;
        while let Some(live) = self.next_connection().await {
            let begun = Instant::now();
            let (mut stop, state) = (self.wish.clone(), self.state.clone());
            let end = tokio::select! {
                // Set-up waits for the server; a stop does not wait for that. Once it consumes, the
                // loop sees the stop by itself and gives back what it holds.
                () = stopped_before_running(&mut stop, &state) => End::Stopped,
                end = self.serve(&live, &mut told) => end,
            };
            let error = match end {
                End::Stopped => break,
                End::Lost(error) => error,
            };
            self.settler.end();
            if begun.elapsed() > STEADY {
                attempt = 0;
            }
            let text = error.to_string();
            // What ran can run again: the server ended it, for one whose handler took too long say.
            // If somebody has to act after all, the next attempt to set it up shows that.
            let ran = *self.state.borrow() == ConsumerState::Running;
            let needs_somebody = !ran && !error.is_retryable();
            self.state.send_replace(if needs_somebody {
                ConsumerState::Failed(text.clone())
            } else {
                ConsumerState::Starting
            });
            if live.is_up() && told.as_ref() != Some(&text) {
                warn!(
                    broker = %self.core.context.name,
                    subscription = %self.subscription.label,
                    "not consuming: {text}"
                );
                told = Some(text);
            }
            let wait = if needs_somebody {
                self.core
                    .backoff(u32::MAX, BACKOFF_MAX)
                    .max(BACKOFF_MAX / 2)
            } else {
                self.core.backoff(attempt, BACKOFF_MAX)
            };
            attempt = attempt.saturating_add(1);
            let mut link = self.core.link.subscribe();
            tokio::select! {
                () = sleep(wait) => {}
                () = stopped(&mut self.wish) => break,
                // Another connection: nothing of this one's trouble need be true for it.
                () = replaced(&mut link, &live) => attempt = 0,
            }
        }
        self.state.send_replace(ConsumerState::Stopped);
    }

    /// The connection once it is up; `None` to stop.
    async fn next_connection(&mut self) -> Option<Arc<Live>> {
        let mut link = self.core.link.subscribe();
        let wanted = |link: &Link| match link {
            Link::Up(live) => live.is_up(),
            Link::Closed => true,
            Link::Idle | Link::Down | Link::Failed(_) => false,
        };
        let found = tokio::select! {
            found = link.wait_for(wanted) => found.ok()?.clone(),
            () = stopped(&mut self.wish) => return None,
        };
        match found {
            Link::Up(live) => Some(live),
            _ => None,
        }
    }

    async fn serve(&mut self, live: &Arc<Live>, told: &mut Option<String>) -> End {
        match self.serve_channel(live, told).await {
            Ok(end) => end,
            Err(error) => End::Lost(error),
        }
    }

    async fn serve_channel(
        &mut self,
        live: &Arc<Live>,
        told: &mut Option<String>,
    ) -> Result<End, BrokerError> {
        let core = Arc::clone(&self.core);
        let broker = &core.context.name;
        let mode = self.subscription.topology;
        let prefix = core.context.prefix.as_deref();
        let parts: Vec<_> = topology::parts(
            prefix,
            &core.settings.exchange,
            core.settings.instance_queue_expires,
            &self.subscription,
        )
        .into_iter()
        .map(|part| {
            let mode = match (&part, mode) {
                // What this instance has for itself is bound here or nowhere.
                (Part::Binding { .. }, TopologyMode::Verify) if self.settler.names.of_instance => {
                    TopologyMode::Apply
                }
                (_, mode) => mode,
            };
            (part, mode)
        })
        .collect();
        declare::all(&core, &live.consume, &parts).await?;
        let channel = limited(broker, "a channel", live.consume.create_channel()).await?;
        let epoch = Arc::new(Epoch::new(
            core.next_epoch(),
            channel.clone(),
            Arc::clone(live),
        ));
        self.settler.begin(Arc::clone(&epoch));
        let what = format!("queue `{}`", self.queue);
        let mut running: Option<Running> = None;
        // The prefetch is that of a consumer when it begins.
        let mut prefetch = 0;
        let mut tags = 0_u64;
        let mut settle_first = None;
        let in_order = self.in_order;
        // What came while a reader of what is ordered was paused.
        let mut held: Option<VecDeque<AmqpDelivery>> = None;
        loop {
            let wish = *self.wish.borrow_and_update();
            match (wish, running.take()) {
                (Wish::Run | Wish::Trickle(_), None) if settle_first.is_some() => {
                    self.state.send_replace(ConsumerState::Starting);
                }
                (Wish::Run | Wish::Trickle(_), None) => {
                    if prefetch != self.prefetch(wish) {
                        prefetch = self.prefetch(wish);
                        let qos = channel.basic_qos(prefetch, BasicQosOptions { global: false });
                        limited(broker, "the prefetch", qos).await?;
                    }
                    // A tag that is used twice makes a quorum queue deliver again what is out.
                    tags += 1;
                    let tag = short(broker, &self.tag(tags))?;
                    let consume = channel.basic_consume(
                        short(broker, &self.queue)?,
                        tag.clone(),
                        BasicConsumeOptions::default(),
                        FieldTable::default(),
                    );
                    running = Some((tag, limited(broker, &what, consume).await?));
                    self.state.send_replace(ConsumerState::Running);
                    if told.take().is_some() {
                        info!(broker = %broker, subscription = %self.subscription.label, "consuming again");
                    }
                }
                (Wish::Run | Wish::Trickle(_), Some(consumer))
                    if prefetch != self.prefetch(wish) =>
                {
                    if !self.cancel(&channel, &epoch, consumer).await? {
                        return Ok(End::Stopped);
                    }
                    settle_first = Some(Instant::now() + RESUME_WAIT);
                    continue;
                }
                (Wish::Run | Wish::Trickle(_), consumer) => {
                    running = consumer;
                    if let Some(held) = held.take() {
                        for delivery in held {
                            if !self.push(&epoch, delivery).await {
                                return Ok(self.leave(&epoch, running).await);
                            }
                        }
                        self.state.send_replace(ConsumerState::Running);
                    }
                }
                // Without a consumer here the server would give the rest to the next reader, before
                // what is out.
                (Wish::Pause, Some(consumer)) if in_order => {
                    running = Some(consumer);
                    if held.is_none() {
                        held = Some(VecDeque::new());
                        self.state.send_replace(ConsumerState::Paused);
                    }
                }
                (Wish::Stop, consumer @ Some(_)) if in_order => {
                    return Ok(self.leave(&epoch, consumer).await);
                }
                (Wish::Pause, None) => {
                    self.state.send_replace(ConsumerState::Paused);
                }
                (Wish::Pause, Some(consumer)) => {
                    if !self.cancel(&channel, &epoch, consumer).await? {
                        return Ok(End::Stopped);
                    }
                    // The server counts the prefetch for each consumer; the next one must not come on
                    // top of what this one still has out.
                    settle_first = Some(Instant::now() + RESUME_WAIT);
                    self.state.send_replace(ConsumerState::Paused);
                }
                (Wish::Stop, consumer) => {
                    if let Some((tag, mut consumer)) = consumer {
                        let cancel = channel.basic_cancel(tag, BasicCancelOptions::default());
                        limited(broker, &what, cancel).await?;
                        while let Some(Ok(delivery)) = consumer.next().await {
                            epoch.release(delivery.delivery_tag).await;
                        }
                    }
                    return Ok(End::Stopped);
                }
            }
            // What has arrived already needs no look at everything else in between.
            let mut arrived = None;
            if let Some((_, consumer)) = &mut running {
                for _ in 0..AT_ONCE {
                    match consumer.next().now_or_never() {
                        Some(Some(Ok(delivery))) => {
                            if !self.hand_on(&epoch, delivery, &mut held).await {
                                return Ok(self.leave(&epoch, running).await);
                            }
                        }
                        ended => {
                            arrived = ended;
                            break;
                        }
                    }
                }
            }
            let idle = running.is_none();
            let next = async {
                match (arrived, &mut running) {
                    (Some(arrived), _) => arrived,
                    (None, Some((_, consumer))) => consumer.next().await,
                    (None, None) => future::pending().await,
                }
            };
            let look = async {
                if idle {
                    sleep(LOOK).await;
                } else {
                    future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                // The sender outlives the task: whoever wants it stopped says so.
                Ok(()) = self.wish.changed() => {}
                next = next => match next {
                    Some(Ok(delivery)) => {
                        if !self.hand_on(&epoch, delivery, &mut held).await {
                            return Ok(self.leave(&epoch, running).await);
                        }
                    }
                    Some(Err(error)) => {
                        return Err(super::errors::operation(broker, &what, &error));
                    }
                    None => {
                        let text = format!("{what}: the server ended the consumer (queue deleted or moved)");
                        return Err(BrokerError::new(BrokerErrorKind::ConnectionLost, broker, text));
                    }
                },
                () = settled_by(&epoch, settle_first), if wish != Wish::Pause && settle_first.is_some() => {
                    settle_first = None;
                }
                () = look => {
                    if !channel.status().connected() {
                        let text = format!("{what}: the channel is gone");
                        return Err(BrokerError::new(BrokerErrorKind::ConnectionLost, broker, text));
                    }
                }
            }
        }
    }

    /// How many may be out. What is ordered is given back all at once, few or many: there a trickle
    /// is no different.
    fn prefetch(&self, wish: Wish) -> u16 {
        let all = self.subscription.prefetch.max(1);
        match wish {
            Wish::Trickle(most) if !self.in_order => most.clamp(1, all),
            _ => all,
        }
    }

    /// Ends a consumer and hands on what it had fetched: that is out already as far as the server is
    /// concerned. False if nobody takes deliveries any more.
    async fn cancel(
        &mut self,
        channel: &Channel,
        epoch: &Arc<Epoch>,
        (tag, mut consumer): Running,
    ) -> Result<bool, BrokerError> {
        let what = format!("queue `{}`", self.queue);
        let cancel = channel.basic_cancel(tag, BasicCancelOptions::default());
        limited(&self.core.context.name, &what, cancel).await?;
        while let Some(Ok(delivery)) = consumer.next().await {
            if !self.push(epoch, delivery).await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ends the reading. Of what is ordered, what is out is settled first, and what comes meanwhile stays
    /// with the channel: when that closes, all of it goes back at once, in its order, and only then
    /// does the next reader begin. A consumer that is cancelled makes way at once, for what comes after.
    async fn leave(&mut self, epoch: &Epoch, consumer: Option<Running>) -> End {
        let Some((_, mut consumer)) = consumer.filter(|_| self.in_order) else {
            return End::Stopped;
        };
        epoch.give_back_at_the_end();
        self.state.send_replace(ConsumerState::Stopped);
        let unread = async { while let Some(Ok(_)) = consumer.next().await {} };
        tokio::select! {
            // Closed by whoever disconnects, or lost.
            () = unread => {}
            () = epoch.all_settled() => self.settler.flush(Instant::now() + CLOSE_MAX).await,
        }
        End::Stopped
    }

    /// Gives back a delivery that the engine does not take any more.
    async fn give_back(&self, epoch: &Epoch, tag: u64) {
        if self.in_order {
            epoch.give_back_at_the_end();
        }
        epoch.release(tag).await;
    }

    /// What the server lists the consumer as.
    fn tag(&self, number: u64) -> String {
        let mut tag = format!("{}@{}", self.subscription.label, self.core.context.instance);
        while tag.len() > 230 {
            tag.pop();
        }
        format!("{tag}#{number}")
    }

    /// Hands a delivery on in its turn: it stays behind what is held back while a reader of what is
    /// ordered is paused. False if nobody takes deliveries any more.
    async fn hand_on(
        &mut self,
        epoch: &Arc<Epoch>,
        delivery: AmqpDelivery,
        held: &mut Option<VecDeque<AmqpDelivery>>,
    ) -> bool {
        match held {
            // No more than the prefetch.
            Some(held) => {
                held.push_back(delivery);
                true
            }
            None => self.push(epoch, delivery).await,
        }
    }

    /// Hands a delivery to the engine; false if nobody takes deliveries any more.
    async fn push(&mut self, epoch: &Arc<Epoch>, delivery: AmqpDelivery) -> bool {
        let tag = delivery.delivery_tag;
        let ticket = Ticket::new(epoch.number(), tag);
        let settlement = Settlement::new(Arc::clone(&self.erased), ticket);
        let delivery = Delivery::new(self.read(epoch, delivery), settlement);
        let sent = match self.deliveries.try_send(delivery) {
            Ok(()) => return true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(delivery)) => tokio::select! {
                sent = self.deliveries.send(delivery) => sent.is_ok(),
                () = stopped(&mut self.wish) => {
                    self.give_back(epoch, tag).await;
                    // The loop sees the wish and ends in order.
                    self.wish.mark_changed();
                    return true;
                }
            },
        };
        if !sent {
            self.give_back(epoch, tag).await;
        }
        sent
    }

    fn read(&mut self, epoch: &Epoch, delivery: AmqpDelivery) -> Incoming {
        let headers = headers::read(&delivery.properties);
        let properties = delivery.properties.with_headers(FieldTable::default());
        epoch.keep(delivery.delivery_tag, properties);
        let exchange = delivery.exchange.as_str();
        if *self.exchange != *exchange {
            self.exchange = exchange.into();
        }
        let topic = topic(
            &self.subscription,
            exchange,
            delivery.routing_key.as_str(),
            &headers,
            &self.topic,
        );
        if !Arc::ptr_eq(&self.topic, &topic) {
            self.topic = Arc::clone(&topic);
        }
        let routing_key = if *topic == *delivery.routing_key.as_str() {
            Arc::clone(&topic)
        } else {
            delivery.routing_key.as_str().into()
        };
        let place = Place::RabbitMq {
            exchange: Arc::clone(&self.exchange),
            routing_key,
            queue: Arc::clone(&self.queue),
        };
        let origin = Origin::new(Arc::clone(&self.core.context.name), place);
        let mut incoming = Incoming::new(topic, Bytes::from(delivery.data), headers, origin);
        incoming.redelivered = delivery.redelivered;
        incoming
    }
}

/// The topic of a message. What came straight to the queue (a copy of ours, or a foreign publisher)
/// has the queue's name for its routing key. `last` is shared where it is the same.
pub(super) fn topic(
    subscription: &Subscription,
    exchange: &str,
    routing_key: &str,
    headers: &Headers,
    last: &Arc<str>,
) -> Arc<str> {
    let shared = |topic: &str| {
        if **last == *topic {
            Arc::clone(last)
        } else {
            topic.into()
        }
    };
    if !exchange.is_empty() && !routing_key.is_empty() {
        return shared(routing_key);
    }
    if let Some(topic) = headers.text(name::TOPIC) {
        return shared(&topic);
    }
    if routing_key.is_empty() || !subscription.topic.is_pattern() {
        return shared(subscription.topic.as_str());
    }
    shared(routing_key)
}

/// Waits until nothing is out any more, at the latest until `deadline`.
async fn settled_by(epoch: &Epoch, deadline: Option<Instant>) {
    if let Some(deadline) = deadline {
        // A handler that takes longer is not waited for; then more than one prefetch can be out.
        let _ = timeout_at(deadline, epoch.all_settled()).await;
    }
}

async fn stopped(wish: &mut watch::Receiver<Wish>) {
    // The sender is held by whoever can ask for a stop; without it, nobody can.
    if wish.wait_for(|wish| *wish == Wish::Stop).await.is_err() {
        future::pending::<()>().await;
    }
}

async fn stopped_before_running(
    wish: &mut watch::Receiver<Wish>,
    state: &watch::Sender<ConsumerState>,
) {
    stopped(wish).await;
    let setting_up =
        |state: &ConsumerState| matches!(state, ConsumerState::Starting | ConsumerState::Failed(_));
    // The sender is the task's own.
    let _ = state.subscribe().wait_for(setting_up).await;
}

async fn replaced(link: &mut watch::Receiver<Link>, live: &Arc<Live>) {
    let other = |link: &Link| match link {
        Link::Up(now) => !Arc::ptr_eq(now, live),
        Link::Closed => true,
        _ => false,
    };
    // The sender lives in the core, which the task holds.
    let _ = link.wait_for(other).await;
}
