//! A lane: one channel with confirms, and the task that publishes on it.
//!
//! The client crate hands a returned (unroutable) message to whichever confirm it resolves next,
//! not to the one of the message that was returned; with many publishes open, the server's
//! acknowledgement of several at once makes the difference. So a lane looks at all confirms
//! that are resolved together, finds the owner of each returned message by exchange, routing key
//! and message id, and only then answers.

use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::poll_fn;
use futures_util::stream::FuturesUnordered;
use futures_util::task::AtomicWaker;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection, Error};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::clock::Rng;

use super::connection::OPERATION_TIMEOUT;

/// Publishes that wait for a confirm on one channel; further ones wait in the queue before it.
const OPEN_MAX: usize = 2_048;
/// Publishes that wait before a lane.
const QUEUE: usize = 256;
const REOPEN_MAX: Duration = Duration::from_secs(1);

/// One message to publish.
pub(super) struct Job {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) mandatory: bool,
    pub(super) body: Bytes,
    pub(super) properties: BasicProperties,
    /// Dropped without an answer if the message was never handed to a channel.
    pub(super) answer: oneshot::Sender<Verdict>,
}

/// What became of a publish.
#[derive(Debug)]
pub(super) enum Verdict {
    Confirmed,
    Unroutable,
    Nacked,
    /// The channel ended first; the server may have the message.
    Lost(Error),
}

/// Starts a lane that lives as long as its sender and the connection.
pub(super) fn start(connection: &Arc<Connection>, rng: &Rng) -> mpsc::Sender<Job> {
    let (sender, jobs) = mpsc::channel(QUEUE);
    tokio::spawn(run(Arc::clone(connection), jobs, rng.clone()));
    sender
}

/// A lane on this channel, which takes confirms already; it ends with the channel.
pub(super) fn on(channel: Channel) -> mpsc::Sender<Job> {
    let (sender, mut jobs) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        // A job that finds the channel ended is dropped, which tells its publisher so.
        drop(Lane::new(channel).serve(None, &mut jobs).await);
    });
    sender
}

async fn run(connection: Arc<Connection>, mut jobs: mpsc::Receiver<Job>, rng: Rng) {
    let mut next = None;
    while connection.status().connected() {
        if next.is_none() {
            next = jobs.recv().await;
            if next.is_none() {
                return;
            }
        }
        match timeout(OPERATION_TIMEOUT, open(&connection)).await {
            Ok(Ok(channel)) => next = Lane::new(channel).serve(next.take(), &mut jobs).await,
            _ => sleep(REOPEN_MAX.mul_f64(rng.unit())).await,
        }
    }
}

async fn open(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(channel)
}

/// What a returned message is recognised by: a hash, with keys of the lane's own, of exchange, routing
/// key and message id. Two publishes that share all three share their fate.
type Identity = u64;

struct Waiting {
    answer: oneshot::Sender<Verdict>,
    identity: Identity,
}

type Resolved = (Waiting, lapin::Result<Confirmation>);
type Publish = Pin<Box<dyn Future<Output = Resolved> + Send>>;

struct Lane {
    channel: Channel,
    open: FuturesUnordered<Publish>,
    waker: Arc<LaneWaker>,
    ledger: Ledger,
}

impl Lane {
    fn new(channel: Channel) -> Self {
        Self {
            channel,
            open: FuturesUnordered::new(),
            waker: Arc::default(),
            ledger: Ledger::default(),
        }
    }

    /// Publishes until the channel ends; gives back a job that found it ended.
    async fn serve(mut self, first: Option<Job>, jobs: &mut mpsc::Receiver<Job>) -> Option<Job> {
        let mut job = first;
        loop {
            while let Some(next) = job.take() {
                if !self.channel.status().connected() {
                    self.finish().await;
                    return Some(next);
                }
                self.publish(next);
                if self.open.len() < OPEN_MAX {
                    job = jobs.try_recv().ok();
                }
            }
            tokio::select! {
                biased;
                batch = drain(&mut self.open, &self.waker), if !self.open.is_empty() => {
                    self.settle(batch);
                }
                next = jobs.recv(), if self.open.len() < OPEN_MAX => match next {
                    Some(next) => job = Some(next),
                    None => {
                        self.finish().await;
                        return None;
                    }
                },
            }
        }
    }

    /// Waits for what is open. A channel that ended has resolved all of it.
    async fn finish(&mut self) {
        while !self.open.is_empty() {
            let batch = drain(&mut self.open, &self.waker).await;
            self.settle(batch);
        }
    }

