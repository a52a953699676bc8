//! How many attempts start, and how many of them are repeats or second ones, with what is counted of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

#[cfg(feature = "redis")]
use crate::observability::metrics::RATE_ALONE;
use crate::observability::metrics::{HEDGES, MetricsSink, RATE_LIMITED, RETRIES, Series};
use crate::resilience::{self, HedgeBudget, RateLimited, RateLimiter, RetryBudget};
#[cfg(feature = "redis")]
use crate::resilience::{Granted, NoTurn, SharedRateLimiter, SharedTurn};

use super::settings::RateSettings;

/// How many attempts may start.
#[derive(Debug)]
pub(super) struct Limiter {
    rate: Rate,
    wait: Duration,
    refused: Series,
    #[cfg(feature = "redis")]
    alone: Series,
}

#[derive(Debug)]
enum Rate {
    Own(RateLimiter),
    #[cfg(feature = "redis")]
    Shared(Box<SharedRateLimiter>),
}

/// Why an attempt may not start.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) text: String,
    pub(super) retry_after: Option<Duration>,
}

impl From<RateLimited> for Refused {
    fn from(limited: RateLimited) -> Self {
        Self {
            text: format!("as many calls start as may; {limited}"),
            retry_after: Some(limited.retry_after),
        }
    }
}

#[cfg(feature = "redis")]
impl From<NoTurn> for Refused {
    fn from(why: NoTurn) -> Self {
        match why {
            NoTurn::Limited(limited) => limited.into(),
            NoTurn::Unknown(_) => Self {
                text: why.to_string(),
                retry_after: None,
            },
        }
    }
}

impl Limiter {
    pub(super) fn new(
        settings: &RateSettings,
        service: &Arc<str>,
        metrics: Option<&dyn MetricsSink>,
    ) -> Self {
        let (count, per, burst) = (settings.count, settings.per, settings.burst);
        let own = || Rate::Own(RateLimiter::new(count, per).with_burst(burst));
        let series = |instrument| Series::of(metrics, instrument, vec![Arc::clone(service)]);
        #[cfg(feature = "redis")]
        let rate = match &settings.shared {
            None => own(),
            Some(shared) => {
                let shared =
                    SharedRateLimiter::new(shared.clone(), count, per, burst, settings.wait);
                Rate::Shared(Box::new(shared))
            }
        };
        #[cfg(not(feature = "redis"))]
        let rate = own();
        Self {
            rate,
            wait: settings.wait,
            refused: series(RATE_LIMITED),
            #[cfg(feature = "redis")]
            alone: series(RATE_ALONE),
        }
    }

    /// Waits for its turn, as long as that may take.
    pub(super) async fn enter(&self, deadline: Instant) -> Result<Turn<'_>, Refused> {
        let entering = self.enter_by(deadline.min(Instant::now() + self.wait));
        // A server that is slow to tell the rate does not keep a call beyond its own time.
        let entered = timeout_at(deadline, entering).await;
        let entered = entered.unwrap_or_else(|_| {
            Err(Refused {
                text: "the rate was not known in time".to_owned(),
                retry_after: None,
            })
        });
        if entered.is_err() {
            self.refused.record(1.0);
        }
        entered
    }

    /// Takes a turn if there is one now. That there is none is no refusal of a call.
    pub(super) async fn enter_now(&self) -> Option<Turn<'_>> {
        self.enter_by(Instant::now()).await.ok()
    }

    async fn enter_by(&self, until: Instant) -> Result<Turn<'_>, Refused> {
        let turn = match &self.rate {
            Rate::Own(rate) => Right::Own(rate.turn_by(until).await?),
            #[cfg(feature = "redis")]
            Rate::Shared(rate) => match rate.turn_by(until).await? {
                Granted::Alone(turn) => {
                    self.alone.record(1.0);
                    Right::Own(turn)
                }
                Granted::ByServer(turn) => Right::Shared(turn),
            },
        };
        Ok(Turn(turn))
    }
}

/// The right to start one attempt. Dropped before it is used, it goes back to where it came from.
#[derive(Debug)]
#[must_use = "a turn that is dropped goes back"]
pub(super) struct Turn<'l>(Right<'l>);

#[derive(Debug)]
enum Right<'l> {
    Own(resilience::Turn<'l>),
    #[cfg(feature = "redis")]
    Shared(SharedTurn),
}

impl Turn<'_> {
    /// The attempt starts.
    pub(super) fn used(self) {
        match self.0 {
            Right::Own(turn) => turn.take(),
            #[cfg(feature = "redis")]
            Right::Shared(turn) => turn.take(),
        }
    }
}

/// How many repeats may be made.
#[derive(Debug)]
pub(super) struct Repeats {
    budget: RetryBudget,
    sent: Series,
    refused: Series,
}

impl Repeats {
    pub(super) fn new(
        budget: RetryBudget,
        service: &Arc<str>,
        metrics: Option<&dyn MetricsSink>,
    ) -> Self {
        let series = |outcome: &str| {
            let labels = vec![Arc::clone(service), outcome.into()];
            Series::of(metrics, RETRIES, labels)
        };
        Self {
            budget,
            sent: series("sent"),
            refused: series("refused"),
        }
    }

    /// Counts a call: it earns its share of a repeat.
    pub(super) fn deposit(&self, now: Instant) {
        self.budget.deposit(now);
    }

    /// One of those that may be made at `now`, if there is one.
    pub(super) fn withdraw(&self, now: Instant) -> Option<Repeat<'_>> {
        let allowed = self.budget.withdraw(now);
        if !allowed {
            self.refused.record(1.0);
        }
        // Not made where there is none: dropping it would give it back.
        allowed.then(|| Repeat {
            repeats: self,
            taken: Some(now),
        })
    }

    /// One that costs no server anything, and nothing of what may be made.
    pub(super) fn free(&self) -> Repeat<'_> {
        Repeat {
            repeats: self,
            taken: None,
        }
    }
}

/// A repeat that may be made. Dropped before it is, another may be.
#[derive(Debug)]
#[must_use = "a repeat that is dropped goes back"]
pub(super) struct Repeat<'r> {
    repeats: &'r Repeats,
    /// When it was, if it has to be given back.
    taken: Option<Instant>,
}

impl Repeat<'_> {
    /// It is sent.
    pub(super) fn sent(mut self) {
        self.taken = None;
        self.repeats.sent.record(1.0);
    }
}

impl Drop for Repeat<'_> {
    fn drop(&mut self) {
        if let Some(taken) = self.taken {
            self.repeats.budget.give_back(taken);
        }
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

    /// One of those that may be sent, if there is one.
    pub(super) fn withdraw(&self) -> Option<Second<'_>> {
        self.budget.withdraw().then(|| Second(Some(&self.budget)))
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

/// A second request that may be sent. Dropped before it is, another may be.
#[derive(Debug)]
pub(super) struct Second<'b>(Option<&'b HedgeBudget>);

impl Second<'_> {
    pub(super) fn sent(mut self) {
        self.0 = None;
    }
}

impl Drop for Second<'_> {
    fn drop(&mut self) {
        if let Some(budget) = self.0 {
            budget.give_back();
        }
    }
}
