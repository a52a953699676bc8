//! What happens around a call: limits, circuit breakers, attempts, and the choice of an endpoint for
//! each of them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::HeaderValue;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::clock::{Clock, Rng};
use crate::discovery::{DiscoveryStatus, EndpointSet, Whereabouts};
use crate::observability::metrics::MetricsSink;
use crate::resilience::{Bulkhead, CircuitBreaker, RetryBudget, Signal};

use super::body::Body;
use super::cache::Cache;
use super::checks;
use super::endpoints::{Maker, observer};
use super::error::{CallErrorKind, CallFailure, CallName, Sent, may_be_repeated};
use super::events::Again;
use super::limits::{Hedging, Limiter};
use super::options::Decided;
use super::pool::{Lease, Pool, Tried, Wish};
use super::retry_after;
use super::settings::ServiceSettings;
use super::stream::Rest;
use super::transport::{Incoming, Outgoing, Transport, TransportError};

/// Which attempt it is, from 1.
/// Why a call is not repeated that could be.
const NO_TIME: &str = "there is no time for another attempt";
static ATTEMPT: HeaderName = HeaderName::from_static("x-attempt");
/// How many milliseconds the caller will still wait.
pub(super) static TIMEOUT: HeaderName = HeaderName::from_static("x-timeout-ms");

/// Everything that the calls of one service share.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(super) service: Arc<str>,
    pub(super) environment: Surroundings,
    pub(super) settings: ServiceSettings,
    pool: ArcSwap<Pool>,
    /// Whether it is known where the service is, if only that it is nowhere.
    resolved: watch::Sender<bool>,
    bulkhead: Bulkhead,
    breaker: Option<CircuitBreaker>,
    budget: RetryBudget,
    limiter: Option<Limiter>,
    hedging: Hedging,
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
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings")
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}

/// A request, ready to be sent as often as it takes.
#[derive(Clone)]
pub(super) struct Prepared {
    pub(super) call: Arc<CallName>,
    pub(super) method: Method,
    /// Path and query, from the first slash on.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    /// Whether the answer is read while it comes.
    pub(super) streamed: bool,
    /// Whether the service may see it more than once.
    pub(super) repeatable: bool,
    pub(super) decided: Decided,
    pub(super) deadline: Instant,
    /// Calls with the same hash go to the same endpoint, where the balancer hashes.
    pub(super) hash: Option<u64>,
    /// Where the caller is, if not where the configuration says.
    pub(super) zone: Option<Arc<str>>,
    /// Whether 404 is an answer like any other.
    pub(super) not_found_is_fine: bool,
    /// Whether 304 is, because the request names what is kept.
    pub(super) not_modified_is_fine: bool,
}

/// An answer, with the name of who gave it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) endpoint: Arc<str>,
    pub(super) attempts: u32,
    /// What is still to come of a streamed answer.
    pub(super) rest: Option<Rest>,
    /// How to ask for it once more, where that was declared.
    pub(super) again: Option<Again>,
    /// The longest answer, or event, that may come.
    pub(super) bytes_max: usize,
}

impl Answer {
    /// The same once more, of one that came whole.
    pub(super) fn copy(&self) -> Self {
        Self {
            status: self.status,
            headers: self.headers.clone(),
            body: self.body.clone(),
            endpoint: Arc::clone(&self.endpoint),
            attempts: self.attempts,
            rest: None,
            again: None,
            bytes_max: self.bytes_max,
        }
    }
}

/// What came of an attempt with perhaps a second one beside it.
struct Hedged {
    result: Attempted,
    attempts: u32,
}

type Attempted = Result<Answer, Box<(CallFailure, Verdict)>>;

