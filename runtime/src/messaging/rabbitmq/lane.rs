//! A lane: one channel with confirms, and the publishes that are open on it.
//!
//! The client crate hands a returned (unroutable) message to whichever confirm it resolves next,
//! not to the one of the message that was returned; with many publishes open, the server's
//! acknowledgement of several at once makes the difference. So a lane looks at all confirms
//! that are resolved together, finds the owner of each returned message by exchange, routing key
//! and message id, and only then answers.

mod board;
mod ledger;
mod renewal;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Connection};
use tokio::time::{Instant, sleep, timeout};

use crate::clock::Rng;

use super::connection::OPERATION_TIMEOUT;
use super::core::lock;
use board::Board;
use ledger::Keys;
pub(super) use ledger::Verdict;
pub(super) use renewal::Renewal;

/// Publishes that wait for a confirm on one channel; further ones wait for a place.
const OPEN_MAX: usize = 2_048;
/// All places at once.
const OPEN_ALL: u32 = 2_048;
const REOPEN_MAX: Duration = Duration::from_secs(1);
/// How long a channel waits for what is open on the one before.
const SETTLE_MAX: Duration = Duration::from_secs(1);
/// How long a channel stays for what is open on it after another has followed; what is unanswered by then is
/// answered by its end.
const CLOSE_MAX: Duration = Duration::from_secs(60);
const REPLY_SUCCESS: u16 = 200;

/// One message to publish.
pub(super) struct Job {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) mandatory: bool,
    pub(super) body: Bytes,
    pub(super) properties: BasicProperties,
}

/// A lane of one connection. A channel that has ended is followed by another when there is something
/// to publish.
///
/// So is one on which the server refused a message: up to RabbitMQ 3.10 at least, a channel that first
/// publishes to a quorum queue while its leader has died, and no other is known yet, asks that leader
/// from then on, and refuses all that goes to the queue until the server of that leader is back. A new
/// channel asks the leader that is there now.
pub(super) struct Lane {
    connection: Arc<Connection>,
    rng: Rng,
    line: Mutex<Option<Line>>,
    opening: tokio::sync::Mutex<()>,
    /// How many wait for a channel.
    waiting: AtomicUsize,
    renewal: Mutex<Renewal>,
}

impl Lane {
    pub(super) fn new(connection: &Arc<Connection>, rng: &Rng) -> Self {
        Self {
            connection: Arc::clone(connection),
            rng: rng.clone(),
            line: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            waiting: AtomicUsize::new(0),
            renewal: Mutex::default(),
        }
    }

    /// Publishes; `None` if it never left, because the connection is gone.
    pub(super) async fn publish(&self, job: impl Fn() -> Job) -> Option<Verdict> {
        loop {
            let line = self.line().await?;
            let verdict = line.publish(&job).await;
            if matches!(verdict, Some(Verdict::Nacked)) {
                self.renew(&line);
            }
            if verdict.is_some() {
                return verdict;
            }
        }
    }

    /// Has another channel follow this one, if it is time for that.
    fn renew(&self, line: &Line) {
        // What was refused on one before tells nothing about the one that followed.
        if line.is_open() && lock(&self.renewal).is_due(Instant::now()) {
            line.0.retired.store(true, Ordering::SeqCst);
        }
    }

    /// The channel to publish on, opened if need be by the first who asks.
    async fn line(&self) -> Option<Line> {
        // Who comes while others wait stays behind them, or it would be published before.
        if self.waiting.load(Ordering::SeqCst) == 0
            && let Some(line) = self.open_line()
        {
            return Some(line);
        }
        let _waiting = Waiting::with(&self.waiting);
        let _turn = self.opening.lock().await;
        loop {
            if let Some(line) = self.open_line() {
                return Some(line);
            }
            // It stays where it is meanwhile: whoever gives up here is followed by others.
            let before = lock(&self.line).clone();
            if let Some(line) = &before {
                line.settled(SETTLE_MAX).await;
            }
            if !self.connection.status().connected() {
                return None;
            }
            match timeout(OPERATION_TIMEOUT, open(&self.connection)).await {
                Ok(Ok(channel)) => {
                    *lock(&self.line) = Some(Line::on(channel));
                    if let Some(line) = before {
                        tokio::spawn(line.close());
                    }
                }
                _ => {
                    // Where no other can be had, the one that refused a message is good enough for the rest.
                    if let Some(line) = &before {
                        line.0.retired.store(false, Ordering::SeqCst);
                    }
                    sleep(REOPEN_MAX.mul_f64(self.rng.unit())).await;
                }
            }
        }
    }

    fn open_line(&self) -> Option<Line> {
        let line = lock(&self.line);
        line.as_ref().filter(|line| line.is_open()).cloned()
    }
}

/// One who waits, for as long as he does.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn with(all: &'a AtomicUsize) -> Self {
        all.fetch_add(1, Ordering::SeqCst);
        Self(all)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn open(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(channel)
}

/// One channel that takes confirms.
#[derive(Clone)]
pub(super) struct Line(Arc<Shared>);

struct Shared {
    /// Shared by itself: its own clone is a dozen of them.
    channel: Arc<Channel>,
    board: Arc<Board>,
    keys: Keys,
    /// It takes nothing more.
    retired: AtomicBool,
}

impl Line {
    pub(super) fn on(channel: Channel) -> Self {
        Self(Arc::new(Shared {
            channel: Arc::new(channel),
            board: Board::new(OPEN_MAX),
            keys: Keys::default(),
            retired: AtomicBool::new(false),
        }))
    }

    fn is_open(&self) -> bool {
        self.0.channel.status().connected() && !self.0.retired.load(Ordering::SeqCst)
    }

    /// Waits until nothing is open on it any more, so that nothing overtakes it on the channel that follows.
    async fn settled(&self, limit: Duration) {
        if self.0.channel.status().connected() {
            let all = self.0.board.places.acquire_many(OPEN_ALL);
            // Longer than that, one queue that does not answer would hold up all others.
            let _ = timeout(limit, all).await;
        }
    }

    async fn close(self) {
        self.settled(CLOSE_MAX).await;
        let channel = &self.0.channel;
        if channel.status().connected() {
            let closing = channel.close(REPLY_SUCCESS, "OK".into());
            // Nothing is published there any more, whether the server answers or not.
            let _ = timeout(OPERATION_TIMEOUT, closing).await;
        }
    }

    /// Publishes; `None` if it never left, because the channel has ended. One that was begun goes on
    /// whether or not somebody waits for it.
    pub(super) async fn publish(&self, job: impl FnOnce() -> Job) -> Option<Verdict> {
        // The semaphore is never closed.
        let place = self.0.board.places.acquire().await.ok()?;
        if !self.is_open() {
            return None;
        }
        let job = job();
        let keys = self.0.keys.clone();
        let message_id = job.properties.message_id().as_ref();
        let identity = keys.identity(&job.exchange, &job.routing_key, message_id);
        let channel = Arc::clone(&self.0.channel);
        let publishing = self.0.board.begin(identity, async move {
            let options = BasicPublishOptions {
                mandatory: job.mandatory,
                ..BasicPublishOptions::default()
            };
            let sent = channel
                .basic_publish(
                    job.exchange,
                    job.routing_key,
                    options,
                    &job.body,
                    job.properties,
                )
                .await;
            keys.resolved(match sent {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            })
        });
        place.forget();
        Some(publishing.await)
    }
}
