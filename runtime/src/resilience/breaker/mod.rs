//! A circuit breaker: calls that will fail are not made, and a few probes find out when they succeed
//! again.

mod changes;
mod control;
mod options;
mod streak;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::{Rng, later};

use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};
use super::window::Window;
use changes::Listeners;
use control::Control;
use streak::Streak;

pub use changes::CircuitChanges;
pub use options::CircuitBreakerOptions;

/// What a call told about the health of what was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// It works.
    Success,
    /// It does not.
    Failure,
    /// It works and has too much to do (429): counts for the share of failures, not as one in a row.
    Refused,
    /// The call says nothing: it was given up, or was wrong by itself.
    Ignored,
}

/// The state of a [`CircuitBreaker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CircuitState {
    /// Calls go through and are counted.
    Closed,
    /// Calls go through and are not counted, because somebody said so.
    ForcedClosed,
    /// No call goes through, because somebody said so.
    ForcedOpen,
    /// A few probes go through.
    HalfOpen,
    /// No call goes through until its time is over.
    Open,
}

impl CircuitState {
    /// The name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ForcedClosed => "forced_closed",
            Self::ForcedOpen => "forced_open",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transition {
    /// The state before.
    pub from: CircuitState,
    /// The state after.
    pub to: CircuitState,
}

/// The circuit is open: nothing was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CircuitBreakerOpen {
    /// When the next call may go through; `None` if that depends on a probe, or on whoever opened it.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for CircuitBreakerOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.retry_after {
            Some(wait) => write!(
                f,
                "the circuit is open for another {} ms",
                wait.as_millis().max(1)
            ),
            None => f.write_str("the circuit is open"),
        }
    }
}

impl Error for CircuitBreakerOpen {}

/// Why [`CircuitBreaker::call`] gave no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken<E> {
    /// The call was not made.
    Open(CircuitBreakerOpen),
    /// The call was made and failed.
    Failed(E),
}

impl<E: fmt::Display> fmt::Display for Broken<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(open) => open.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: Error + 'static> Error for Broken<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Open(_) => None,
            Self::Failed(error) => error.source(),
        }
    }
}

type Observer = dyn Fn(Transition) + Send + Sync;

/// Stops calling what fails.
///
/// It is shared by clone. While it is closed, a call costs a few atomic operations and no lock. A
/// permit that is dropped without a result, because the call was given up, counts as nothing and
/// gives its probe back; the result of a call that began before a change of state is not counted.
///
/// ```
/// use interline::resilience::{Broken, CircuitBreaker, CircuitBreakerOptions};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mut options = CircuitBreakerOptions::DEFAULT;
/// options.consecutive = 2;
/// let breaker = CircuitBreaker::new(options);
/// for _ in 0..2 {
///     let failed = breaker.call(async { Err::<(), _>("unreachable") }).await;
///     assert_eq!(failed, Err(Broken::Failed("unreachable")));
/// }
/// let refused = breaker.call(async { Ok::<_, &str>(()) }).await;
/// assert!(matches!(refused, Err(Broken::Open(_))));
/// # }
/// ```
#[derive(Clone)]
pub struct CircuitBreaker(Arc<Inner>);

struct Inner {
    options: CircuitBreakerOptions,
    rng: Rng,
    observer: Option<Box<Observer>>,
    listeners: Listeners,
    /// The generation while it is closed and counts, else 0: all that the fast path reads.
    closed: AtomicU64,
    streak: Streak,
    window: Window,
    control: Mutex<Control>,
}

impl CircuitBreaker {
    /// A closed one.
    #[must_use]
    pub fn new(options: CircuitBreakerOptions) -> Self {
        Self::build(options, Rng::new(), None)
    }

    /// A closed one that draws its chance from `rng` and tells `observer` of each change of state.
    /// The observer runs where the change happens and must not wait.
    #[must_use]
    pub fn observed(
        options: CircuitBreakerOptions,
        rng: Rng,
        observer: impl Fn(Transition) + Send + Sync + 'static,
    ) -> Self {
        Self::build(options, rng, Some(Box::new(observer)))
    }

    fn build(options: CircuitBreakerOptions, rng: Rng, observer: Option<Box<Observer>>) -> Self {
        let now = Instant::now();
        let control = Control::closed(now);
        Self(Arc::new(Inner {
            options,
            rng,
            observer,
            listeners: Listeners::default(),
            closed: AtomicU64::new(control.generation),
            streak: Streak::new(control.generation),
            window: Window::new(options.window, now),
            control: Mutex::new(control),
        }))
    }

