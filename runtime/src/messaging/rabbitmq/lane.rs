//! A lane: one channel with confirms, and the publishes that are open on it.
//!
//! The client crate hands a returned (unroutable) message to whichever confirm it resolves next,
//! not to the one of the message that was returned; with many publishes open, the server's
//! acknowledgement of several at once makes the difference. So a lane looks at all confirms
//! that are resolved together, finds the owner of each returned message by exchange, routing key
//! and message id, and only then answers.

mod board;
mod ledger;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Connection};
use tokio::time::{sleep, timeout};

use crate::clock::Rng;

use super::connection::OPERATION_TIMEOUT;
use super::core::lock;
use board::Board;
use ledger::Keys;
pub(super) use ledger::Verdict;

/// Publishes that wait for a confirm on one channel; further ones wait for a place.
const OPEN_MAX: usize = 2_048;
const REOPEN_MAX: Duration = Duration::from_secs(1);

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
pub(super) struct Lane {
    connection: Arc<Connection>,
    rng: Rng,
    line: Mutex<Option<Line>>,
    opening: tokio::sync::Mutex<()>,
}

impl Lane {
    pub(super) fn new(connection: &Arc<Connection>, rng: &Rng) -> Self {
        Self {
            connection: Arc::clone(connection),
            rng: rng.clone(),
            line: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// Publishes; `None` if it never left, because the connection is gone.
    pub(super) async fn publish(&self, job: impl Fn() -> Job) -> Option<Verdict> {
        loop {
            let line = self.line().await?;
            let verdict = line.publish(&job).await;
            if verdict.is_some() {
                return verdict;
            }
        }
    }

    /// The channel to publish on, opened if need be by the first who asks.
    async fn line(&self) -> Option<Line> {
        loop {
            if let Some(line) = self.open_line() {
                return Some(line);
            }
            let _turn = self.opening.lock().await;
            if let Some(line) = self.open_line() {
                return Some(line);
            }
            if !self.connection.status().connected() {
                return None;
            }
            match timeout(OPERATION_TIMEOUT, open(&self.connection)).await {
                Ok(Ok(channel)) => *lock(&self.line) = Some(Line::on(channel)),
                _ => sleep(REOPEN_MAX.mul_f64(self.rng.unit())).await,
            }
        }
    }

    fn open_line(&self) -> Option<Line> {
        let line = lock(&self.line);
        line.as_ref().filter(|line| line.is_open()).cloned()
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
}

impl Line {
    pub(super) fn on(channel: Channel) -> Self {
        Self(Arc::new(Shared {
            channel: Arc::new(channel),
            board: Board::new(OPEN_MAX),
            keys: Keys::default(),
        }))
    }

    fn is_open(&self) -> bool {
        self.0.channel.status().connected()
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
