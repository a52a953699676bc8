//! What was confirmed, and how often each message was handled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::{LIMIT, Result};

/// The account of a run.
#[derive(Default)]
pub(crate) struct Book {
    pages: Mutex<Pages>,
    handled: Notify,
}

#[derive(Default)]
struct Pages {
    /// Confirmed and not yet handled.
    missing: BTreeSet<u64>,
    handled: BTreeMap<u64, u64>,
    /// When the last of them was.
    last: Option<Instant>,
}

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().expect("nobody panics with it")
    }

    pub(crate) fn confirm(&self, n: u64) {
        let mut pages = self.pages();
        if !pages.handled.contains_key(&n) {
            pages.missing.insert(n);
        }
    }

    pub(crate) fn handle(&self, n: u64) {
        let mut pages = self.pages();
        *pages.handled.entry(n).or_default() += 1;
        pages.missing.remove(&n);
        pages.last = Some(Instant::now());
        drop(pages);
        self.handled.notify_waiters();
    }

    /// Waits for a message that is handled after `since`; when it was.
    pub(crate) async fn next(&self, since: Instant) -> Result<Instant> {
        let handled = async {
            loop {
                let next = self.handled.notified();
                if let Some(last) = self.pages().last.filter(|last| *last > since) {
                    return last;
                }
                next.await;
            }
        };
        let late = |_| format!("nothing was handled within {LIMIT:?}");
        Ok(timeout(LIMIT, handled).await.map_err(late)?)
    }

    /// Waits until everything that was confirmed was handled; what is missing is lost.
    pub(crate) async fn complete(&self) -> Result<()> {
        let complete = async {
            loop {
                let next = self.handled.notified();
                if self.pages().missing.is_empty() {
                    return;
                }
                next.await;
            }
        };
        if timeout(LIMIT, complete).await.is_err() {
            let missing = self.pages().missing.clone();
            return Err(format!("confirmed and never handled: {missing:?}").into());
        }
        Ok(())
    }

    /// How many were handled, and how often one of them was again.
    pub(crate) fn sums(&self) -> (usize, u64) {
        let pages = self.pages();
        let again = pages.handled.values().map(|times| times - 1).sum();
        (pages.handled.len(), again)
    }
}