    /// Makes the call unless the circuit is open; an error counts as a failure.
    ///
    /// # Errors
    /// [`Broken::Open`] without a call, or the call's own error.
    pub async fn call<T, E>(
        &self,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Broken<E>> {
        let judge = |result: &Result<T, E>| match result {
            Ok(_) => Signal::Success,
            Err(_) => Signal::Failure,
        };
        self.call_judged(future, judge).await
    }

    /// Makes the call unless the circuit is open; `judge` says what its result means.
    ///
    /// # Errors
    /// [`Broken::Open`] without a call, or the call's own error.
    pub async fn call_judged<T, E>(
        &self,
        future: impl Future<Output = Result<T, E>>,
        judge: impl FnOnce(&Result<T, E>) -> Signal,
    ) -> Result<T, Broken<E>> {
        let permit = self.acquire(Instant::now()).map_err(Broken::Open)?;
        let result = future.await;
        permit.record(judge(&result), Instant::now());
        result.map_err(Broken::Failed)
    }

    /// Asks to make a call at `now`.
    ///
    /// # Errors
    /// [`CircuitBreakerOpen`] if it must not be made.
    pub fn acquire(&self, now: Instant) -> Result<CircuitPermit, CircuitBreakerOpen> {
        let generation = self.0.closed.load(Ordering::Acquire);
        if generation != 0 {
            return Ok(self.permit(generation, false, now));
        }
        let (admitted, change) = self.control().admit(&self.0.options, now);
        self.tell(change);
        admitted.map(|(generation, probe)| self.permit(generation, probe, now))
    }

    /// What is called was found failing by somebody who has no permit: by a check, or because it said nothing
    /// while another one answered. It counts as a failed call, or as that of the probe that is under way,
    /// which then says nothing any more.
    pub fn found_failing(&self, now: Instant) {
        if let Ok(permit) = self.acquire(now) {
            return permit.record(Signal::Failure, now);
        }
        let half_open = {
            let control = self.control();
            (control.state == CircuitState::HalfOpen).then_some(control.generation)
        };
        if let Some(generation) = half_open {
            self.probed(generation, Some(false), now);
        }
    }

    /// Whether a call would be let through at `now`. Takes no probe.
    #[must_use]
    pub fn is_open(&self, now: Instant) -> bool {
        self.0.closed.load(Ordering::Acquire) == 0
            && !self.control().would_admit(&self.0.options, now)
    }

    /// The state. An open circuit whose time is over becomes half-open with the next call.
    #[must_use]
    pub fn state(&self) -> CircuitState {
        self.control().state
    }

    /// Its changes from now on.
    ///
    /// ```
    /// use interline::resilience::{CircuitBreaker, CircuitBreakerOptions, CircuitState};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let breaker = CircuitBreaker::new(CircuitBreakerOptions::DEFAULT);
    /// let mut changes = breaker.subscribe();
    /// breaker.force_open();
    /// assert_eq!(changes.next().await.unwrap().to, CircuitState::ForcedOpen);
    /// # }
    /// ```
    #[must_use]
    pub fn subscribe(&self) -> CircuitChanges {
        self.0.listeners.join()
    }

    /// Opens it for `lasting` from `now`, whatever was counted; then probes find out. A longer time that
    /// runs already goes on; what was forced stays so.
    pub fn open_for(&self, lasting: Duration, now: Instant) {
        let change = {
            let mut control = self.control();
            let change = control.open_until(later(now, lasting));
            self.publish(&control);
            change
        };
        self.tell(change);
    }

    /// How long nothing goes through yet; `None` if something may, or if nobody can say.
    #[must_use]
    pub fn retry_after(&self, now: Instant) -> Option<Duration> {
        self.control().left(now)
    }

    /// Lets no call through until [`reset`](Self::reset).
    pub fn force_open(&self) {
        self.force(CircuitState::ForcedOpen);
    }

    /// Lets every call through and counts none, until [`reset`](Self::reset).
    pub fn force_closed(&self) {
        self.force(CircuitState::ForcedClosed);
    }

    /// Closes it, and forgets what it has counted.
    pub fn reset(&self) {
        self.force(CircuitState::Closed);
    }

    fn force(&self, state: CircuitState) {
        let change = {
            let mut control = self.control();
            let change = control.force(state, Instant::now());
            self.publish(&control);
            change
        };
        self.tell(change);
    }

    fn permit(&self, generation: u64, probe: bool, begun: Instant) -> CircuitPermit {
        CircuitPermit {
            breaker: Some(self.clone()),
            generation,
            probe,
            begun,
            took: None,
        }
    }

    /// A result while closed.
    fn count(&self, generation: u64, signal: Signal, slow: bool, now: Instant) {
        let inner = &self.0;
        if inner.closed.load(Ordering::Acquire) != generation {
            return;
        }
        let failed = matches!(signal, Signal::Failure | Signal::Refused);
        inner
            .window
            .add(now, [1, u32::from(failed), u32::from(slow)]);
        let in_a_row = match signal {
            Signal::Failure => inner.streak.failed(generation),
            Signal::Success => {
                inner.streak.ended(generation);
                0
            }
            _ => 0,
        };
        if (failed || slow) && self.is_too_much(in_a_row, now) {
            let change = {
                let mut control = self.control();
                let change = control.trip(generation, &inner.options, &inner.rng, now);
                self.publish(&control);
                change
            };
            self.tell(change);
        }
    }

    fn is_too_much(&self, in_a_row: u32, now: Instant) -> bool {
        let options = &self.0.options;
        if options.consecutive > 0 && in_a_row >= options.consecutive {
            return true;
        }
        let [calls, failed, slow] = self.0.window.sums(now);
        if calls < options.minimum_calls.max(1) {
            return false;
        }
        let calls = f64::from(calls);
        let slow_counts = options.slow_call.is_some();
        f64::from(failed) / calls >= options.failure_rate && failed > 0
            || slow_counts && f64::from(slow) / calls >= options.slow_rate && slow > 0
    }

    /// The result of a probe; `None` if there was none.
    fn probed(&self, generation: u64, healthy: Option<bool>, now: Instant) {
        let inner = &self.0;
        let change = {
            let mut control = self.control();
            let change = control.probed(generation, healthy, &inner.options, &inner.rng, now);
            self.publish(&control);
            change
        };
        self.tell(change);
    }

    /// Shows the fast path what the control says. Called with the lock held, so that the two agree.
    fn publish(&self, control: &Control) {
        let closed = match control.state {
            CircuitState::Closed => control.generation,
            _ => 0,
        };
        if closed != 0 && closed != self.0.closed.load(Ordering::Relaxed) {
            self.0.window.clear();
            self.0.streak.begin(closed);
        }
        self.0.closed.store(closed, Ordering::Release);
    }

    fn tell(&self, change: Option<Transition>) {
        let Some(change) = change else {
            return;
        };
        if let Some(observer) = &self.0.observer {
            observer(change);
        }
        self.0.listeners.tell(change);
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.0
            .control
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("state", &self.state())
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

/// The right to make one call. Dropped without [`record`](Self::record), it counts as nothing.
#[derive(Debug)]
#[must_use = "a permit that is dropped counts as nothing"]
pub struct CircuitPermit {
    /// Taken by whoever ends the permit first.
    breaker: Option<CircuitBreaker>,
    generation: u64,
    probe: bool,
    begun: Instant,
    /// How long it took, where that is known before the result is.
    took: Option<Duration>,
}

impl CircuitPermit {
    /// The answer has begun at `now`, and takes as long as it takes to read: how that goes on will be
    /// [recorded](Self::record), and not how long. A probe has found out what it was made for, and is over
    /// with it: `None`.
    ///
    /// ```
    /// use interline::resilience::{CircuitBreaker, CircuitBreakerOptions, Signal};
    /// use tokio::time::Instant;
    ///
    /// let breaker = CircuitBreaker::new(CircuitBreakerOptions::DEFAULT);
    /// let permit = breaker.acquire(Instant::now()).unwrap();
    /// // The head of an answer has come.
    /// let permit = permit.answered(Instant::now());
    /// // The body broke off.
    /// if let Some(permit) = permit {
    ///     permit.record(Signal::Failure, Instant::now());
    /// }
    /// ```
    #[must_use = "a permit that is dropped counts as nothing"]
    pub fn answered(mut self, now: Instant) -> Option<Self> {
        if self.probe {
            self.record(Signal::Success, now);
            return None;
        }
        self.took = Some(now.saturating_duration_since(self.begun));
        Some(self)
    }

    /// What the call told, at its end.
    pub fn record(mut self, signal: Signal, now: Instant) {
        let Some(breaker) = self.breaker.take() else {
            return;
        };
        let limit = breaker.0.options.slow_call;
        let took = self.took;
        let took = took.unwrap_or_else(|| now.saturating_duration_since(self.begun));
        let slow = limit.is_some_and(|limit| took >= limit);
        if self.probe {
            let healthy = match signal {
                Signal::Ignored => None,
                Signal::Success => Some(!slow),
                Signal::Failure | Signal::Refused => Some(false),
            };
            breaker.probed(self.generation, healthy, now);
        } else if signal != Signal::Ignored {
            breaker.count(self.generation, signal, slow, now);
        }
    }
}

impl Drop for CircuitPermit {
    fn drop(&mut self) {
        if let Some(breaker) = self.breaker.take()
            && self.probe
        {
            breaker.probed(self.generation, None, Instant::now());
        }
    }
}
