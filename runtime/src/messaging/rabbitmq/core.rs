//! What all parts of the adapter share: who it is, how it is connected, what it counts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::messaging::{BrokerContext, BrokerHealth, ConnectionState};
use crate::observability::metrics::{CONNECTION_UP, RECONNECTS, Series};

use super::connection::Live;
use super::consumer::QueueConsumer;
use super::hello::Server;
use super::settings::Settings;

const BACKOFF_FIRST: Duration = Duration::from_millis(200);
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// How the adapter is connected.
#[derive(Clone)]
pub(super) enum Link {
    /// Not begun.
    Idle,
    /// Trying.
    Down,
    Up(Arc<Live>),
    /// It cannot be made until somebody acts; the text says why.
    Failed(Arc<str>),
    Closed,
}

pub(super) struct Core {
    pub(super) context: BrokerContext,
    pub(super) settings: Settings,
    pub(super) link: watch::Sender<Link>,
    pub(super) consumers: Mutex<Vec<Arc<QueueConsumer>>>,
    pub(super) up: Series,
    pub(super) reconnects: Series,
    blocked: AtomicBool,
    last_error: Mutex<Option<String>>,
    /// Which server it is, once it has said so.
    pub(super) server: OnceLock<Server>,
    epochs: AtomicU64,
    turns: AtomicU64,
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
            consumers: Mutex::default(),
            blocked: AtomicBool::new(false),
            last_error: Mutex::default(),
            server: OnceLock::new(),
            epochs: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            context,
        }
    }

    /// The connection, if it is up.
    pub(super) fn live(&self) -> Option<Arc<Live>> {
        match &*self.link.borrow() {
            Link::Up(live) => Some(Arc::clone(live)),
            _ => None,
        }
    }

    /// A number for the deliveries of one channel; never the same one twice.
    pub(super) fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Spreads what has no key over the lanes.
    pub(super) fn next_turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// The wait before attempt `attempt` (from 0): exponential, at most `max`, full jitter.
    pub(super) fn backoff(&self, attempt: u32, max: Duration) -> Duration {
        let full = BACKOFF_FIRST
            .saturating_mul(2_u32.saturating_pow(attempt))
            .min(max);
        full.mul_f64(self.context.rng.unit())
    }

    pub(super) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    pub(super) fn set_error(&self, error: Option<String>) {
        *lock(&self.last_error) = error;
    }

    pub(super) fn health(&self) -> BrokerHealth {
        let state = match &*self.link.borrow() {
            Link::Idle => ConnectionState::Disconnected,
            Link::Down => ConnectionState::Connecting,
            Link::Up(_) if self.blocked.load(Ordering::Relaxed) => ConnectionState::Blocked,
            Link::Up(_) => ConnectionState::Ready,
            Link::Failed(_) => ConnectionState::Failed,
            Link::Closed => ConnectionState::Closed,
        };
        BrokerHealth::new(state).with_error(lock(&self.last_error).clone())
    }
}

/// A lock whose holder cannot leave it half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
