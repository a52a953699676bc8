//! How many attempts start, and how many of them are second ones, with what is counted of both.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::observability::metrics::{HEDGES, MetricsSink, RATE_LIMITED, Series};
use crate::resilience::{HedgeBudget, RateLimited, RateLimiter};

use super::settings::RateSettings;

/// How many attempts may start.
#[derive(Debug)]
pub(super) struct Limiter {
    rate: RateLimiter,
    wait: Duration,
    refused: Series,
}

impl Limiter {
    pub(super) fn new(
        rate: RateSettings,
        service: &Arc<str>,
        metrics: Option<&dyn MetricsSink>,
    ) -> Self {
        Self {
            rate: RateLimiter::new(rate.count, rate.per).with_burst(rate.burst),
            wait: rate.wait,
            refused: Series::of(metrics, RATE_LIMITED, vec![Arc::clone(service)]),
        }
    }

    /// Waits for its turn, as long as that may take.
    pub(super) async fn enter(&self, deadline: Instant) -> Result<(), RateLimited> {
        let until = deadline.min(Instant::now() + self.wait);
        let entered = self.rate.ready_by(until).await;
        if entered.is_err() {
            self.refused.record(1.0);
        }
        entered
    }

    /// Takes a turn if there is one now.
    pub(super) fn admit(&self, now: Instant) -> bool {
        let admitted = self.rate.admit(now).is_ok();
        if !admitted {
            self.refused.record(1.0);
        }
        admitted
    }
}

/// How many second requests may be sent.
#[derive(Debug)]
pub(super) struct Hedging {
    budget: HedgeBudget,
    won: Series,
    lost: Series,
}

impl Hedging {
    pub(super) fn new(share: f64, service: &Arc<str>, metrics: Option<&dyn MetricsSink>) -> Self {
        let series = |outcome: &str| {
            let labels = vec![Arc::clone(service), outcome.into()];
            Series::of(metrics, HEDGES, labels)
        };
        Self {
            budget: HedgeBudget::new(share),
            won: series("won"),
            lost: series("lost"),
        }
    }

    pub(super) fn withdraw(&self) -> bool {
        self.budget.withdraw()
    }

    pub(super) fn succeeded(&self) {
        self.budget.succeeded();
    }

    /// A second request was sent, and its answer counts or does not.
    pub(super) fn ended(&self, counts: bool) {
        let series = if counts { &self.won } else { &self.lost };
        series.record(1.0);
    }
}
