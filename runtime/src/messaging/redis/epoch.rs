//! One session of a consumer: a reader, what it has out, and the lease where one is needed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::redis::Failure;

use super::acks::Ack;
use super::core::lock;
use super::live::Live;
use super::names::Names;
use super::out::{Entry, Out, Source};
use super::scripts;

/// The consumer that holds what was released until somebody takes it.
const RELEASED: &str = "released";
/// How often it is looked at whether a session is still the one of now.
const LOOK: Duration = Duration::from_millis(100);

/// What a session does its work with.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) live: Arc<Live>,
    pub(super) names: Arc<Names>,
    /// The name of this instance in the group.
    pub(super) consumer: Arc<str>,
    /// What the holder of the lease is known by; `None` where there is no lease.
    pub(super) token: Option<Arc<str>>,
}

impl Session {
    pub(super) fn what(&self) -> String {
        format!(
            "group `{}` of stream `{}`",
            self.names.group, self.names.stream
        )
    }

    pub(super) fn key(&self, source: Source) -> &str {
        match source {
            Source::Stream => &self.names.stream,
            Source::Retries => &self.names.retry,
        }
    }

    pub(super) fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    /// Lets an entry look abandoned. `false` if it is somebody else's by now.
    pub(super) async fn release(&self, entry: &Entry) -> Result<bool, Failure> {
        let mut script = scripts::RELEASE.key(self.key(entry.source));
        // It is handed out once more and should not count for it.
        let count = entry.count.saturating_sub(1).max(1);
        script.arg(&self.names.group).arg(&*self.consumer);
        script.arg(&*entry.id).arg(count).arg(RELEASED);
        let released: i64 = self.live.settle.run(&self.what(), &script).await?;
        Ok(released == 1)
    }

    /// Moves an entry to the dead letters. `false` if it is somebody else's by now.
    pub(super) async fn bury(
        &self,
        entry: &Entry,
        write: impl FnOnce(&mut dyn FnMut(&[u8])),
    ) -> Result<bool, Failure> {
        let mut script = scripts::BURY.key(self.key(entry.source));
        script.key(&self.names.dead_letters).key(&self.names.lease);
        script
            .arg(&self.names.group)
            .arg(&*self.consumer)
            .arg(&*entry.id)
            .arg(self.token());
        script.arg(i32::from(entry.source == Source::Retries));
        write(&mut |part| {
            script.arg(part);
        });
        let moved: i64 = self.live.settle.run(&self.what(), &script).await?;
        Ok(moved == 1)
    }
}

/// A session with what was handed out in it.
pub(super) struct Epoch {
    pub(super) number: u64,
    pub(super) session: Session,
    pub(super) out: Out,
    pub(super) acks: mpsc::Sender<Ack>,
    /// Until when the lease is ours for certain.
    lease: Mutex<Option<Instant>>,
    over: AtomicBool,
    /// Something was released, for whoever reads next.
    pub(super) released: Notify,
}

impl Epoch {
    pub(super) fn new(
        number: u64,
        session: Session,
        prefetch: u16,
        acks: mpsc::Sender<Ack>,
        lease: Option<Instant>,
    ) -> Self {
        Self {
            number,
            session,
            out: Out::new(prefetch),
            acks,
            lease: Mutex::new(lease),
            over: AtomicBool::new(false),
            released: Notify::new(),
        }
    }

    /// Whether what it has out can still be settled.
    pub(super) fn is_current(&self) -> bool {
        let held = lock(&self.lease).is_none_or(|until| Instant::now() < until);
        held && !self.over.load(Ordering::Relaxed) && self.session.live.is_up()
    }

    /// Waits until nothing of it can be settled any more.
    pub(super) async fn left(&self) {
        while self.is_current() {
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// The lease was kept, with a request that was sent at `asked`.
    pub(super) fn keep_lease(&self, asked: Instant, lasts: Duration) {
        *lock(&self.lease) = Some(certain(asked, lasts));
    }

    /// Where a group that is lost has to begin again so that nothing of this session is skipped: before
    /// the first entry that is out, else behind the last that was read.
    pub(super) fn resume_at(&self, last_read: Option<&Arc<str>>) -> Option<String> {
        let out = self.out.all().into_iter().map(|(_, entry)| entry);
        let first = out
            .filter(|entry| entry.source == Source::Stream)
            .filter_map(|entry| parse_id(&entry.id))
            .min();
        match first {
            Some((ms, 0)) => Some(format!("{}-{}", ms.saturating_sub(1), u64::MAX)),
            Some((ms, sequence)) => Some(format!("{ms}-{}", sequence - 1)),
            None => last_read.map(|id| id.to_string()),
        }
    }
}

/// Until when a lease is certain that was asked for at `asked`: clocks run differently fast.
pub(super) fn certain(asked: Instant, lasts: Duration) -> Instant {
    asked + lasts * 4 / 5
}

/// The milliseconds and the number of an entry's id.
pub(super) fn parse_id(id: &str) -> Option<(u64, u64)> {
    let (ms, sequence) = id.split_once('-')?;
    Some((ms.parse().ok()?, sequence.parse().ok()?))
}
