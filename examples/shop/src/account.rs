//! The account: what has happened to each order, told as it happens and summed up at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use interline::messaging::DeadLetters;
use interline::prelude::*;
use tokio::time::{Instant, interval};

/// Most dead letters that are looked at.
const LETTERS_MAX: usize = 10_000;

/// Counts orders by number, so that a message that comes twice counts once.
#[derive(Debug)]
pub(crate) struct Account {
    run: String,
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    placed: BTreeSet<String>,
    charged: BTreeSet<String>,
    shipped: BTreeSet<String>,
    /// Each with its reason.
    given_up: BTreeMap<String, String>,
    failed_attempts: usize,
}

impl Account {
    /// An account for this run, whose orders carry its name.
    pub(crate) fn new() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self {
            run: format!("{:07x}", since.as_millis() & 0x0fff_ffff),
            tally: Mutex::default(),
        }
    }

    /// The name of this run.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    pub(crate) fn placed(&self, order: &str, text: &str) {
        self.tell(order, "placed", text, |tally| {
            tally.placed.insert(order.to_owned())
        });
    }

    pub(crate) fn charged(&self, order: &str, text: &str) {
        self.tell(order, "charged", text, |tally| {
            tally.charged.insert(order.to_owned())
        });
    }

    pub(crate) fn shipped(&self, order: &str, text: &str) {
        self.tell(order, "shipped", text, |tally| {
            tally.shipped.insert(order.to_owned())
        });
    }

    pub(crate) fn failed(&self, order: &str, attempt: u32, text: &str) {
        self.tell(
            order,
            "failed",
            &format!("attempt {attempt}: {text}"),
            |tally| {
                tally.failed_attempts += 1;
                true
            },
        );
    }

    fn given_up(&self, order: &str, reason: &str, text: &str) {
        self.tell(order, "given up", text, |tally| {
            tally
                .given_up
                .insert(order.to_owned(), reason.to_owned())
                .is_none()
        });
    }

    /// Tells and counts, unless it is of another run or known already.
    fn tell(&self, order: &str, what: &str, text: &str, count: impl FnOnce(&mut Tally) -> bool) {
        if order.starts_with(&self.run) && count(&mut self.lock()) {
            println!("{order}  {what:<8}  {text}");
        }
    }

    /// Waits until every order is shipped or among the dead letters; `false` after `patience`.
    pub(crate) async fn wait_for(
        &self,
        running: &Running,
        orders: usize,
        patience: Duration,
    ) -> interline::Result<bool> {
        let letters = running
            .manager()
            .dead_letters_of("payments", "orders.placed")?;
        let deadline = Instant::now() + patience;
        let mut tick = interval(Duration::from_millis(250));
        while Instant::now() < deadline {
            tick.tick().await;
            self.read(&letters).await?;
            let tally = self.lock();
            let told = tally.placed.len() == orders && tally.charged.len() == tally.shipped.len();
            if told && tally.shipped.len() + tally.given_up.len() == orders {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn read(&self, letters: &DeadLetters) -> interline::Result<()> {
        for letter in letters.list(LETTERS_MAX).await? {
            let Some(order) = letter.message().key.as_deref() else {
                continue;
            };
            let reason = letter.reason();
            let attempts = letter.attempts().unwrap_or(1);
            let error = letter.error().unwrap_or_default();
            self.given_up(
                order,
                &reason,
                &format!("{reason} after attempt {attempts}: {error}"),
            );
        }
        Ok(())
    }

    /// The sums, and whether they add up.
    pub(crate) fn summary(&self, orders: usize) -> String {
        let tally = self.lock();
        let because = |reason: &str| {
            tally
                .given_up
                .values()
                .filter(|known| *known == reason)
                .count()
        };
        let (shipped, given_up) = (tally.shipped.len(), tally.given_up.len());
        let lines = [
            ("orders placed", tally.placed.len()),
            ("  charged", tally.charged.len()),
            ("  shipped", shipped),
            ("  dead letters, card refused", because("rejected")),
            (
                "  dead letters, bank unreachable",
                because("retries_exhausted"),
            ),
            ("failed attempts on the way", tally.failed_attempts),
        ];
        let mut text = String::new();
        for (what, count) in lines {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{what:<36}{count:>6}");
        }
        let sum = shipped + given_up;
        let adds_up = sum == orders && tally.charged.len() == shipped;
        let verdict = if adds_up {
            "adds up"
        } else {
            "DOES NOT ADD UP"
        };
        format!(
            "{text}{shipped} shipped + {given_up} given up = {sum} of {orders} orders: {verdict}"
        )
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
