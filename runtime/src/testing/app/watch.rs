//! Time as a test sees it: whether it is virtual, and a limit in real time for what never ends.

use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long real time has to go on to see whether tokio's does too.
const GLANCE: Duration = Duration::from_micros(5);

/// Whether tokio's time stands still between timers.
pub(super) fn is_virtual() -> bool {
    let (begun, real) = (Instant::now(), std::time::Instant::now());
    while real.elapsed() < GLANCE {
        std::hint::spin_loop();
    }
    begun.elapsed().is_zero()
}

/// Tells when a limit in real time is over. Tokio's own timers cannot: paused time does not move
/// while anything is busy, so messages that cause each other for ever would never meet a limit.
pub(super) struct Watchdog {
    over: oneshot::Receiver<()>,
    /// Ends the thread when dropped.
    _leash: SyncSender<()>,
}

impl Watchdog {
    pub(super) fn new(limit: Duration) -> Self {
        let (bark, over) = oneshot::channel();
        let (leash, dropped) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            if dropped.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                // Nobody waits any more: then it is not late either.
                let _ = bark.send(());
            }
        });
        Self {
            over,
            _leash: leash,
        }
    }

    /// Waits until the limit is over.
    pub(super) async fn over(&mut self) {
        if (&mut self.over).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn paused_time_is_virtual_and_the_watchdog_is_not() {
        assert!(is_virtual());
        let begun = std::time::Instant::now();
        let mut watchdog = Watchdog::new(Duration::from_millis(20));
        watchdog.over().await;
        assert!(begun.elapsed() >= Duration::from_millis(20));
    }

    #[tokio::test]
    async fn time_that_runs_is_not_virtual() {
        assert!(!is_virtual());
    }
}
