//! The breaker of a subscription: when handling fails too often, or a handler asks for a pause, it stops
//! fetching, gives back what was not started, and after a wait lets one message find out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::clock::Rng;
use crate::handling::{Failed, Reason};
use crate::messaging::BreakerPolicy;
use crate::observability::metrics::Series;
use crate::resilience::{
    CircuitBreaker, CircuitBreakerOptions, CircuitPermit, CircuitState, Signal,
};

use super::gate::{Fetch, Gate};
use super::verdict::Verdict;

/// What a probe may take beyond the time limit of its handler.
const PROBE_SLACK: Duration = Duration::from_secs(5);
/// How long the circuit is looked at again where it does not say when.
const LOOK: Duration = Duration::from_secs(1);

/// Where the driver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Closed,
    /// The consumer is being told to stop; what were given back now would come again at once.
    Stopping,
    /// Nothing is fetched: what is held goes back.
    Open,
    /// One message at a time is fetched; who is too many waits for what the probe tells.
    Probing,
}

pub(super) struct Breaker {
    circuit: CircuitBreaker,
    /// Whether outcomes are counted; else only a handler's pause opens it.
    counts: bool,
    /// Whether the circuit is closed: all that is read for each message.
    calm: Arc<AtomicBool>,
    changed: watch::Sender<CircuitState>,
    stand: watch::Sender<Stand>,
    gauge: Series,
}

/// Leave to make one attempt.
pub(super) struct Leave(Option<CircuitPermit>);

impl Breaker {
    pub(super) fn new(
        policy: Option<BreakerPolicy>,
        handler_timeout: Duration,
        rng: Rng,
        gauge: Series,
    ) -> Self {
        let mut options = CircuitBreakerOptions::DEFAULT;
        options.consecutive = 0;
        options.probe_wait = handler_timeout + PROBE_SLACK;
        // A share above 1 is never reached.
        options.failure_rate = policy.map_or(2.0, |policy| policy.ratio);
        if let Some(policy) = policy {
            options.minimum_calls = policy.minimum;
            options.window = policy.window;
            options.open = policy.wait;
            options.open_max = policy.max.max(policy.wait);
        }
        let changed = watch::Sender::new(CircuitState::Closed);
        let calm = Arc::new(AtomicBool::new(true));
        let (tell, seen) = (changed.clone(), Arc::clone(&calm));
        let circuit = CircuitBreaker::observed(options, rng, move |change| {
            seen.store(change.to == CircuitState::Closed, Ordering::Release);
            tell.send_replace(change.to);
        });
        Self {
            circuit,
            counts: policy.is_some(),
            calm,
            changed,
            stand: watch::Sender::new(Stand::Closed),
            gauge,
        }
    }

    pub(super) fn state(&self) -> CircuitState {
        self.circuit.state()
    }

    /// Leave for one attempt where nothing is counted and nothing is wrong.
    pub(super) fn at_once(&self) -> Option<Leave> {
        (!self.counts && self.calm.load(Ordering::Acquire)).then_some(Leave(None))
    }

    /// Leave for one attempt. Waits while a probe is under way, and with `stays` also while nothing is
    /// fetched; without it `None` says that the message has to go back meanwhile. `None` too once
    /// `gone` says that there is nothing left to attempt.
    pub(super) async fn enter(&self, stays: bool, gone: impl Fn() -> bool) -> Option<Leave> {
        let mut stand = self.stand.subscribe();
        loop {
            let now = Instant::now();
            if gone() {
                return None;
            }
            if let Some(leave) = self.at_once() {
                return Some(leave);
            }
            if let Ok(permit) = self.circuit.acquire(now) {
                return Some(Leave(Some(permit)));
            }
            let seen = *stand.borrow_and_update();
            if seen == Stand::Open && !stays {
                return None;
            }
            // A probe that said nothing, or a connection that is lost, changes nothing here, so it is
            // looked at again.
            tokio::select! {
                _ = stand.changed() => {}
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Stops fetching for `lasting`.
    pub(super) fn pause_for(&self, lasting: Duration) {
        self.circuit.open_for(lasting, Instant::now());
    }

    /// Forgets everything.
    pub(super) fn reset(&self) {
        self.circuit.reset();
    }

    /// Has the consumer do what the circuit says, until the task is aborted.
    pub(super) async fn drive(self: Arc<Self>, gate: Arc<Gate>, label: Arc<str>) {
        let mut changes = self.changed.subscribe();
        loop {
            let state = *changes.borrow_and_update();
            match state {
                CircuitState::Open | CircuitState::ForcedOpen => {
                    self.gauge.record(1.0);
                    tracing::warn!(
                        subscription = &*label,
                        "the breaker is open: nothing is fetched"
                    );
                    self.stand.send_replace(Stand::Stopping);
                    gate.allow(Fetch::Nothing).await;
                    self.stand.send_replace(Stand::Open);
                    if !self.until_due(&mut changes).await {
                        continue;
                    }
                    self.stand.send_replace(Stand::Probing);
                    gate.allow(Fetch::One).await;
                }
                CircuitState::HalfOpen => {
                    // Whoever was first may have had its message in hand already. Should it tell
                    // nothing, the next one has to be fetched.
                    self.stand.send_replace(Stand::Probing);
                    gate.allow(Fetch::One).await;
                }
                CircuitState::Closed | CircuitState::ForcedClosed => {
                    let was = self.stand.send_replace(Stand::Closed);
                    if was != Stand::Closed {
                        self.gauge.record(0.0);
                        tracing::info!(subscription = &*label, "the breaker is closed again");
                    }
                    gate.allow(Fetch::All).await;
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until a probe may be made; `false` if the circuit changed meanwhile.
    async fn until_due(&self, changes: &mut watch::Receiver<CircuitState>) -> bool {
        loop {
            let wait = match self.circuit.retry_after(Instant::now()) {
                None => return true,
                Some(wait) => wait,
            };
            tokio::select! {
                _ = changes.changed() => {
                    changes.mark_changed();
                    return false;
                }
                () = sleep(wait) => {}
            }
        }
    }
}

impl Leave {
    /// What the attempt told.
    pub(super) fn end<'a>(self, verdicts: impl IntoIterator<Item = &'a Verdict>) {
        let Some(permit) = self.0 else { return };
        let signals = verdicts.into_iter().map(signal);
        let told = signals.reduce(|one, two| match (one, two) {
            (Signal::Failure, _) | (_, Signal::Failure) => Signal::Failure,
            (Signal::Success, _) | (_, Signal::Success) => Signal::Success,
            (one, _) => one,
        });
        permit.record(told.unwrap_or(Signal::Ignored), Instant::now());
    }
}

/// What a verdict tells of whether handling works: what is wrong with one message says nothing.
fn signal(verdict: &Verdict) -> Signal {
    let of = |failed: &Failed| match failed.reason {
        Reason::Decode | Reason::NewerVersion | Reason::NoHandler | Reason::Unauthorized => {
            Signal::Ignored
        }
        Reason::Rejected => Signal::Success,
        _ => Signal::Failure,
    };
    match verdict {
        Verdict::Done => Signal::Success,
        Verdict::Pause { .. } => Signal::Ignored,
        Verdict::Discard(failed) | Verdict::DeadLetter(failed) | Verdict::Retry { failed, .. } => {
            of(failed)
        }
    }
}
