//! A connection that is made when it is needed, and again after it was lost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Rng;
use crate::redis::{Connection, Failure, Opening, Settings, open};
use crate::resilience::Backoff;

/// How long nobody tries to connect after it failed: the first time, and at most.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// One connection, shared.
pub(super) struct Link {
    settings: Settings,
    rng: Rng,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    connection: Option<Connection>,
    connecting: bool,
    failed: Option<(String, Instant)>,
    failures: u32,
}

impl Link {
    pub(super) fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            rng: Rng::new(),
            state: Mutex::new(State {
                connection: None,
                connecting: false,
                failed: None,
                failures: 0,
            }),
            changed: Notify::new(),
        })
    }

    /// The connection; waits for the attempt that is under way, and begins one where it is time for it.
    /// The caller limits the wait. Why there is none, where one failed a moment ago.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<Connection, String> {
        loop {
            // Before the look, so that no change between the two is missed.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if let Some(connection) = &state.connection {
                    if connection.is_up() {
                        return Ok(connection.clone());
                    }
                    state.connection = None;
                }
                if !state.connecting {
                    if let Some((why, until)) = &state.failed
                        && Instant::now() < *until
                    {
                        return Err(why.clone());
                    }
                    state.connecting = true;
                    // A task of its own: it goes on when the call that began it is given up. The time
                    // limit of connecting ends it.
                    tokio::spawn(Arc::clone(self).connect());
                }
            }
            changed.await;
        }
    }

    async fn connect(self: Arc<Self>) {
        // Also where the attempt panics, so that nobody waits for it.
        let mut attempt = Attempt {
            link: &self,
            result: Some(Err("the attempt to connect was given up".to_owned())),
        };
        let opened = self.open().await;
        attempt.result = Some(opened.map_err(|failure| failure.message));
    }

    async fn open(&self) -> Result<Connection, Failure> {
        let target = self.settings.target()?;
        let opening = Opening {
            name: "interline-rate",
            response_timeout: self.settings.command_timeout,
            pushes: None,
        };
        open(&target, opening).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt to connect, whose end is told however it ends.
struct Attempt<'l> {
    link: &'l Link,
    result: Option<Result<Connection, String>>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let link = self.link;
        let mut state = link.state();
        state.connecting = false;
        match self.result.take() {
            Some(Ok(connection)) => {
                state.connection = Some(connection);
                state.failed = None;
                state.failures = 0;
            }
            Some(Err(why)) => {
                state.failures = state.failures.saturating_add(1);
                let wait = BACKOFF.wait(state.failures, &link.rng);
                state.failed = Some((why, Instant::now() + wait));
            }
            None => {}
        }
        drop(state);
        link.changed.notify_waiters();
    }
}
