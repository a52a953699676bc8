//! What every row carries, and what is noted of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use interline::prelude::*;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::Result;
pub(crate) use crate::measured::{Measured, Moment};

/// The message of all tables: seven fields, padded to a size.
#[derive(Clone, Debug, Message, Serialize, Deserialize)]
#[message(topic = "bench.orders")]
pub(crate) struct Order {
    pub(crate) n: u64,
    order_id: String,
    customer: String,
    total_cents: u64,
    currency: String,
    country: String,
    note: String,
}

impl Order {
    /// Number `n`, whose JSON has exactly `size` bytes.
    pub(crate) fn of_size(n: u64, size: usize) -> Self {
        let mut order = Self {
            n,
            order_id: format!("order-{n:012}"),
            customer: "customer-7781".to_owned(),
            total_cents: 129_900,
            currency: "EUR".to_owned(),
            country: "PT".to_owned(),
            note: String::new(),
        };
        let bare = order.json().len();
        order.note = "x".repeat(size.saturating_sub(bare));
        order
    }

    pub(crate) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an order has a form in JSON")
    }

    pub(crate) fn from_json(json: &[u8]) -> Result<Self> {
        Ok(serde_json::from_slice(json)?)
    }
}

/// Notes which messages were handled, and when the first and the last were.
pub(crate) struct Probe {
    count: u64,
    /// One bit for each message.
    seen: Vec<AtomicU64>,
    handled: AtomicU64,
    repeated: AtomicUsize,
    begun: Mutex<Option<Moment>>,
    ended: Mutex<Option<Moment>>,
    all: Notify,
    /// Told now and then, for whoever delivers at the pace of the handlers.
    some: Notify,
}

/// How often whoever waits for [`Probe::at_least`] is told.
const SOME: u64 = 50;

impl Probe {
    /// Expects the numbers `0..count`, each once.
    pub(crate) fn expecting(count: u64) -> Self {
        let words = usize::try_from(count.div_ceil(64)).expect("a count fits in memory");
        Self {
            count,
            seen: (0..words).map(|_| AtomicU64::new(0)).collect(),
            handled: AtomicU64::new(0),
            repeated: AtomicUsize::new(0),
            begun: Mutex::new(None),
            ended: Mutex::new(None),
            all: Notify::new(),
            some: Notify::new(),
        }
    }

    /// How many numbers it expects.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn expected(&self) -> usize {
        usize::try_from(self.count).expect("a count fits in memory")
    }

    pub(crate) fn note(&self, n: u64) {
        let bit = 1 << (n % 64);
        let word = usize::try_from(n / 64)
            .ok()
            .and_then(|at| self.seen.get(at));
        let known = word.is_none_or(|word| word.fetch_or(bit, Ordering::Relaxed) & bit != 0);
        if known || n >= self.count {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let handled = self.handled.fetch_add(1, Ordering::AcqRel) + 1;
        if handled == 1 {
            *self.begun.lock().expect("nobody panics with it") = Some(Moment::now());
        }
        if handled == self.count {
            *self.ended.lock().expect("nobody panics with it") = Some(Moment::now());
            self.all.notify_one();
        }
        if handled.is_multiple_of(SOME) {
            self.some.notify_one();
        }
    }

    /// Waits until so many were handled, or a few more. For one caller.
    pub(crate) async fn at_least(&self, count: u64, limit: Duration) -> Result<()> {
        let reached = async {
            while self.handled.load(Ordering::Acquire) < count {
                self.some.notified().await;
            }
        };
        if timeout(limit, reached).await.is_err() {
            let handled = self.handled.load(Ordering::Acquire);
            return Err(format!("{handled} handled within {limit:?}, not {count}").into());
        }
        Ok(())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.handled.load(Ordering::Acquire) == self.count
    }

    /// Waits until every number was handled.
    pub(crate) async fn full(&self, limit: Duration) -> Result<()> {
        if timeout(limit, self.all.notified()).await.is_err() {
            let handled = self.handled.load(Ordering::Acquire);
            let expected = self.count;
            return Err(format!("{handled} of {expected} handled within {limit:?}").into());
        }
        Ok(())
    }

    /// What happened between the first and the last, if each was handled exactly once.
    pub(crate) fn measured(&self) -> Result<Measured> {
        let handled = self.handled.load(Ordering::Acquire);
        let repeated = self.repeated.load(Ordering::Acquire);
        let begun = *self.begun.lock().expect("nobody panics with it");
        let ended = *self.ended.lock().expect("nobody panics with it");
        let (Some(begun), Some(ended), 0) = (begun, ended, repeated) else {
            let text = format!(
                "{handled} of {} handled, {repeated} of them again",
                self.count
            );
            return Err(text.into());
        };
        Ok(Measured::between(begun, ended, self.count - 1))
    }
}
