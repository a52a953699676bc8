//! What all parts of the adapter share: who it is, how it is connected, what it knows of the cluster.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::messaging::{
    BrokerContext, BrokerError, BrokerErrorKind, BrokerHealth, ConnectionState,
};
use crate::observability::metrics::{CONNECTION_UP, RECONNECTS, Series};

use super::group::Group;
use super::later::Later;
use super::link::Question;
use super::publish::Sender;
use super::settings::Settings;

const BACKOFF_FIRST: Duration = Duration::from_millis(200);

/// How the cluster is reached, as the one thread that asks it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Not begun.
    Idle,
    /// Trying.
    Down,
    Up,
    /// It cannot be reached until somebody acts; the text says why.
    Failed(Arc<str>),
    Closed,
}

pub(super) struct Core {
    pub(super) context: BrokerContext,
    pub(super) settings: Settings,
    pub(super) link: watch::Sender<Link>,
    /// Where the thread that asks the cluster takes its questions.
    pub(super) questions: Mutex<Option<mpsc::SyncSender<Question>>>,
    pub(super) sender: Mutex<Option<Arc<Sender>>>,
    pub(super) groups: Mutex<HashMap<Arc<str>, Arc<Group>>>,
    pub(super) later: Later,
    /// A topic was made by which dead letters go back.
    pub(super) ways_back: Arc<Notify>,
    /// Topics that are known to exist, with their partitions.
    topics: Mutex<HashMap<Arc<str>, usize>>,
    pub(super) up: Series,
    pub(super) reconnects: Series,
    last_error: Mutex<Option<String>>,
    epochs: AtomicU64,
}

impl Core {
    pub(super) fn new(context: BrokerContext, settings: Settings) -> Self {
        let series = |instrument| {
            let labels = vec![Arc::clone(&context.name)];
            Series::of(context.metrics.as_deref(), instrument, labels)
        };
        Self {
            up: series(CONNECTION_UP),
            reconnects: series(RECONNECTS),
            settings,
            link: watch::Sender::new(Link::Idle),
            questions: Mutex::default(),
            sender: Mutex::default(),
            groups: Mutex::default(),
            later: Later::default(),
            ways_back: Arc::default(),
            topics: Mutex::default(),
            last_error: Mutex::default(),
            epochs: AtomicU64::new(0),
            context,
        }
    }

    /// A number for one assignment of one partition; never the same one twice.
    pub(super) fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The wait before attempt `attempt` (from 0): exponential, at most `max`, full jitter.
    pub(super) fn backoff(&self, attempt: u32, max: Duration) -> Duration {
        let full = BACKOFF_FIRST
            .saturating_mul(2_u32.saturating_pow(attempt))
            .min(max);
        full.mul_f64(self.context.rng.unit())
    }

    pub(super) fn set_error(&self, error: Option<String>) {
        *lock(&self.last_error) = error;
    }

    /// Changes the link unless it was closed for good.
    pub(super) fn set_link(&self, state: Link) -> bool {
        let mut open = true;
        self.link.send_if_modified(|link| {
            open = *link != Link::Closed;
            let changes = open && *link != state;
            if changes {
                *link = state;
            }
            changes
        });
        open
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.link.borrow() == Link::Closed
    }

    /// The link as soon as the cluster can be asked; `None` if that cannot come without somebody's
    /// doing.
    pub(super) async fn wait_until_up(&self) -> Option<()> {
        let mut link = self.link.subscribe();
        let settled = |link: &Link| matches!(link, Link::Up | Link::Failed(_) | Link::Closed);
        let up = *link.wait_for(settled).await.ok()? == Link::Up;
        up.then_some(())
    }

    pub(super) fn health(&self) -> BrokerHealth {
        let state = match &*self.link.borrow() {
            Link::Idle => ConnectionState::Disconnected,
            Link::Down => ConnectionState::Connecting,
            Link::Up => ConnectionState::Ready,
            Link::Failed(_) => ConnectionState::Failed,
            Link::Closed => ConnectionState::Closed,
        };
        BrokerHealth::new(state).with_error(lock(&self.last_error).clone())
    }

    pub(super) fn error(&self, kind: BrokerErrorKind, text: impl Into<String>) -> BrokerError {
        BrokerError::new(kind, &self.context.name, text)
    }

    /// What is said where the cluster is needed and not there.
    pub(super) fn not_connected(&self) -> BrokerError {
        let text = match &*self.link.borrow() {
            Link::Failed(why) => format!("not connected: {why}"),
            _ => "not connected".to_owned(),
        };
        self.error(BrokerErrorKind::Unreachable, text)
    }

    /// How many partitions a topic has, if it is known to exist.
    pub(super) fn partitions_of(&self, topic: &str) -> Option<usize> {
        lock(&self.topics).get(topic).copied()
    }

    pub(super) fn know_topic(&self, topic: &str, partitions: usize) {
        lock(&self.topics).insert(topic.into(), partitions);
    }

    pub(super) fn forget_topic(&self, topic: &str) {
        lock(&self.topics).remove(topic);
    }
}

/// A lock whose holder cannot leave it half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
