//! What all parts of the adapter share: who it is, how it is connected, what it counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::messaging::{BrokerContext, BrokerError, BrokerHealth, ConnectionState};
use crate::observability::metrics::{CONNECTION_UP, RECONNECTS, Series};

use super::consumer::StreamConsumer;
use super::errors;
use super::listened::Listened;
use super::live::Live;
use super::scheduled::Scheduled;
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
    pub(super) consumers: Mutex<Vec<Arc<StreamConsumer>>>,
    pub(super) listened: Listened,
    pub(super) scheduled: Scheduled,
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
            consumers: Mutex::default(),
            listened: Listened::default(),
            scheduled: Scheduled::default(),
            last_error: Mutex::default(),
            epochs: AtomicU64::new(0),
            context,
        }
    }

    /// The connection, or why there is none.
    pub(super) fn connected(&self) -> Result<Arc<Live>, BrokerError> {
        let name = &self.context.name;
        match &*self.link.borrow() {
            Link::Up(live) => Ok(Arc::clone(live)),
            Link::Failed(why) => Err(errors::not_connected(name, Some(why))),
            _ => Err(errors::not_connected(name, None)),
        }
    }

    /// The connection as soon as it is up; `None` if it cannot come without somebody's doing.
    pub(super) async fn wait_until_up(&self) -> Option<Arc<Live>> {
        let mut link = self.link.subscribe();
        let settled = |link: &Link| matches!(link, Link::Up(_) | Link::Failed(_) | Link::Closed);
        match &*link.wait_for(settled).await.ok()? {
            Link::Up(live) => Some(Arc::clone(live)),
            _ => None,
        }
    }

    /// Waits until the link is up; `false` if it is closed for good.
    pub(super) async fn wait_until_up_or_closed(&self) -> bool {
        let mut link = self.link.subscribe();
        let wanted = |link: &Link| matches!(link, Link::Up(_) | Link::Closed);
        // The sender lives in the core.
        match link.wait_for(wanted).await {
            Ok(link) => matches!(&*link, Link::Up(_)),
            Err(_) => false,
        }
    }

    /// A number for the deliveries of one session; never the same one twice.
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

    /// What the server lists a connection as: without the spaces that it does not take.
    pub(super) fn client_name(&self, role: &str) -> String {
        let context = &self.context;
        let name = format!("{}/{}/{role}", context.service, context.instance);
        let fits = |letter: char| letter.is_ascii_graphic();
        name.chars()
            .map(|letter| if fits(letter) { letter } else { '-' })
            .collect()
    }

    pub(super) fn set_error(&self, error: Option<String>) {
        *lock(&self.last_error) = error;
    }

    pub(super) fn health(&self) -> BrokerHealth {
        let state = match &*self.link.borrow() {
            Link::Idle => ConnectionState::Disconnected,
            Link::Down => ConnectionState::Connecting,
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
