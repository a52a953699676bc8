//! What happens around a call: limits, circuit breakers, attempts, and the choice of an endpoint for
//! each of them.

mod attempt;
mod attempts;
mod classify;
mod hedged;
mod request;
mod whereabouts;

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::{Clock, Rng};
use crate::discovery::Whereabouts;
use crate::observability::metrics::{CLIENT_ENDPOINTS, MetricsSink, Series};
use crate::resilience::{Bulkhead, CircuitBreaker, RetryBudget, UsualTime};

use super::cache::Cache;
use super::endpoints::{Maker, observer};
use super::error::{CallErrorKind, CallFailure};
use super::limits::{Hedging, Limiter, Repeats};
use super::options::Decided;
use super::places::Places;
use super::pool::{Pool, Tried, Wish};
use super::settings::ServiceSettings;
use super::stream::Ongoing;
use super::transport::Transport;
#[cfg(feature = "testing")]
use super::transport::stand_in::StandIns;

use classify::signal_of_call;

pub(super) use classify::explain;
#[cfg(feature = "tower")]
pub(super) use request::TIMEOUT;
pub(super) use request::{ATTEMPT, Answer, Prepared};

/// Everything that the calls of one service share.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(super) service: Arc<str>,
    pub(super) environment: Surroundings,
    /// Who calls, as requests say it; `None` where no header can.
    pub(super) agent: Option<HeaderValue>,
    pub(super) settings: ServiceSettings,
    pool: ArcSwap<Pool>,
    transport: Arc<Transport>,
    /// Whether it is known where the service is, if only that it is nowhere.
    resolved: watch::Sender<bool>,
    places: Places,
    endpoints: Series,
    breaker: Option<CircuitBreaker>,
    repeats: Repeats,
    limiter: Option<Limiter>,
    hedging: Hedging,
    /// How long the attempts of calls without a trait usually take, where second requests go by that.
    pub(super) times: Option<Arc<UsualTime>>,
    /// Made when the first call asks for it.
    cache: OnceLock<Cache>,
}

/// What a stack takes from the app.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) caller: Arc<str>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Rng,
    pub(crate) metrics: Option<Arc<dyn MetricsSink>>,
    #[cfg(feature = "testing")]
    pub(crate) stand_ins: StandIns,
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings")
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}

impl Stack {
    /// Makes everything and connects to nothing.
    pub(crate) fn new(
        service: Arc<str>,
        settings: ServiceSettings,
        environment: Surroundings,
    ) -> Result<Self, String> {
        // One for all: it keeps the connections of each address apart, and those to one that is gone
        // are closed when they have been idle for long enough.
        let rng = &environment.rng;
        let transport = Transport::new(
            settings.ways,
            settings.security.clone(),
            settings.connection_age_max,
            settings.response_bytes_max,
            rng,
        )?;
        #[cfg(feature = "testing")]
        let transport = transport.carried_by(environment.stand_ins.of(&service), settings.ways);
        let transport = Arc::new(transport);
        let metrics = environment.metrics.as_deref();
        let breaker = settings.breaker.map(|options| {
            CircuitBreaker::observed(options, rng.clone(), observer(&service, "", metrics))
        });
        let maker = Maker::new(&service, &settings, &environment);
        let (balance, outliers) = (settings.balance, settings.outliers);
        let pool = Pool::empty(maker, Arc::clone(&transport), balance, outliers, rng);
        let rate = settings.rate.as_ref();
        let limiter = rate.map(|rate| Limiter::new(rate, &service, metrics));
        let bulkhead = Bulkhead::new(settings.concurrency, settings.queue);
        let budget = RetryBudget::new(settings.budget, settings.floor);
        let hedging = Hedging::new(settings.hedge_share, &service, metrics);
        let this = Self {
            pool: ArcSwap::from_pointee(pool),
            transport,
            resolved: watch::Sender::new(false),
            places: Places::new(bulkhead, &service, metrics),
            endpoints: Series::of(metrics, CLIENT_ENDPOINTS, vec![Arc::clone(&service)]),
            breaker,
            limiter,
            hedging,
            times: Decided::of(&[settings.call]).usual_time(),
            repeats: Repeats::new(budget, &service, metrics),
            cache: OnceLock::new(),
            agent: HeaderValue::from_str(&environment.caller).ok(),
            service,
            environment,
            settings,
        };
        if let Whereabouts::Fixed(endpoints) = &this.settings.whereabouts {
            this.apply(endpoints);
        }
        Ok(this)
    }

    /// The answers that are kept.
    pub(super) fn cache(&self) -> &Cache {
        let bytes_max = self.settings.cache_bytes_max;
        self.cache.get_or_init(|| Cache::new(bytes_max))
    }

    /// A call that may have written something has ended.
    pub(super) fn written(&self, prepared: &Prepared) {
        if let Some(cache) = self.cache.get() {
            cache.written(&prepared.method, &prepared.target);
        }
    }

    /// The endpoint to which a call of now would go, if there is one.
    pub(super) fn endpoint(&self) -> Option<Arc<str>> {
        let pool = self.pool.load_full();
        let wish = Wish {
            hash: None,
            zone: self.settings.zone.as_deref(),
        };
        let lease = pool.pick(&mut Tried::default(), wish, Instant::now())?;
        Some(Arc::clone(&lease.target.url))
    }

    /// The endpoints of now.
    pub(super) fn pool(&self) -> Arc<Pool> {
        self.pool.load_full()
    }

    /// The circuit of the service, if it has one.
    pub(super) fn circuit(&self) -> Option<&CircuitBreaker> {
        self.breaker.as_ref()
    }

    /// Makes the call.
    pub(super) async fn call(&self, prepared: &Prepared) -> Result<Answer, Box<CallFailure>> {
        self.call_at(prepared, &mut Instant::now()).await
    }

    /// Makes the call at `now`, which becomes the moment at which it has ended: looking at the clock costs
    /// as much as all that is counted of a call, and is done again only where time may have passed.
    pub(super) async fn call_at(
        &self,
        prepared: &Prepared,
        now: &mut Instant,
    ) -> Result<Answer, Box<CallFailure>> {
        let refuse = |kind, text| Box::new(CallFailure::new(kind, &prepared.call, text));
        let place = match self.places.try_enter() {
            Some(place) => place,
            None => {
                let entered = self.places.enter(prepared.deadline).await;
                *now = Instant::now();
                let Ok(place) = entered else {
                    let text = format!(
                        "{} calls run and {} wait, as many as may; nobody finished in time",
                        self.settings.concurrency, self.settings.queue
                    );
                    return Err(refuse(CallErrorKind::BulkheadFull, text));
                };
                place
            }
        };
        let permit = match &self.breaker {
            None => None,
            Some(breaker) => match breaker.acquire(*now) {
                Ok(permit) => Some(permit),
                Err(open) => {
                    let text = format!("{open}, because calls to the service failed");
                    let mut failure = refuse(CallErrorKind::CircuitBreakerOpen, text);
                    failure.retry_after = open.retry_after;
                    return Err(failure);
                }
            },
        };
        let mut result = self.attempts(prepared, now).await;
        if let Ok(Answer {
            rest: Some(rest), ..
        }) = &mut result
        {
            rest.call_goes_on = Some(Ongoing::new(place, permit, *now));
        } else if let Some(permit) = permit {
            permit.record(signal_of_call(&self.settings.judge, &result), *now);
        }
        result
    }
}
