//! Copies that a broker does not take: of what is to be tried again, and of what is given up.
//!
//! Nothing is lost by that, as the original is given back; but it comes again at once, and its handler works
//! for nothing. So whoever gives it back waits first, the longer the longer it has been so.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::BrokerError;

/// The shortest wait.
const WAIT_MIN: Duration = Duration::from_millis(500);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// After this time it counts as something that somebody has to look at.
const LASTING: Duration = Duration::from_secs(5);

/// How long the last failure counts: longer than the longest wait, after which the same message fails again.
const OLD: Duration = Duration::from_secs(90);

/// Where a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    DeadLetters,
    Retries,
}

/// Whether copies of a subscription's messages can be written, for each of the places they go to.
#[derive(Debug, Default)]
pub(crate) struct Unkept {
    dead_letters: Mutex<Option<Failing>>,
    retries: Mutex<Option<Failing>>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    why: String,
}

impl Failing {
    /// Whether that is so long ago that nobody knows how it is now: nothing had to be kept since.
    fn is_old(&self, now: Instant) -> bool {
        now.duration_since(self.last) > OLD
    }
}

impl Unkept {
    fn place(&self, copied: Copied) -> &Mutex<Option<Failing>> {
        match copied {
            Copied::DeadLetters => &self.dead_letters,
            Copied::Retries => &self.retries,
        }
    }

    /// A copy could not be written. Returns how long its original is kept before it is given back; `spread`
    /// is from 0 to 1.
    pub(crate) fn fails(
        &self,
        copied: Copied,
        subscription: &str,
        error: &BrokerError,
        spread: f64,
    ) -> Duration {
        let why = error.to_string();
        let now = Instant::now();
        let mut place = lock(self.place(copied));
        let since = match &mut *place {
            Some(failing) if !failing.is_old(now) => {
                failing.why = why;
                failing.last = now;
                failing.since
            }
            _ => {
                warn!(
                    subscription,
                    "what failed cannot be kept, and stays where it was: {why}"
                );
                *place = Some(Failing {
                    since: now,
                    last: now,
                    why,
                });
                now
            }
        };
        let wait = now.duration_since(since).clamp(WAIT_MIN, WAIT_MAX);
        wait.mul_f64(0.75 + spread / 2.0)
    }

    /// A copy was written.
    pub(crate) fn works(&self, copied: Copied, subscription: &str) {
        if lock(self.place(copied)).take().is_some() {
            info!(subscription, "what failed can be kept again");
        }
    }

    /// Why something cannot be kept, if that has been so for a while.
    pub(crate) fn lasting(&self) -> Option<String> {
        [&self.dead_letters, &self.retries]
            .into_iter()
            .find_map(|place| {
                let place = lock(place);
                let failing = place.as_ref()?;
                let now = Instant::now();
                let lasts = now.duration_since(failing.since) >= LASTING && !failing.is_old(now);
                lasts.then(|| format!("what failed cannot be kept: {}", failing.why))
            })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::BrokerErrorKind;

    fn refused() -> BrokerError {
        BrokerError::new(BrokerErrorKind::Permission, &"main".into(), "it may not")
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_grows_with_the_time_for_which_it_has_been_so() {
        let unkept = Unkept::default();
        let fails = || unkept.fails(Copied::DeadLetters, "g.t", &refused(), 0.5);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let wait = fails();
            waits.push(wait.as_millis());
            tokio::time::advance(wait).await;
        }
        let grows = [500, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000];
        assert_eq!(waits, grows);
        // Many that fail at once wait as long as one.
        assert_eq!((fails(), fails()), (WAIT_MAX, WAIT_MAX));
        unkept.works(Copied::DeadLetters, "g.t");
        assert_eq!(fails(), WAIT_MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn what_lasts_is_told_until_it_works() {
        let unkept = Unkept::default();
        unkept.fails(Copied::Retries, "g.t", &refused(), 0.5);
        assert_eq!(unkept.lasting(), None);
        tokio::time::advance(LASTING).await;
        // The other place has nothing to do with it.
        unkept.works(Copied::DeadLetters, "g.t");
        let why = unkept.lasting().unwrap_or_default();
        assert!(why.contains("it may not"), "{why}");
        unkept.works(Copied::Retries, "g.t");
        assert_eq!(unkept.lasting(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_failure_after_which_nothing_has_to_be_kept_is_forgotten() {
        let unkept = Unkept::default();
        let fails = || unkept.fails(Copied::Retries, "g.t", &refused(), 0.5);
        fails();
        tokio::time::advance(LASTING).await;
        assert!(unkept.lasting().is_some());
        tokio::time::advance(OLD).await;
        assert_eq!(unkept.lasting(), None);
        assert_eq!(fails(), WAIT_MIN);
    }
}
