//! The stock service, of which there are two instances, and what its client did about one that fails.

use std::fmt::Write as _;
use std::sync::Arc;

use interline::observability::metrics::{CLIENT_ATTEMPTS, CLIENT_DURATION, InMemoryMetrics};
use interline::prelude::*;
use shop_stock::{Instance, Shelf};

/// Two instances with one shelf.
pub(crate) struct Storeroom {
    shelf: Arc<Shelf>,
    sound: Instance,
    moody: Instance,
    metrics: InMemoryMetrics,
}

impl Storeroom {
    /// Starts both, and writes into the configuration where they are.
    pub(crate) async fn open(config: &mut Config) -> interline::Result<Self> {
        let shelf = Arc::new(Shelf::default());
        let sound = Instance::start(&shelf).await?;
        let moody = Instance::start(&shelf).await?;
        let urls = vec![sound.url().to_owned(), moody.url().to_owned()];
        config.set("services.stock.urls", urls);
        // By default the one that answers sooner gets nearly all calls, and the failing one might never be
        // asked.
        config.set("services.stock.balance", "round_robin");
        Ok(Self {
            shelf,
            sound,
            moody,
            metrics: InMemoryMetrics::default(),
        })
    }

    /// Where the client's measurements go.
    pub(crate) fn metrics(&self) -> Arc<InMemoryMetrics> {
        Arc::new(self.metrics.clone())
    }

    /// Makes one of the two fail, or work again.
    pub(crate) fn fail(&self, fails: bool) {
        self.moody.fail(fails);
    }

    fn calls(&self, outcome: &str) -> u64 {
        let labels = [("service", "stock"), ("outcome", outcome)];
        self.metrics.count(CLIENT_DURATION, &labels)
    }

    fn all_calls(&self) -> u64 {
        self.metrics.count(CLIENT_DURATION, &[("service", "stock")])
    }

    fn attempts(&self, url: &str, outcome: &str) -> f64 {
        let labels = [
            ("service", "stock"),
            ("endpoint", url),
            ("outcome", outcome),
        ];
        self.metrics.sum(CLIENT_ATTEMPTS, &labels)
    }

    /// What was asked of the stock, and of whom.
    pub(crate) fn summary(&self) -> String {
        let (sound, moody) = (self.sound.url(), self.moody.url());
        let lines = [
            (
                "calls to stock that were answered",
                self.calls("answered") as f64,
            ),
            (
                "  at the instance that never fails",
                self.attempts(sound, "answered"),
            ),
            (
                "  at the one that fails at times",
                self.attempts(moody, "answered"),
            ),
            (
                "  refused there, asked elsewhere",
                self.attempts(moody, "failed"),
            ),
        ];
        let mut text = String::new();
        for (what, count) in lines {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{what:<36}{count:>6}");
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// Whether every order has its goods, by one answered call, and every refusal was made good.
    pub(crate) fn adds_up(&self, orders: usize) -> bool {
        let answered = self.attempts(self.sound.url(), "answered")
            + self.attempts(self.moody.url(), "answered");
        self.shelf.reserved() == orders
            && self.calls("answered") == orders as u64
            && self.all_calls() == orders as u64
            && answered == orders as f64
            && self.attempts(self.moody.url(), "failed") == self.moody.failed() as f64
    }
}