    fn publish(&mut self, job: Job) {
        let waiting = Waiting {
            answer: job.answer,
            identity: self.ledger.identity(
                &job.exchange,
                &job.routing_key,
                job.properties.message_id().as_ref(),
            ),
        };
        let channel = self.channel.clone();
        let (exchange, routing_key, properties) = (job.exchange, job.routing_key, job.properties);
        let (body, mandatory) = (job.body, job.mandatory);
        self.open.push(Box::pin(async move {
            let options = BasicPublishOptions {
                mandatory,
                ..BasicPublishOptions::default()
            };
            let sent = channel
                .basic_publish(exchange, routing_key, options, &body, properties)
                .await;
            let result = match sent {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            (waiting, result)
        }));
    }

    fn settle(&mut self, batch: Vec<Resolved>) {
        for (waiting, result) in batch {
            self.ledger.add(waiting, result);
        }
        self.ledger.close(self.open.is_empty());
    }
}

/// Matches returned messages to the publishes they belong to.
///
/// The client crate keeps returned messages in order of arrival and gives the first to whichever
/// publish is acknowledged next. A message's return arrives before its own acknowledgement, so once
/// a publish is acknowledged, its return was either given to something resolved before or still
/// waits. It no longer waits once something later was acknowledged without one, or nothing is open.
#[derive(Default)]
struct Ledger {
    /// Acknowledged in this batch, with no returned message left over.
    clear: Vec<Waiting>,
    /// Acknowledged in this batch, with a returned message that may be another's.
    unclear: Vec<Waiting>,
    /// Unclear ones of earlier batches.
    held: Vec<Waiting>,
    returned: Vec<Identity>,
    /// What ended the channel; then a returned message may be lost with it.
    broken: Option<Error>,
    keys: RandomState,
}

impl Ledger {
    fn identity(
        &self,
        exchange: &ShortString,
        routing_key: &ShortString,
        message_id: Option<&ShortString>,
    ) -> Identity {
        self.keys.hash_one((exchange, routing_key, message_id))
    }

    fn identity_of(&self, message: &BasicReturnMessage) -> Identity {
        let message_id = message.properties.message_id().as_ref();
        self.identity(&message.exchange, &message.routing_key, message_id)
    }

    fn add(&mut self, waiting: Waiting, result: lapin::Result<Confirmation>) {
        match result {
            Ok(Confirmation::Ack(None) | Confirmation::NotRequested) => self.clear.push(waiting),
            Ok(Confirmation::Ack(Some(message))) => {
                self.returned.push(self.identity_of(&message));
                self.unclear.push(waiting);
            }
            Ok(Confirmation::Nack(message)) => {
                let returned = message.as_ref().map(|message| self.identity_of(message));
                self.returned.extend(returned);
                answer(waiting, Verdict::Nacked);
            }
            Err(error) => {
                self.broken = Some(error.clone());
                answer(waiting, Verdict::Lost(error));
            }
        }
    }

    /// Answers what can be answered after a batch; `idle` if nothing is open any more.
    fn close(&mut self, idle: bool) {
        // Everything in this batch was acknowledged after everything in earlier ones.
        let idle = idle && self.broken.is_none();
        let decided = idle || !self.clear.is_empty();
        for waiting in std::mem::take(&mut self.held) {
            self.decide(waiting, decided);
        }
        for waiting in std::mem::take(&mut self.clear) {
            self.decide(waiting, true);
        }
        for waiting in std::mem::take(&mut self.unclear) {
            self.decide(waiting, idle);
        }
        if idle {
            self.returned.clear();
        }
    }

    fn decide(&mut self, waiting: Waiting, all_seen: bool) {
        let at = self
            .returned
            .iter()
            .position(|returned| *returned == waiting.identity);
        match at {
            Some(at) => {
                self.returned.swap_remove(at);
                answer(waiting, Verdict::Unroutable);
            }
            None if all_seen => answer(waiting, Verdict::Confirmed),
            None => match &self.broken {
                Some(error) => answer(waiting, Verdict::Lost(error.clone())),
                None => self.held.push(waiting),
            },
        }
    }
}

fn answer(waiting: Waiting, verdict: Verdict) {
    // Nobody waits any more after a time-out; the publish is over all the same.
    let _ = waiting.answer.send(verdict);
}

#[derive(Default)]
struct LaneWaker {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for LaneWaker {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.task.wake();
    }
}

/// Waits for resolved publishes and takes all of them. What is resolved before anything in the
/// batch is in it too, or was in an earlier one: the set stops early of its own accord, and only a
/// round that woke nobody shows that it is through.
async fn drain<T>(
    open: &mut FuturesUnordered<impl Future<Output = T>>,
    lane: &Arc<LaneWaker>,
) -> Vec<T> {
    let waker = Waker::from(Arc::clone(lane));
    poll_fn(|task| {
        lane.task.register(task.waker());
        let mut batch = Vec::new();
        loop {
            lane.woken.store(false, Ordering::SeqCst);
            match open.poll_next_unpin(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(resolved)) => batch.push(resolved),
                Poll::Ready(None) => break,
                Poll::Pending if lane.woken.load(Ordering::SeqCst) => {}
                Poll::Pending => break,
            }
        }
        if batch.is_empty() && !open.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(batch)
        }
    })
    .await
}
