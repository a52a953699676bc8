//! A limit on how many things run at once, with a short line before it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Lets at most so many run at once; a few more wait in line, until a deadline. One slow service then
/// takes its own share of a program and not all of it.
#[derive(Debug)]
pub struct Bulkhead {
    places: Arc<Semaphore>,
    concurrency: usize,
    waiting: AtomicUsize,
    line: usize,
}

/// A place; dropping it gives it back.
#[derive(Debug)]
pub struct BulkheadPermit(#[allow(dead_code, reason = "held, never read")] OwnedSemaphorePermit);

/// There was no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkheadFull;

impl fmt::Display for BulkheadFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("as many run as may, and nobody finished in time")
    }
}

impl std::error::Error for BulkheadFull {}

impl Bulkhead {
    /// At most `concurrency` (at least 1) at once, and `line` waiting.
    #[must_use]
    pub fn new(concurrency: usize, line: usize) -> Self {
        let places = concurrency.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(places)),
            concurrency: places,
            waiting: AtomicUsize::new(0),
            line,
        }
    }

    /// How many places are taken.
    ///
    /// ```
    /// use interline::resilience::Bulkhead;
    ///
    /// let bulkhead = Bulkhead::new(2, 0);
    /// let place = bulkhead.try_enter();
    /// assert_eq!((bulkhead.running(), bulkhead.waiting()), (1, 0));
    /// drop(place);
    /// assert_eq!(bulkhead.running(), 0);
    /// ```
    #[must_use]
    pub fn running(&self) -> usize {
        self.concurrency - self.places.available_permits()
    }

    /// How many wait in line.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Takes a place if one is free.
    ///
    /// ```
    /// use interline::resilience::Bulkhead;
    ///
    /// let bulkhead = Bulkhead::new(1, 0);
    /// let place = bulkhead.try_enter();
    /// assert!(place.is_some() && bulkhead.try_enter().is_none());
    /// drop(place);
    /// assert!(bulkhead.try_enter().is_some());
    /// ```
    #[must_use]
    pub fn try_enter(&self) -> Option<BulkheadPermit> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.ok().map(BulkheadPermit)
    }

    /// Takes a place, waiting in line until `deadline`.
    ///
    /// # Errors
    /// [`BulkheadFull`] if the line is full, or nobody made room in time.
    pub async fn enter(&self, deadline: Instant) -> Result<BulkheadPermit, BulkheadFull> {
        if let Some(place) = self.try_enter() {
            return Ok(place);
        }
        let Some(_waiting) = Waiting::join(&self.waiting, self.line) else {
            return Err(BulkheadFull);
        };
        match timeout_at(deadline, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(BulkheadPermit(permit)),
            _ => Err(BulkheadFull),
        }
    }
}

/// A place in the line; one who gives up leaves it.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(waiting: &'a AtomicUsize, line: usize) -> Option<Self> {
        let one_more = |count| (count < line).then_some(count + 1);
        let joined = waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        // Not made where it did not join: dropping it would leave the line.
        joined.is_ok().then(|| Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn as_many_run_as_may_and_a_few_wait() {
        let bulkhead = Arc::new(Bulkhead::new(2, 1));
        let deadline = Instant::now() + Duration::from_secs(1);
        let one = bulkhead.enter(deadline).await.unwrap();
        let _two = bulkhead.enter(deadline).await.unwrap();
        let waiting = tokio::spawn({
            let bulkhead = Arc::clone(&bulkhead);
            async move { bulkhead.enter(deadline).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(bulkhead.enter(deadline).await.unwrap_err(), BulkheadFull);
        assert_eq!(Instant::now() + Duration::from_secs(1), deadline);
        drop(one);
        let _three = waiting.await.unwrap().unwrap();
        assert_eq!(bulkhead.enter(deadline).await.unwrap_err(), BulkheadFull);
        // tokio's timers count whole milliseconds.
        assert!(Instant::now() - deadline <= Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_gives_up_leaves_the_line() {
        let bulkhead = Bulkhead::new(1, 1);
        let deadline = Instant::now() + Duration::from_secs(1);
        let held = bulkhead.enter(deadline).await.unwrap();
        for _ in 0..100 {
            let gave_up = tokio::time::timeout(Duration::from_millis(1), bulkhead.enter(deadline));
            assert!(gave_up.await.is_err());
        }
        drop(held);
        bulkhead.enter(deadline).await.unwrap();
    }
}
