//! How many calls run at once and how many wait for it, as it is shown.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::Poll;

use tokio::time::Instant;

use crate::observability::metrics::{CALLS_IN_FLIGHT, CALLS_WAITING, MetricsSink, Series};
use crate::resilience::{Bulkhead, BulkheadFull, BulkheadPermit};

/// The places of the calls of a service.
#[derive(Debug)]
pub(super) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bulkhead: Bulkhead,
    running: Series,
    waiting: Series,
}

/// A place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    permit: Option<BulkheadPermit>,
    /// `None` where nobody looks.
    shown: Option<Arc<Inner>>,
}

impl Places {
    pub(super) fn new(
        bulkhead: Bulkhead,
        service: &Arc<str>,
        metrics: Option<&dyn MetricsSink>,
    ) -> Self {
        let series = |instrument| Series::of(metrics, instrument, vec![Arc::clone(service)]);
        Self(Arc::new(Inner {
            bulkhead,
            running: series(CALLS_IN_FLIGHT),
            waiting: series(CALLS_WAITING),
        }))
    }

    /// Takes a place if one is free.
    pub(super) fn try_enter(&self) -> Option<Place> {
        self.0.bulkhead.try_enter().map(|permit| self.place(permit))
    }

    /// Takes a place, waiting in line until `deadline`.
    pub(super) async fn enter(&self, deadline: Instant) -> Result<Place, BulkheadFull> {
        // Dropped after the place in the line is, also where the call is given up there.
        let _line = Line(&self.0);
        let mut entering = pin!(self.0.bulkhead.enter(deadline));
        let entered = match poll_fn(|cx| Poll::Ready(entering.as_mut().poll(cx))).await {
            Poll::Ready(entered) => entered,
            Poll::Pending => {
                self.0.show_waiting();
                entering.await
            }
        };
        entered.map(|permit| self.place(permit))
    }

    fn place(&self, permit: BulkheadPermit) -> Place {
        let shown = self.0.running.is_enabled().then(|| Arc::clone(&self.0));
        if let Some(inner) = &shown {
            inner.show_running();
        }
        Place {
            permit: Some(permit),
            shown,
        }
    }
}

impl Inner {
    fn show_running(&self) {
        show(&self.running, || self.bulkhead.running());
    }

    fn show_waiting(&self) {
        show(&self.waiting, || self.bulkhead.waiting());
    }
}

/// Shows how many there are. Of two that do it at once the last may have counted first, so each looks again
/// whether what it has shown is still right.
fn show(series: &Series, count: impl Fn() -> usize) {
    if !series.is_enabled() {
        return;
    }
    let count = || {
        // What was changed before is seen by whoever shows something later.
        fence(Ordering::SeqCst);
        count()
    };
    let mut shown = count();
    loop {
        series.record(shown as f64);
        let now = count();
        if now == shown {
            return;
        }
        shown = now;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.permit.take());
        if let Some(inner) = &self.shown {
            inner.show_running();
        }
    }
}

/// The line, for one who stands in it.
struct Line<'i>(&'i Inner);

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.0.show_waiting();
        // It may have been given a place that it did not take any more.
        self.0.show_running();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;
    use crate::observability::metrics::InMemoryMetrics;

    #[tokio::test(start_paused = true)]
    async fn what_is_shown_is_what_is() {
        let metrics = InMemoryMetrics::default();
        let places = Places::new(Bulkhead::new(1, 2), &"orders".into(), Some(&metrics));
        let shown = || [CALLS_IN_FLIGHT, CALLS_WAITING].map(|gauge| metrics.sum(gauge, &[]));
        let deadline = Instant::now() + Duration::from_secs(10);
        let one = places.try_enter().unwrap();
        assert!(places.try_enter().is_none());
        assert_eq!(shown(), [1.0, 0.0]);
        let places = Arc::new(places);
        let mut waiting = JoinSet::new();
        for _ in 0..2 {
            let places = Arc::clone(&places);
            waiting.spawn(async move { places.enter(deadline).await });
        }
        tokio::task::yield_now().await;
        assert_eq!(shown(), [1.0, 2.0]);
        assert!(places.enter(deadline).await.is_err(), "the line is full");
        assert_eq!(shown(), [1.0, 2.0]);
        drop(one);
        let two = waiting.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(shown(), [1.0, 1.0]);
        waiting.shutdown().await;
        assert_eq!(shown(), [1.0, 0.0]);
        let late = places.enter(Instant::now() + Duration::from_millis(5));
        assert!(late.await.is_err());
        let given_up = timeout(Duration::from_millis(5), places.enter(deadline));
        assert!(given_up.await.is_err());
        assert_eq!(shown(), [1.0, 0.0]);
        drop(two);
        assert_eq!(shown(), [0.0, 0.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_nobody_takes_any_more_is_shown_as_free() {
        let metrics = InMemoryMetrics::default();
        let places = Places::new(Bulkhead::new(1, 1), &"orders".into(), Some(&metrics));
        let shown = || [CALLS_IN_FLIGHT, CALLS_WAITING].map(|gauge| metrics.sum(gauge, &[]));
        let deadline = Instant::now() + Duration::from_secs(10);
        let one = places.try_enter().unwrap();
        let mut waiting = Box::pin(places.enter(deadline));
        assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
        assert_eq!(shown(), [1.0, 1.0]);
        // The place goes to the one in the line, which is dropped before it looks.
        drop(one);
        drop(waiting);
        assert_eq!(shown(), [0.0, 0.0]);
    }

    #[test]
    fn what_many_threads_do_at_once_is_shown_in_the_end() {
        for _ in 0..50 {
            let metrics = InMemoryMetrics::default();
            let places = Places::new(Bulkhead::new(64, 0), &"orders".into(), Some(&metrics));
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..200 {
                            drop(places.try_enter());
                        }
                    });
                }
            });
            assert_eq!(metrics.sum(CALLS_IN_FLIGHT, &[]), 0.0);
        }
    }
}