/// What a failed attempt means for the next.
enum Verdict {
    /// Nothing was sent: any call may be repeated.
    NotSent,
    /// It may have been sent: what is repeatable may be repeated.
    Retryable,
    /// Repeating it is of no use.
    Final,
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
        let transport = Transport::new(
            settings.connect_timeout,
            settings.idle_timeout,
            settings.response_bytes_max,
            &settings.security.prepare()?,
        )?;
        let rng = &environment.rng;
        let metrics = environment.metrics.as_deref();
        let breaker = settings.breaker.map(|options| {
            CircuitBreaker::observed(options, rng.clone(), observer(&service, "", metrics))
        });
        let maker = Maker::new(&service, &settings, &environment);
        let (balance, outliers) = (settings.balance, settings.outliers);
        let pool = Pool::empty(maker, transport, balance, outliers, rng);
        let rate = settings.rate.as_ref();
        let limiter = rate.map(|rate| Limiter::new(rate, &service, metrics));
        let hedging = Hedging::new(settings.hedge_share, &service, metrics);
        let this = Self {
            pool: ArcSwap::from_pointee(pool),
            resolved: watch::Sender::new(false),
            bulkhead: Bulkhead::new(settings.concurrency, settings.queue),
            breaker,
            limiter,
            hedging,
            budget: RetryBudget::new(settings.budget, settings.floor),
            cache: OnceLock::new(),
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

    /// Calls go to these endpoints from now on. What is known of those that were there before stays,
    /// and calls that run at one that is not there any more go on.
    fn apply(&self, endpoints: &EndpointSet) {
        let pool = self.pool.load_full();
        self.pool.store(Arc::new(pool.with(endpoints)));
        self.resolved.send_replace(true);
    }

    /// The endpoints of now.
    pub(super) fn pool(&self) -> Arc<Pool> {
        self.pool.load_full()
    }

    /// Begins to follow the service and to check its endpoints, in tasks that go on until they are aborted.
    pub(crate) fn follow(self: &Arc<Self>) -> Vec<AbortHandle> {
        let mut tasks = Vec::new();
        if let Some(checks) = &self.settings.checks {
            let checking = checks::run(Arc::clone(self), checks.clone());
            tasks.push(tokio::spawn(checking).abort_handle());
        }
        let Whereabouts::Watched(watch) = &self.settings.whereabouts else {
            return tasks;
        };
        let asking = tokio::spawn(Arc::clone(watch).run());
        let (stack, mut snapshots) = (Arc::clone(self), watch.snapshots());
        let applying = tokio::spawn(async move {
            loop {
                let snapshot = snapshots.borrow_and_update().clone();
                if snapshot.resolved {
                    stack.apply(&snapshot.endpoints);
                }
                if snapshots.changed().await.is_err() {
                    return;
                }
            }
        });
        tasks.extend([asking.abort_handle(), applying.abort_handle()]);
        tasks
    }

    /// What is known of where the service is.
    pub(crate) fn discovery(&self) -> DiscoveryStatus {
        let pool = self.pool.load();
        let told = match &self.settings.whereabouts {
            Whereabouts::Watched(watch) => watch.status(),
            Whereabouts::Fixed(endpoints) => DiscoveryStatus::fixed(&self.service, endpoints),
        };
        DiscoveryStatus {
            // What calls go to, which is a moment behind what was told.
            endpoints: pool.targets().count(),
            resolved: *self.resolved.borrow(),
            unhealthy: checks::down(&pool),
            ..told
        }
    }

    /// Where the service is, in words.
    pub(crate) fn whereabouts(&self) -> String {
        match &self.settings.whereabouts {
            Whereabouts::Watched(watch) => watch.describe(),
            Whereabouts::Fixed(_) => {
                let pool = self.pool.load();
                pool.urls().collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// Waits for the first answer of discovery. Whether it came now, so that it is worth looking again.
    async fn first_answer(&self, deadline: Instant) -> bool {
        let Whereabouts::Watched(watch) = &self.settings.whereabouts else {
            return false;
        };
        let mut resolved = self.resolved.subscribe();
        if *resolved.borrow_and_update() {
            return false;
        }
        let until = deadline.min(Instant::now() + watch.first_answer());
        let answer = resolved.wait_for(|resolved| *resolved);
        matches!(timeout_at(until, answer).await, Ok(Ok(_)))
    }

    fn why_nowhere(&self) -> String {
        match &self.settings.whereabouts {
            Whereabouts::Watched(watch) => {
                format!("no endpoint of the service is known: {}", watch.why())
            }
            Whereabouts::Fixed(_) => "no endpoint of the service is known".to_owned(),
        }
    }

    /// The circuit of the service, if it has one.
    pub(super) fn circuit(&self) -> Option<&CircuitBreaker> {
        self.breaker.as_ref()
    }

    /// Makes the call.
    pub(super) async fn call(&self, prepared: &Prepared) -> Result<Answer, Box<CallFailure>> {
        let refuse = |kind, text| Box::new(CallFailure::new(kind, &prepared.call, text));
        let Ok(_place) = self.bulkhead.enter(prepared.deadline).await else {
            let text = format!(
                "{} calls run and {} wait, as many as may; nobody finished in time",
                self.settings.concurrency, self.settings.queue
            );
            return Err(refuse(CallErrorKind::BulkheadFull, text));
        };
        let permit = match &self.breaker {
            None => None,
            Some(breaker) => match breaker.acquire(Instant::now()) {
                Ok(permit) => Some(permit),
                Err(open) => {
                    let text = format!("{open}, because calls to the service failed");
                    let mut failure = refuse(CallErrorKind::CircuitBreakerOpen, text);
                    failure.retry_after = open.retry_after;
                    return Err(failure);
                }
            },
        };
        let result = self.attempts(prepared).await;
        if let Some(permit) = permit {
            permit.record(signal_of_call(&result), Instant::now());
        }
        result
    }

    /// Tries until it works, or there is no use in trying.
    async fn attempts(&self, prepared: &Prepared) -> Result<Answer, Box<CallFailure>> {
        let mut tried = Tried::default();
        let mut sent = Sent::No;
        self.budget.deposit(Instant::now());
        // A mesh repeats by itself, and both together would multiply.
        let attempts_max = match self.settings.mesh {
            true => 1,
            false => prepared.decided.attempts,
        };
        let mut attempt = 1;
        let mut before: Option<CallFailure> = None;
        let mut has_turn = false;
        loop {
            if !has_turn
                && let Some(limiter) = &self.limiter
                && let Err(refused) = limiter.enter(prepared.deadline).await
            {
                let failure = match before {
                    Some(failure) => given_up(failure, Some("the rate allows no further attempt")),
                    None => {
                        let kind = CallErrorKind::RateLimited;
                        let mut failure = CallFailure::new(kind, &prepared.call, refused.text);
                        failure.retry_after = refused.retry_after;
                        failure
                    }
                };
                return Err(Box::new(failure));
            }
            has_turn = true;
            if Instant::now() >= prepared.deadline {
                let failure = match before {
                    Some(failure) => given_up(failure, Some(NO_TIME)),
                    None => {
                        let text = "its time was over before it was sent";
                        CallFailure::new(CallErrorKind::Timeout, &prepared.call, text)
                    }
                };
                return Err(Box::new(failure));
            }
            let pool = self.pool.load_full();
            let Some(lease) = self.pick(&pool, &mut tried, prepared) else {
                if self.first_answer(prepared.deadline).await {
                    continue;
                }
                let text = self.why_nowhere();
                let kind = CallErrorKind::ServiceDiscovery;
                return Err(Box::new(CallFailure::new(kind, &prepared.call, text)));
            };
            let hedge = prepared
                .decided
                .hedge
                .filter(|_| prepared.repeatable && attempt == 1 && attempts_max > 1)
                // Of two that send it, each would get a part.
                .filter(|_| !prepared.body.is_in_pieces());
            let result = match hedge {
                Some(after) => {
                    let hedged = self.hedged(prepared, lease, &mut tried, after).await;
                    attempt = hedged.attempts;
                    hedged.result
                }
                None => self.attempt(prepared, lease, attempt).await,
            };
            let (mut failure, verdict) = match result {
                Ok(answer) => {
                    if prepared.decided.hedge.is_some() {
                        self.hedging.succeeded();
                    }
                    return Ok(answer);
                }
                Err(failed) => *failed,
            };
            sent = sent.max(failure.sent);
            failure.sent = sent;
            failure.attempts = attempt;
            let may = match verdict {
                _ if prepared.body.is_begun() => false,
                Verdict::NotSent => true,
                Verdict::Retryable => prepared.repeatable,
                Verdict::Final => false,
            };
            if !may {
                return Err(Box::new(failure));
            }
            let elsewhere =
                matches!(verdict, Verdict::NotSent) && self.pool.load().has_untried(&tried);
            // It costs no server anything, so it costs nothing of the budget, once.
            let free = elsewhere && attempt == 1;
            let wait = match failure.retry_after {
                Some(wait) => wait,
                // Nobody was bothered, and somebody else may be there.
                None if elsewhere => Duration::ZERO,
                None => prepared
                    .decided
                    .backoff
                    .wait(attempt, &self.environment.rng),
            };
            let next = Instant::now() + wait;
            let why = if attempt >= attempts_max {
                None
            } else if next >= prepared.deadline {
                Some(NO_TIME)
            } else if !free && !self.budget.withdraw(Instant::now()) {
                Some("too many recent calls were repeated for another attempt")
            } else {
                sleep_until(next).await;
                attempt += 1;
                has_turn = false;
                before = Some(failure);
                continue;
            };
            return Err(Box::new(given_up(failure, why)));
        }
    }

    /// Tries once, and a second time beside when there is no answer after a while and the budget allows
    /// it. The first answer counts; the other attempt is given up, which is nobody's failure.
    async fn hedged(
        &self,
        prepared: &Prepared,
        lease: Lease<'_>,
        tried: &mut Tried,
        after: Duration,
    ) -> Hedged {
        let first = self.attempt(prepared, lease, 1);
        tokio::pin!(first);
        if let Ok(result) = timeout(after, &mut first).await {
            return Hedged {
                result,
                attempts: 1,
            };
        }
        // The first goes on while the second is asked for.
        let may = tokio::select! {
            biased;
            result = &mut first => return Hedged { result, attempts: 1 },
            may = self.may_hedge(prepared) => may,
        };
        let pool = self.pool.load_full();
        let lease = match may {
            true => self.pick(&pool, tried, prepared),
            false => None,
        };
        let Some(lease) = lease else {
            let result = first.await;
            return Hedged {
                result,
                attempts: 1,
            };
        };
        let second = self.attempt(prepared, lease, 2);
        tokio::pin!(second);
        let (result, of_second) = tokio::select! {
            biased;
            result = &mut first => (result, false),
            result = &mut second => (result, true),
        };
        let decided = match &result {
            Ok(_) => true,
            Err(failed) => matches!(failed.1, Verdict::Final),
        };
        let other = result
            .as_ref()
            .err()
            .map_or(Sent::No, |failed| failed.0.sent);
        // A failure that another attempt may mend waits for the one that is on its way.
        let (mut result, of_second) = match (decided, of_second) {
            (true, of_second) => (result, of_second),
            (false, true) => (first.await, false),
            (false, false) => (second.await, true),
        };
        // What either has sent may have been seen.
        if let Err(failed) = &mut result {
            failed.0.sent = failed.0.sent.max(other);
        }
        self.hedging.ended(of_second && result.is_ok());
        let attempts = 2;
        let result = result.map(|answer| Answer { attempts, ..answer });
        Hedged { result, attempts }
    }

    /// Whether a second request may be sent now.
    async fn may_hedge(&self, prepared: &Prepared) -> bool {
        if prepared.body.is_begun() || !self.hedging.withdraw() {
            return false;
        }
        match &self.limiter {
            Some(limiter) => limiter.enter_now().await,
            None => true,
        }
    }

    fn pick<'p>(
        &self,
        pool: &'p Pool,
        tried: &mut Tried,
        prepared: &Prepared,
    ) -> Option<Lease<'p>> {
        let zone = prepared.zone.as_deref();
        let wish = Wish {
            hash: prepared.hash,
            zone: zone.or(self.settings.zone.as_deref()),
        };
        pool.pick(tried, wish, Instant::now())
    }

    /// Tries once.
    async fn attempt(&self, prepared: &Prepared, lease: Lease<'_>, attempt: u32) -> Attempted {
        let begun = Instant::now();
        let limit = prepared.decided.attempt_timeout;
        let until = limit.map_or(prepared.deadline, |limit| {
            prepared.deadline.min(begun + limit)
        });
        let outgoing = outgoing(prepared, &lease.target.url, attempt, until - begun);
        let endpoint = Arc::clone(&lease.target.url);
        let result = timeout_at(until, lease.target.transport.send(outgoing)).await;
        let now = Instant::now();
        let failed = |kind, sent, verdict, text: String| {
            let mut failure = CallFailure::new(kind, &prepared.call, text);
            failure.endpoint = Some(Arc::clone(&endpoint));
            failure.sent = sent;
            (failure, verdict)
        };
        let (result, signal) = match result {
            Err(_) => {
                let took = now.saturating_duration_since(begun);
                let text = format!("no answer within {} ms", took.as_millis());
                let verdict = if until < prepared.deadline {
                    Verdict::Retryable
                } else {
                    Verdict::Final
                };
                let kind = CallErrorKind::Timeout;
                (
                    Err(failed(kind, Sent::Maybe, verdict, text)),
                    Signal::Failure,
                )
            }
            Ok(Err(error)) => {
                let (kind, sent, verdict, signal) = match &error {
                    TransportError::Connect(_) => (
                        CallErrorKind::Connect,
                        Sent::No,
                        Verdict::NotSent,
                        Signal::Failure,
                    ),
                    TransportError::Lost(_) => (
                        CallErrorKind::ConnectionLost,
                        Sent::Maybe,
                        Verdict::Retryable,
                        Signal::Failure,
                    ),
                    TransportError::Request(_) => (
                        CallErrorKind::Request,
                        Sent::No,
                        Verdict::Final,
                        Signal::Ignored,
                    ),
                    // The endpoint cannot help it.
                    TransportError::Body(_) => (
                        CallErrorKind::Request,
                        Sent::Maybe,
                        Verdict::Final,
                        Signal::Ignored,
                    ),
                    // The endpoint works; what it says is more than was asked for.
                    TransportError::TooLarge(_) => (
                        CallErrorKind::TooLarge,
                        Sent::Yes,
                        Verdict::Final,
                        Signal::Success,
                    ),
                };
                let (mut failure, verdict) = failed(kind, sent, verdict, explain(&error));
                failure.source = match error {
                    TransportError::Connect(cause)
                    | TransportError::Lost(cause)
                    | TransportError::Request(cause)
                    | TransportError::Body(cause) => Some(Box::new(cause)),
                    TransportError::TooLarge(_) => None,
                };
                (Err((failure, verdict)), signal)
            }
            Ok(Ok(incoming)) => {
                let signal = signal_of(incoming.status);
                let fine = incoming.status.is_success()
                    || prepared.not_found_is_fine && incoming.status == StatusCode::NOT_FOUND
                    || prepared.not_modified_is_fine && incoming.status == StatusCode::NOT_MODIFIED;
                let result = if fine {
                    Ok(self.answer(prepared, incoming, &endpoint, attempt))
                } else {
                    let verdict = if may_be_repeated(incoming.status) {
                        Verdict::Retryable
                    } else {
                        Verdict::Final
                    };
                    let text = format!("answered {}", incoming.status);
                    let kind = CallErrorKind::Status;
                    let (mut failure, verdict) = failed(kind, Sent::Yes, verdict, text);
                    let wall = self.environment.clock.now();
                    failure.retry_after = retry_after::read(&incoming.headers, wall);
                    failure.status = Some(incoming.status);
                    failure.headers = incoming.headers;
                    Err((failure.with_body(incoming.body), verdict))
                };
                (result, signal)
            }
        };
        let left_alone = result
            .as_ref()
            .err()
            .and_then(|(failure, _)| failure.retry_after);
        lease.record(signal, left_alone, now);
        result.map_err(Box::new)
    }
}

impl Stack {
    fn answer(
        &self,
        prepared: &Prepared,
        incoming: Incoming,
        endpoint: &Arc<str>,
        attempts: u32,
    ) -> Answer {
        let rest = incoming.rest.map(|body| Rest {
            body,
            call: Arc::clone(&prepared.call),
            endpoint: Arc::clone(endpoint),
            attempts,
            idle: self.settings.stream_idle_timeout,
            silence: None,
        });
        Answer {
            status: incoming.status,
            headers: incoming.headers,
            body: incoming.body,
            endpoint: Arc::clone(endpoint),
            attempts,
            rest,
            again: None,
            bytes_max: self.settings.response_bytes_max,
        }
    }
}

/// The last failure, as the failure of the whole call.
fn given_up(failure: CallFailure, why: Option<&'static str>) -> CallFailure {
    if failure.attempts <= 1 && why.is_none() {
        return failure;
    }
    let mut text = failure.text.to_string();
    if let Some(why) = why {
        text.push_str("; ");
        text.push_str(why);
    }
    let kind = if failure.attempts > 1 {
        CallErrorKind::RetryExhausted
    } else {
        failure.kind
    };
    CallFailure {
        kind,
        text: text.into(),
        ..failure
    }
}

fn outgoing(prepared: &Prepared, url: &str, attempt: u32, left: Duration) -> Outgoing {
    let mut headers = prepared.headers.clone();
    headers.insert(ATTEMPT.clone(), HeaderValue::from(attempt));
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    headers.insert(TIMEOUT.clone(), HeaderValue::from(millis));
    let mut whole = String::with_capacity(url.len() + prepared.target.len());
    whole.push_str(url);
    whole.push_str(&prepared.target);
    Outgoing {
        method: prepared.method.clone(),
        url: whole,
        headers,
        body: prepared.body.clone(),
        streamed: prepared.streamed,
    }
}

pub(super) fn explain(error: &TransportError) -> String {
    match error {
        TransportError::Connect(cause) => format!("no connection: {cause}"),
        TransportError::Lost(cause) => format!("the connection was lost: {cause}"),
        TransportError::Request(cause) => format!("the request cannot be sent: {cause}"),
        TransportError::Body(cause) => format!("the body broke off: {cause}"),
        TransportError::TooLarge(limit) => {
            format!("the answer is longer than {limit} bytes (`response_bytes_max`)")
        }
    }
}

/// What a status says about the health of who answered.
fn signal_of(status: StatusCode) -> Signal {
    match status.as_u16() {
        429 => Signal::Refused,
        500.. => Signal::Failure,
        _ => Signal::Success,
    }
}

/// What a call says about the health of the service.
fn signal_of_call(result: &Result<Answer, Box<CallFailure>>) -> Signal {
    let failure = match result {
        Ok(_) => return Signal::Success,
        Err(failure) => failure,
    };
    match (failure.kind, failure.status) {
        (_, Some(status)) => signal_of(status),
        (CallErrorKind::TooLarge, None) => Signal::Success,
        // Nobody was asked.
        (CallErrorKind::Timeout, None) if failure.attempts == 0 => Signal::Ignored,
        (
            CallErrorKind::RateLimited | CallErrorKind::Request | CallErrorKind::ServiceDiscovery,
            None,
        ) => Signal::Ignored,
        _ => Signal::Failure,
    }
}
